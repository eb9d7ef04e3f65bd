//! Bad input when a broker is opened: a typed error within its bound, that names the server and the way out.
//!
//! Not here: URLs that cannot be meant (`broker/src/kafka/settings`).

use crate::{
    server::{host, said, url},
    tests,
};
use ropeway_broker::{Error, ErrorKind, connect};
use std::{io::Write as _, net::TcpListener, path::Path, thread, time::Duration};
use tokio::time::timeout;

tests! {
    a_dead_port_is_told_within_seconds,
    a_port_of_something_else_is_told,
    a_wrong_password_is_told,
    a_password_opens,
    an_untrusted_certificate_is_told,
    tls_against_a_plain_port_is_told,
    a_plain_client_against_tls_is_told,
    a_missing_certificate_of_the_client_is_told,
    a_missing_user_is_told,
    a_file_that_is_no_certificate_is_told,
}

/// The error of a URL that cannot be connected to, told within 15 s.
async fn refused(url: &str) -> Error {
    timeout(Duration::from_secs(15), connect(url)).await.unwrap().unwrap_err()
}

fn names(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

async fn a_dead_port_is_told_within_seconds() {
    let error = refused("kafka://127.0.0.1:1").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    names(&error, &["connect", "127.0.0.1:1", "whether the servers run"]);
}

/// One that answers a client of Kafka in words of its own, and one that waits for words that it knows (as Redis does).
async fn a_port_of_something_else_is_told() {
    for (says, word) in [(Some("HTTP/1.1 400 Bad Request\r\n\r\n"), "is no Kafka"), (None, "answers nothing")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut open = Vec::new();
            for mut stream in listener.incoming().flatten() {
                says.map(|says| stream.write_all(says.as_bytes()));
                open.push(stream);
            }
        });
        let error = refused(&format!("kafka://{host}")).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        names(&error, &[&host, word]);
    }
}

/// The server with TLS: its host, the user, the password, its files.
pub(crate) fn secured() -> (String, String, String, String) {
    let host = host(&said("ROPEWAY_TEST_KAFKA_TLS_URL"));
    let (user, password) = (said("ROPEWAY_TEST_KAFKA_TLS_USER"), said("ROPEWAY_TEST_KAFKA_TLS_PASSWORD"));
    (host, user, password, said("ROPEWAY_TEST_KAFKA_TLS_DIR"))
}

async fn a_wrong_password_is_told() {
    let (host, user, _, files) = secured();
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        let error =
            refused(&format!("kafka+ssl://{user}:hush-hush@{host}?ca={files}/ca.crt&mechanism={mechanism}"))
                .await;
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        names(&error, &[&host, "password"]);
        assert!(!error.to_string().contains("hush-hush"), "{error}");
    }
}

async fn a_password_opens() {
    let (host, user, password, files) = secured();
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        let url = format!("kafka+ssl://{user}:{password}@{host}?ca={files}/ca.crt&mechanism={mechanism}");
        let broker = connect(&url).await.unwrap();
        assert!(broker.health().await.is_ready());
        broker.close(Duration::from_secs(5)).await;
    }
}

async fn an_untrusted_certificate_is_told() {
    let (host, user, password, files) = secured();
    for ca in ["", "&ca=other-ca.crt"] {
        let ca = ca.replace("other", &format!("{files}/other"));
        let error = refused(&format!("kafka+ssl://{user}:{password}@{host}?mechanism=plain{ca}")).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        names(&error, &[&host, "`ca`"]);
    }
}

async fn tls_against_a_plain_port_is_told() {
    let host = host(&url());
    let error = refused(&format!("kafka+ssl://{host}")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    names(&error, &[&host, "SSL", "seems not to expect TLS: write kafka://"]);
}

async fn a_missing_certificate_of_the_client_is_told() {
    let (.., files) = secured();
    let host = host(&said("ROPEWAY_TEST_KAFKA_MTLS_URL"));
    let error = refused(&format!("kafka+ssl://{host}?ca={files}/ca.crt")).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    names(&error, &[&host, "alert", "certificate", "by `cert` and `key`"]);
    let url = format!("kafka+ssl://{host}?ca={files}/ca.crt&cert={files}/client.crt&key={files}/client.key");
    connect(&url).await.unwrap().close(Duration::from_secs(5)).await;
}

async fn a_missing_user_is_told() {
    let (host, _, _, files) = secured();
    let error = refused(&format!("kafka+ssl://{host}?ca={files}/ca.crt")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    names(&error, &[&host]);
}

async fn a_plain_client_against_tls_is_told() {
    let (host, ..) = secured();
    let error = refused(&format!("kafka://{host}")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    names(&error, &[&host, "Disconnected", "seems to expect TLS: write kafka+ssl://"]);
}

async fn a_file_that_is_no_certificate_is_told() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let file = file.display();
    let error = refused(&format!("kafka+ssl://127.0.0.1:1?ca={file}")).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    names(&error, &["`ca`", "PEM"]);
    let error = refused("kafka+ssl://127.0.0.1:1?ca=./never/made.pem").await;
    names(&error, &["`ca`", "never/made.pem", "cannot be read"]);
}
