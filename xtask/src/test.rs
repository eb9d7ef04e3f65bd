//! `cargo xtask test`: runs every test there is and sums up.
//!
//! Real servers come up while the tests are built, and go when this ends, however it ends. One that cannot be had is shown as ignored; one
//! whose URL is in the environment is used as it is. Not here: servers (`servers/keeper.rs`), understanding what the test programs print
//! (`tally.rs`), ending those that hang (`watch.rs`).

use crate::{
    cargo,
    servers::{Keeper, Kept, Kind},
    tally::Tally,
    watch::{SILENCE, watch},
};
use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
};

/// Packages whose tests want servers, and the beginning of the names of these. The tests of all others need nothing.
const WANT: &[(&str, &str)] =
    &[("ropeway-tests", ""), ("ropeway-broker", "kafka"), ("ropeway", "redis"), ("ropeway", "kafka")];

/// Runs `cargo test --workspace`, or with `arguments` what they choose. Succeeds if all that ran passed and something ran.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let mut servers = match servers(arguments) {
        Ok(servers) => servers,
        Err(error) => return failed(&error),
    };
    if let Err(why) = build(arguments) {
        return failed(&why);
    }
    let kept = match servers.as_mut().map_or_else(|| Ok(Kept::default()), Keeper::ready) {
        Ok(kept) => kept,
        Err(trouble) => return failed(&trouble.to_string()),
    };
    let code = run_with(arguments, &kept);
    drop(servers);
    code
}

/// Builds what will run, while servers come up.
fn build(arguments: &[String]) -> Result<(), String> {
    if arguments.iter().any(|argument| argument == "--doc") {
        // Those are built as they run.
        return Ok(());
    }
    match test(arguments, &["--no-run"]).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("the tests could not be built".into()),
        Err(error) => Err(format!("could not start cargo: {error}")),
    }
}

/// Begins to bring up what the tests want and the environment does not name.
fn servers(arguments: &[String]) -> Result<Option<Keeper>, String> {
    let is_set = |kind: &Kind| env::var_os(kind.variable()).is_some_and(|url| !url.is_empty());
    let mut wanted = wanted(&packages(arguments));
    wanted.retain(|kind| !is_set(kind));
    if wanted.is_empty() {
        return Ok(None);
    }
    Keeper::start(&wanted).map(Some).map_err(|trouble| trouble.to_string())
}

/// The packages that arguments of `cargo test` name.
fn packages(arguments: &[String]) -> Vec<&str> {
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).take_while(|argument| *argument != "--").collect();
    let mut packages = Vec::new();
    for (at, argument) in arguments.iter().enumerate() {
        if matches!(*argument, "-p" | "--package") {
            packages.extend(arguments.get(at + 1));
        } else if let Some(package) =
            argument.strip_prefix("--package=").or_else(|| argument.strip_prefix("-p"))
        {
            packages.push(package.trim_start_matches('='));
        }
    }
    packages
}

/// The servers that the tests of these packages want; of none: of all.
fn wanted(packages: &[&str]) -> Vec<Kind> {
    let wants = |kind: &Kind| {
        let mut some = WANT.iter().filter(|(_, names)| kind.name().starts_with(names));
        packages.is_empty() || some.any(|(package, _)| packages.contains(package))
    };
    Kind::ALL.iter().copied().filter(wants).collect()
}

/// `cargo test` with `more` and `arguments`.
fn test(arguments: &[String], more: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]).args(more);
    if packages(arguments).is_empty() {
        // The program with every backend: its tests on a server are those of that feature.
        command.args(["--workspace", "--features", "ropeway/full"]);
    }
    command.args(arguments);
    command
}

fn run_with(arguments: &[String], kept: &Kept) -> ExitCode {
    let mut command = test(arguments, &[]);
    command.envs(kept.exports.iter().map(|(name, value)| (name, value)));
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return failed(&format!("could not start cargo: {error}")),
    };
    let mut tally = Tally::default();
    kept.missing.iter().for_each(|(name, why)| tally.absent(name, why));
    if let Some(stdout) = child.stdout.take() {
        let (line, lines) = mpsc::channel();
        let cargo = child.id();
        let watcher = thread::spawn(move || watch(cargo, &lines, SILENCE));
        let followed = follow(stdout, io::stdout().lock(), |text| {
            // It listens as long as lines come.
            _ = line.send(());
            tally.line(text);
        });
        drop(line);
        if let Err(error) = followed {
            return failed(&format!("could not pass on what the tests print: {error}"));
        }
        for ended in watcher.join().unwrap_or_default() {
            tally.hung(&ended.program.display().to_string(), ended.tests);
        }
    }
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => return failed(&format!("could not wait for cargo: {error}")),
    };
    print!("\n{}", tally.report());
    for (name, why) in &kept.broken {
        eprintln!("error: the server {name} did not come up: {why}");
    }
    if !status.success() {
        return failed("tests failed; the lines above say which");
    }
    if !kept.broken.is_empty() {
        return failed("not all servers came up");
    }
    if tally.ran() == 0 {
        return failed("no test ran");
    }
    ExitCode::SUCCESS
}

/// Passes every line on at once and shows it. Test programs may print bytes that are no UTF-8.
fn follow(from: impl io::Read, mut to: impl Write, mut show: impl FnMut(&str)) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        show(&String::from_utf8_lossy(&line));
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

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn packages_are_read_in_every_form() {
        let arguments = words("-p one --package two --package=three -pfour --release -- -p five");
        assert_eq!(packages(&arguments), ["one", "two", "three", "four"]);
    }

    #[test]
    fn a_package_gets_the_servers_that_it_wants() {
        assert_eq!(wanted(&[]), Kind::ALL);
        assert_eq!(wanted(&["ropeway-tests"]), Kind::ALL);
        assert_eq!(wanted(&["xtask", "ropeway-processor"]), []);
        let program = wanted(&["ropeway", "xtask"]);
        assert!(program.contains(&Kind::ALL[0]) && !program.contains(&Kind::Pulsar), "{program:?}");
        let kafka = wanted(&["ropeway-broker"]);
        assert!(kafka.len() == 3 && kafka.iter().all(|kind| kind.name().starts_with("kafka")), "{kafka:?}");
    }

    #[test]
    fn every_byte_is_passed_on_and_counted() {
        let printed = b"test a ... ok\n\xff\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let (mut seen, mut tally) = (Vec::new(), Tally::default());
        follow(&printed[..], &mut seen, |line| tally.line(line)).unwrap();
        assert_eq!(seen, printed);
        assert_eq!(tally.ran(), 1);
    }
}
