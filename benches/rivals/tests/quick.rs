//! Every cell works: the program's own smoke test, with the check of what is read back. Nothing is judged.

use std::process::Command;

#[test]
fn every_cell_runs_and_reads_back_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("ratios.json");
    let run = Command::new(env!("CARGO_BIN_EXE_ropeway-rivals"))
        .args(["--quick", "--assert", "--dir"])
        .arg(dir.path())
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{stdout}{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    // Those on a server run where there is one, and are told of where there is none.
    let ignored = report["ignored"].as_array().unwrap();
    let bounds = report["bounds"].as_array().unwrap();
    let of = |name: &str| ignored.iter().filter(|cell| cell.as_str().unwrap().starts_with(name)).count();
    let (redis, kafka) = (of("redis-"), of("kafka-"));
    assert_eq!(rows.len() + bounds.len() + redis + kafka, 43, "{report}");
    // Three of those on Kafka need programs of others, and are never run here.
    assert!([0, 10].contains(&redis) && [3, 15].contains(&kafka), "{ignored:?}");
    for row in rows {
        let cell = row["cell"].as_str().unwrap();
        assert!(stdout.contains(cell), "{stdout}");
        for arm in ["ours", "rival"] {
            assert!(row[arm]["rate"].as_f64().is_some_and(|rate| rate > 0.0), "{cell}: {row}");
        }
    }
    assert!(bounds.iter().all(|bounds| bounds["figures"].as_array().is_some_and(|all| !all.is_empty())));
    // What was made is removed; only the report is left.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
