//! What is served over HTTP with `--listen` while a verb runs.

use crate::running::Place;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[test]
fn metrics_lag_and_health_are_served_while_it_runs() {
    let place = Place::with_topic("t", 2);
    place.run(&["pub", "t", "x"]).ok();
    place.run(&["topic", "create", "t.g.dlq", "-p", "1"]).ok();
    place.run(&["pub", "t.g.dlq", "dead"]).ok();
    let mut sub = place.start(&["sub", "t", "-g", "g", "-o", "raw", "--listen", "127.0.0.1:0"]);
    let serving = sub.wait_for("serving /metrics");
    let address = serving.rsplit_once("http://").unwrap().1.to_owned();
    assert_eq!(sub.next_line(), "x");
    assert_eq!(get(&address, "/healthz").0, 200);
    assert_eq!(get(&address, "/readyz").0, 200);
    assert_eq!(get(&address, "/nothing").0, 404);
    let (status, page) = get(&address, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "messaging_client_consumed_messages_total{consumer_group=\"g\",destination=\"t\",system=\"embedded\"} 1",
        "ropeway_consumer_lag_known{group=\"g\",system=\"embedded\",topic=\"t\"} 1",
        "ropeway_consumer_lag{group=\"g\",system=\"embedded\",topic=\"t\"} ",
        "ropeway_consumer_assigned_partitions{consumer_group=\"g\",system=\"embedded\"} 2",
        "ropeway_dlq_messages{dlq=\"t.g.dlq\"} 1",
        "ropeway_ready 1",
        "ropeway_build_info{",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    let taken = Place::new();
    taken.run(&["topic", "list", "--listen", &address]).code(78).said(&["could not listen on", "cause:"]);
    taken.run(&["topic", "list", "--listen", "9464"]).code(78).said(&["ADDRESS:PORT"]);
    sub.signal("INT");
    sub.end().code(130);
}
