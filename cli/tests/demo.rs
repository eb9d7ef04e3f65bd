//! `ropeway demo` as a user runs it: the program in a directory of its own, again and again.
//!
//! Not here: what it computes and how it judges (`cli/src/demo/`).

#![expect(clippy::unwrap_used, reason = "what fails ends the test")]

use serde_json::Value;
use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::Duration,
};

fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ropeway"));
    command.current_dir(directory).arg("demo").args(["--output", "json"]).args(arguments);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end and answers with the report.
fn report(directory: &Path, arguments: &[&str]) -> (ExitStatus, Value, String) {
    let output = demo(directory, arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{}: {error}: no report; it said {said}", output.status));
    (output.status, report, said)
}

/// Runs it to a good end.
fn good(directory: &Path, arguments: &[&str]) -> Value {
    let (status, report, said) = report(directory, arguments);
    assert!(status.success(), "{status}: {report:#}\n{said}");
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(report["since_reset"]["equals_plain_loop"], true, "{report:#}");
    assert_eq!(report["since_reset"]["order_violations"], 0, "{report:#}");
    assert_eq!(report["since_reset"]["lost"], 0, "{report:#}");
    report
}

/// Waits until the handlers have finished that many reports.
fn wait_for_lines(directory: &Path, lines: usize) {
    let ledger = directory.join(".ropeway/demo.ledger");
    for _ in 0..6000 {
        if std::fs::read_to_string(&ledger).is_ok_and(|text| text.lines().count() > lines) {
            return;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("the demo handled fewer than {lines} reports within 30 s");
}

/// How many reports one that is slow has.
const MANY: usize = 3000;

/// Starts it slowly, so that it can be stopped in the middle, seconds before its end.
fn slow(directory: &Path) -> Child {
    let child = demo(directory, &["--records", &MANY.to_string(), "--rate", "400"]).spawn().unwrap();
    wait_for_lines(directory, 100);
    child
}

#[test]
fn a_second_run_goes_on_and_a_reset_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let first = good(directory, &["--records", "1500"]);
    let (run, all) = (&first["this_run"], &first["since_reset"]);
    assert_eq!(run["published"], 1500);
    assert_eq!(run["processed"].as_u64().unwrap() + run["dead_lettered"].as_u64().unwrap(), 1500);
    assert!(run["dead_lettered"].as_u64().unwrap() > 0 && run["retried"].as_u64().unwrap() > 0, "{first:#}");
    assert!(run["replaced"]["in_flight"].as_u64().unwrap() > 0, "{first:#}");
    assert_eq!(all["rounds"], 1);
    let reasons = first["dead_letter_reasons"].as_array().unwrap();
    assert!(
        reasons.iter().any(|reason| reason["example"].as_str().unwrap().contains("repair cost")),
        "{first:#}"
    );

    for command in first["next"].as_array().unwrap() {
        let command = command.as_str().unwrap();
        let output = Command::new("sh").current_dir(directory).args(["-c", command]).output().unwrap();
        assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty(), "`{command}` prints nothing");
    }

    let second = good(directory, &["--records", "500", "--members", "2"]);
    assert_eq!(second["since_reset"]["rounds"], 2);
    assert_eq!(second["since_reset"]["published"], 2000);
    assert_eq!(second["this_run"]["published"], 500);

    let third = good(directory, &["--reset", "--records", "300"]);
    assert_eq!(third["since_reset"]["rounds"], 1);
    assert_eq!(third["since_reset"]["published"], 300);
}

#[test]
fn a_killed_run_is_finished_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = slow(directory.path());
    child.kill().unwrap();
    child.wait().unwrap();
    let report = good(directory.path(), &[]);
    assert_eq!(report["since_reset"]["rounds"], 1, "{report:#}");
    assert_eq!(report["since_reset"]["published"], MANY, "{report:#}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_in_order_with_a_report_and_the_next_run_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let child = slow(directory.path());
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{report:#}");
    assert_eq!(report["interrupted"], true, "{report:#}");
    assert_eq!(report["since_reset"]["order_violations"], 0, "{report:#}");
    let left = report["since_reset"]["left"].as_u64().unwrap();
    assert!(left > 0, "{report:#}");
    let report = good(directory.path(), &[]);
    assert_eq!(report["since_reset"]["published"], MANY, "{report:#}");
    let run = &report["this_run"];
    assert_eq!(
        run["processed"].as_u64().unwrap() + run["dead_lettered"].as_u64().unwrap(),
        left,
        "{report:#}"
    );
}

#[test]
fn a_ledger_that_is_gone_is_said_and_not_guessed() {
    let directory = tempfile::tempdir().unwrap();
    good(directory.path(), &["--records", "50"]);
    std::fs::remove_file(directory.path().join(".ropeway/demo.ledger")).unwrap();
    let output = demo(directory.path(), &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("demo --reset"), "{said}");
    good(directory.path(), &["--records", "50", "--reset"]);
}
