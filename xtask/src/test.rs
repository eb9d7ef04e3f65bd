//! `cargo xtask test`: runs every test there is and sums up.
//!
//! The tests need nothing but the toolchain today, so there is nothing to get first. Not here: understanding what the test programs print
//! (`tally.rs`).

use crate::{cargo, tally::Tally};
use std::{
    io::{self, BufRead, BufReader, Write},
    process::{ExitCode, Stdio},
};

/// Runs `cargo test --workspace`, or with `arguments` what they choose. Succeeds if all that ran passed and something ran.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]);
    if !arguments.iter().any(|argument| argument == "-p" || argument.starts_with("--package")) {
        command.arg("--workspace");
    }
    let mut child = match command.args(arguments).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return failed(&format!("could not start cargo: {error}")),
    };
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take()
        && let Err(error) = follow(stdout, io::stdout().lock(), &mut tally)
    {
        return failed(&format!("could not pass on what the tests print: {error}"));
    }
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => return failed(&format!("could not wait for cargo: {error}")),
    };
    print!("\n{}", tally.report());
    if !status.success() {
        return failed("tests failed; the lines above say which");
    }
    if tally.ran() == 0 {
        return failed("no test ran");
    }
    ExitCode::SUCCESS
}

/// Passes every line on at once and counts it. Test programs may print bytes that are no UTF-8.
fn follow(from: impl io::Read, mut to: impl Write, tally: &mut Tally) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        tally.line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

fn failed(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_passed_on_and_counted() {
        let printed = b"test a ... ok\n\xff\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let (mut seen, mut tally) = (Vec::new(), Tally::default());
        follow(&printed[..], &mut seen, &mut tally).unwrap();
        assert_eq!(seen, printed);
        assert_eq!(tally.ran(), 1);
    }
}
