//! Tests of `engine.rs`, which is also a file of a package without the standard harness.

use super::engine::Engine;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

#[test]
fn an_engine_is_found_where_it_is_said_to_be() {
    let socket = |path: &str| Some(Engine::Socket(path.into()));
    assert_eq!(Engine::named(None), socket("/var/run/docker.sock"));
    assert_eq!(Engine::named(Some("")), socket("/var/run/docker.sock"));
    assert_eq!(Engine::named(Some("unix:///run/x.sock")), socket("/run/x.sock"));
    assert_eq!(Engine::named(Some("tcp://a:1")), Some(Engine::Address("a:1".into())));
    assert_eq!(Engine::named(Some("ssh://a")), None);
}

#[test]
fn the_status_of_an_answer_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = Engine::Address(listener.local_addr().unwrap().to_string());
    let answers = thread::spawn(move || {
        for answer in ["HTTP/1.0 200 OK\r\n\r\nOK", "what?"] {
            let (mut stream, _) = listener.accept().unwrap();
            _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert_eq!(engine.ask("GET", "/_ping").unwrap(), 200);
    assert!(engine.ask("GET", "/_ping").is_err());
    answers.join().unwrap();
    assert!(engine.ask("GET", "/_ping").is_err());
}
