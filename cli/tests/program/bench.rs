//! `ropeway bench`: short runs on real brokers, what must hold of them, reports and their comparison.
//!
//! Not here: figures and how they are found, which are tests of `ropeway-bench`. How fast something is is judged nowhere: the machine is shared.

use crate::running::{Place, fields};
use std::fs;

const MEMORY: [&str; 2] = ["--broker", "memory:"];

#[test]
fn every_load_measures_and_leaves_nothing_behind() {
    let place = Place::new();
    for (args, kind, sent) in [
        (&["pub", "--msgs", "500"][..], "pub", None),
        (&["sub", "--msgs", "500", "--consumers", "2"], "sub", Some(500)),
        (&["e2e", "--msgs", "500", "--producers", "3", "--consumers", "2"], "e2e", Some(500)),
        (&["handler", "--msgs", "500", "--work", "1ms", "--keys", "hot:0.5,10"], "handler", Some(500)),
    ] {
        for broker in [&MEMORY[..], &[]] {
            let args = [&["bench"], args, broker, &["-o", "json", "--partitions", "2"]].concat();
            let report = place.run(&args).ok().json();
            assert_eq!(report["kind"], kind);
            assert_eq!(report["failed"], 0);
            assert!(report["rates"]["throughput"].as_f64().unwrap() > 0.0, "{report}");
            assert_eq!(report["broker"]["kind"], if broker.is_empty() { "embedded" } else { "memory" });
            let Some(sent) = sent else {
                assert!(report["integrity"].is_null());
                continue;
            };
            let verdict = &report["integrity"];
            assert_eq!((&verdict["sent"], &verdict["received"]), (&sent.into(), &sent.into()));
            for nothing in ["lost", "duplicated", "reordered", "unexpected", "untold"] {
                assert_eq!(verdict[nothing], 0, "{args:?} {nothing}");
            }
        }
    }
    assert!(place.run(&["topic", "list", "-o", "raw"]).ok().out.is_empty());
    assert!(place.run(&["group", "list", "-o", "raw"]).ok().out.is_empty());
}

#[test]
fn a_report_has_the_documented_fields_and_a_timetable_is_kept() {
    let place = Place::new();
    let args =
        ["bench", "e2e", "--broker", "memory:", "--rate", "200/s", "--msgs", "100", "--warmup", "200ms"];
    let report = place.run(&[&args[..], &["-o", "json", "--name", "n"]].concat()).ok().json();
    let documented = [
        "broker",
        "disk",
        "failed",
        "host",
        "integrity",
        "interrupted",
        "kind",
        "latency",
        "name",
        "parameters",
        "phases",
        "rates",
        "run_id",
        "saturated_latency",
        "schema_version",
        "series",
        "started_at",
        "version",
    ];
    assert_eq!(fields(&report), documented);
    // Messages 0 to 139 of the timetable, of which the first 40 are warm-up.
    assert_eq!((&report["phases"][0]["acked"], &report["phases"][1]["acked"]), (&40.into(), &100.into()));
    assert_eq!(report["rates"]["intended"], 200.0);
    assert_eq!(report["integrity"]["lost"], 0);
}

#[test]
fn what_holds_ends_well_and_what_does_not_ends_with_3() {
    let place = Place::new();
    let run = |assertions: &[&str]| {
        let mut args = vec!["bench", "e2e", "--broker", "memory:", "--msgs", "200"];
        assertions.iter().for_each(|assertion| args.extend(["--assert", assertion]));
        place.run(&args)
    };
    let out = run(&["lost==0", "sent==200", "e2e.max<10m", "throughput>0.1/s"]).ok().text();
    assert!(out.contains("msg/s") && out.contains("0 lost"), "{out}");
    run(&["e2e.p50<1ns"]).code(3).said(&["it does not hold: e2e.p50<1ns", "e2e.p50 is"]);
    run(&["sent==1", "received<2", "lost==0"]).code(3).said(&[
        "sent is 200",
        "received is 200",
        "2 of what must hold",
    ]);
    run(&["disk.64x1.ratio>0"]).code(3).said(&["not measured"]);
}

#[test]
fn what_makes_no_sense_is_refused_with_2_before_anything_is_made() {
    let place = Place::new();
    for (args, part) in [
        (&["e2e", "--assert", "e2e.p9<1ms"][..], "did you mean"),
        (&["e2e", "--assert", "lost"], "compares nothing"),
        (&["e2e", "--assert", "e2e.p99<20"], "a time with its unit"),
        (&["pub", "--rate", "50"], "50k/s"),
        (&["pub", "--size", "8"], "at least 32 bytes"),
        (&["pub", "--keys", "zipf:1"], "zipf:S,N"),
        (&["pub", "--msgs", "1", "--duration", "1s"], "cannot be used with"),
        (&["pub", "--duration", "2days"], "at most a day"),
        (&["pub", "--msgs", "0"], "1.."),
        (&["e2e", "--producers", "200", "--keys", "uniform:1000000"], "fewer keys"),
        (&["handler", "--work", "1"], "spin:1ms"),
        (&["sub", "--topic", "t", "--msgs", "5"], "cannot be used with"),
        (&["embedded", "--broker", "memory:"], "a broker of its own"),
        (&["embedded", "--turn", "2m"], "at most a minute"),
        (&["compare", "a", "b", "--fail-if", "throughput<5"], "percent"),
    ] {
        place.run(&[&["bench"], args].concat()).code(2).said(&["error:", part]);
    }
    place.run(&["bench", "sub", "--topic", "none"]).code(4).said(&["none"]);
    place
        .run(&["bench", "pub", "--broker", "memory:", "--out", "no/such/place.json"])
        .code(1)
        .said(&["no/such/place.json"]);
    place.run(&["bench", "compare", "a.json", "b.json"]).code(4).said(&["a.json"]);
    let (other, newer) =
        (place.file("other.json", "{}"), place.file("newer.json", "{\"schema_version\": 99}"));
    place.run(&["bench", "compare", &other, &other]).code(2).said(&["no report"]);
    place.run(&["bench", "compare", &newer, &newer]).code(2).said(&["schema version 99"]);
}

#[test]
fn two_reports_are_compared_and_too_much_ends_with_3() {
    let place = Place::new();
    for (name, size) in [("base.json", "64B"), ("new.json", "1KiB")] {
        place
            .run(&["bench", "pub", "--broker", "memory:", "--msgs", "300", "--size", size, "--out", name])
            .ok();
    }
    let table = place.run(&["bench", "compare", "base.json", "new.json"]).ok();
    table.text().lines().find(|line| line.starts_with("publish.p99 ")).unwrap();
    let rows = place
        .run(&["bench", "compare", "base.json", "new.json", "-o", "json"])
        .ok()
        .said(&["size was 64B"])
        .json();
    assert_eq!(fields(&rows[0]), ["base", "figure", "new", "percent"]);
    let same =
        ["bench", "compare", "base.json", "base.json", "--fail-if", "throughput<-5%", "publish.p99>+10%"];
    place.run(&same).ok();
    let judged = ["bench", "compare", "base.json", "new.json", "--fail-if", "bytes>-100%", "lost>+1%"];
    place.run(&judged).code(3).said(&[
        "bytes>-100%: it is",
        "lost>+1%: it was not measured",
        "2 differences",
    ]);
}

#[test]
fn the_page_needs_nothing_else_and_is_well_formed() {
    let place = Place::new();
    let args = [
        "bench",
        "e2e",
        "--broker",
        "memory:",
        "--msgs",
        "300",
        "--html",
        "run.html",
        "--name",
        "<b>&\"bold\"",
    ];
    place.run(&args).ok();
    let page = fs::read_to_string(place.path().join("run.html")).unwrap();
    for part in ["http:", "https:", "<script", "<link", "src=", "<b>&"] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg") && page.contains("&lt;b&gt;&amp;"));
    for element in [
        "html", "head", "body", "main", "section", "svg", "table", "tr", "td", "th", "dl", "div", "p", "text",
    ] {
        let opened =
            page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn ctrl_c_ends_it_with_what_was_measured() {
    let place = Place::new();
    let args = [
        "bench",
        "e2e",
        "--rate",
        "200/s",
        "--duration",
        "1h",
        "--warmup",
        "0s",
        "-o",
        "json",
        "--out",
        "run.json",
    ];
    let bench = place.start(&args);
    // Its file is made at its start; it is signalled as soon as its topic is there, too early or not.
    while !place.path().join(".ropeway").exists() || !place.path().join("run.json").exists() {
        std::thread::yield_now();
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    bench.signal("INT");
    let report = bench.end().code(130).said(&["stopping", "stopped early"]).json();
    assert_eq!((&report["interrupted"], &report["integrity"]["lost"]), (&true.into(), &0.into()));
    assert_eq!(report["integrity"]["sent"], report["integrity"]["received"]);
    let written: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(place.path().join("run.json")).unwrap()).unwrap();
    assert_eq!(written["run_id"], report["run_id"]);
    assert!(place.run(&["topic", "list", "-o", "raw"]).ok().out.is_empty());
}

#[test]
fn a_topic_that_exists_is_consumed_and_left_as_it_was() {
    let place = Place::with_topic("t", 2);
    place.run_with_input(&["pub", "t", "--format", "lines"], b"a\nb\nc\n").ok();
    let report = place.run(&["bench", "sub", "--topic", "t", "-o", "json"]).ok().json();
    assert_eq!(report["phases"][0]["received"], 3);
    assert!(report["integrity"].is_null() && report["latency"]["e2e"].is_null());
    assert_eq!(place.run(&["sub", "t", "--until", "end", "-o", "raw"]).ok().lines().len(), 3);
    let kept = place.run(&["bench", "pub", "--msgs", "10", "--keep", "-o", "json"]).ok().json();
    let topics = place.run(&["topic", "list", "-o", "raw"]).ok().lines();
    assert!(topics.contains(&format!("bench-{}", kept["run_id"].as_str().unwrap())), "{topics:?}");
}

#[test]
fn the_disk_is_measured_beside_the_bare_one_and_nothing_is_left_in_the_directory() {
    let place = Place::new();
    let args = [
        "bench",
        "embedded",
        "--rounds",
        "1",
        "--turn",
        "20ms",
        "-o",
        "json",
        "--assert",
        "disk.64x1.ratio>0",
    ];
    let report = place.run(&args).ok().json();
    let rows = report["disk"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(fields(&rows[0]), ["at_once", "bare", "broker", "high", "low", "ratio", "size"]);
    assert!(
        rows.iter().all(|row| row["broker"].as_f64().unwrap() > 0.0 && row["bare"].as_f64().unwrap() > 0.0)
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    place.run(&["bench", "embedded", "--dir", "none"]).code(4).said(&["none"]);
}
