//! Clients that know nothing of Ropeway, redis-py and redis-cli, read what it writes, show the lag that it shows, and write what it reads.
//!
//! redis-py is installed from the Python registry into `target/`, where that can be done; else the test is ignored.

use crate::{running::Place, server::Server, trials::Test};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Command};

pub(crate) fn all() -> Vec<Test> {
    vec![
        (
            "redis_py_reads_what_we_write_and_we_read_what_it_writes",
            redis_py_reads_what_we_write_and_we_read_what_it_writes,
        ),
        (
            "redis_cli_reads_what_we_write_and_we_read_what_it_writes",
            redis_cli_reads_what_we_write_and_we_read_what_it_writes,
        ),
    ]
}

/// A Python that has redis-py.
fn python() -> Result<PathBuf, String> {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("redis-py");
    let python = place.join("bin/python");
    let has =
        || Command::new(&python).args(["-c", "import redis"]).output().is_ok_and(|ran| ran.status.success());
    if has() {
        return Ok(python);
    }
    let run = |program: &str, args: &[&str]| match Command::new(program).args(args).output() {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&ran.stderr).lines().last().unwrap_or_default()
        )),
        Err(error) => Err(format!("{program}: {error}")),
    };
    let (folder, own) = (place.display().to_string(), python.display().to_string());
    run("python3", &["-m", "venv", &folder])
        .and_then(|()| run(&own, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "redis>=5,<9"]))
        .map_err(|why| format!("no redis-py: {why}; install python3 with venv and pip, and allow it to reach the Python registry"))?;
    if has() { Ok(python) } else { Err("no redis-py: it was installed and cannot be imported".to_owned()) }
}

/// A server with a topic `orders` of 3 partitions, with messages of every shape, of which group `billing` has finished some.
fn written() -> (Server, Place) {
    let server = Server::durable();
    let place = server.place();
    place.run(&["topic", "create", "orders", "-p", "3"]).ok();
    place
        .run(&[
            "pub",
            "orders",
            "{\"total\":9.5}",
            "-k",
            "customer-7",
            "--type",
            "order.created",
            "-H",
            "größe=7",
        ])
        .ok();
    place.run(&["pub", "orders", "no key"]).ok();
    let lines: String = (0..20).map(|number| format!("{number}\n")).collect();
    place.run_with_input(&["pub", "orders", "--format", "lines"], lines.as_bytes()).ok();
    place.run(&["sub", "orders", "-g", "billing", "-n", "7"]).ok();
    (server, place)
}

/// Partition and lag, as we tell it.
fn lag(place: &Place) -> Vec<(u64, u64)> {
    let about = place.run(&["group", "describe", "billing", "-o", "json"]).ok().json();
    let of = |of: &Value| (of["partition"].as_u64().unwrap(), of["lag"].as_u64().unwrap());
    about["partitions"].as_array().unwrap().iter().map(of).collect()
}

fn redis_py_reads_what_we_write_and_we_read_what_it_writes() -> Result<(), String> {
    let python = python()?;
    let (server, place) = written();
    let script = place.file("clients.py", include_str!("clients.py"));
    let py = |what: &str| -> Vec<Value> {
        let ran = Command::new(&python).args([&script, &server.port.to_string(), what]).output().unwrap();
        assert!(ran.status.success(), "{what}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let all = || place.run(&["sub", "orders", "--until", "end", "-o", "ndjson", "--decode", "text"]);

    let theirs = py("read");
    let mut ours = all().ok().ndjson();
    ours.sort_by_key(|one| (one["partition"].as_u64(), one["position"].as_str().map(position)));
    assert_eq!((theirs.len(), ours.len()), (22, 22));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        for field in ["partition", "position", "id", "key", "headers", "payload"] {
            assert_eq!(theirs[field], ours[field], "{field}: {theirs} {ours}");
        }
    }
    let first = theirs.iter().find(|one| one["key"] == "customer-7").unwrap();
    assert!(
        first["headers"].as_array().unwrap().contains(&json!({"name": "größe", "value": "7"})),
        "{first}"
    );

    let shown: Vec<(u64, u64)> = py("lag")
        .iter()
        .filter(|one| one["group"] == "billing")
        .map(|one| (one["partition"].as_u64().unwrap(), one["lag"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, lag(&place));
    assert_eq!(shown.iter().map(|(_, lag)| lag).sum::<u64>(), 15);

    py("write");
    let told = all();
    let now = told.ndjson();
    let added: Vec<&Value> =
        now.iter().filter(|one| !ours.iter().any(|old| old["id"] == one["id"])).collect();
    let [whole, bare] = added.as_slice() else { panic!("{added:#?}") };
    assert_eq!(
        (&whole["id"], &whole["key"]),
        (&"0195e1f0-0000-7000-8000-000000000001".into(), &"c-1".into())
    );
    assert_eq!((&whole["type"], &whole["payload"]), (&"order.paid".into(), &"{\"by\":\"redis-py\"}".into()));
    assert!(
        whole["headers"].as_array().unwrap().contains(&json!({"name": "none", "value": null})),
        "{whole}"
    );
    assert_eq!((&bare["payload"], &bare["key"]), (&"only a payload".into(), &Value::Null));
    assert!(told.err.contains("surprise"), "what is no message is told: {}", told.err);

    // A stream that we know nothing of is a topic of one partition.
    let stock =
        place.run(&["sub", "stock", "--until", "end", "-o", "ndjson", "--decode", "text"]).ok().ndjson();
    assert_eq!((&stock[1]["payload"], stock.len()), (&"one field".into(), 2));
    assert_eq!(
        stock[0]["headers"],
        json!([{"name": "user", "value": "7"}, {"name": "action", "value": "login"}])
    );
    Ok(())
}

/// `1-2` as numbers.
fn position(text: &str) -> (u64, u64) {
    let (time, number) = text.split_once('-').unwrap();
    (time.parse().unwrap(), number.parse().unwrap())
}

fn redis_cli_reads_what_we_write_and_we_read_what_it_writes() -> Result<(), String> {
    let (server, place) = written();
    let mut shown = Vec::new();
    let mut all = String::new();
    for partition in 0..3 {
        let log = format!("ropeway:{{orders/{partition}}}:log");
        all += &server.cli(&["XRANGE", &log, "-", "+"]);
        let groups = server.cli(&["XINFO", "GROUPS", &log]);
        let words: Vec<&str> = groups.lines().collect();
        let at = words.iter().position(|word| *word == "lag").unwrap();
        shown.push((partition, words[at + 1].parse().unwrap()));
    }
    assert!(all.contains("payload\n{\"total\":9.5}") && all.contains("key\ncustomer-7"), "{all}");
    assert_eq!(shown, lag(&place));

    server.cli(&["XADD", "ropeway:{orders/1}:log", "*", "key", "k", "payload", "by hand"]);
    let ours = place.run(&["sub", "orders", "--until", "end", "-o", "ndjson"]).ok().ndjson();
    assert!(ours.iter().any(|one| one["payload"] == "by hand" && one["key"] == "k" && one["partition"] == 1));
    let before: u64 = shown.iter().map(|(_, lag)| lag).sum();
    assert_eq!(lag(&place).iter().map(|(_, lag)| lag).sum::<u64>(), before + 1);
    let rest = place.run(&["sub", "orders", "-g", "billing", "--until", "end", "-o", "raw"]).ok().text();
    assert!(rest.contains("by hand\n"), "{rest}");
    Ok(())
}
