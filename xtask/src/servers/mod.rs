//! `cargo xtask servers`: real servers on loopback, for tests and for trying things.
//!
//! `kind.rs`: which there are. `place.rs`: where their files are. `process.rs`: processes that outlive this one. `tool.rs`: programs they need.
//! `port.rs`: free ports. `ready.rs`, `clock.rs`: waiting. `redis/`, `kafka/`, `pulsar/`: how each is
//! started and asked. `java/`: what the last two are made of and run on. `certificates.rs`: for those behind TLS. `table.rs`: what `status` prints. `keeper.rs`: servers for as long as a command runs. `trouble.rs`: why there is none. `way.rs`,
//! `engine.rs`: packages or containers. Not
//! here: who uses them (`test.rs`, `tests/support/server.rs`).

mod certificates;
mod clock;
mod engine;
#[cfg(test)]
mod engine_tests;
mod java;
mod kafka;
mod keeper;
mod kind;
mod place;
mod port;
mod process;
mod pulsar;
mod ready;
mod redis;
mod table;
mod tool;
mod trouble;
mod way;

pub(crate) use keeper::{Keeper, Kept};
pub(crate) use kind::Kind;
use place::{Place, Record};
use process::Process;
use std::{path::Path, process::ExitCode, thread};
use table::{Row, State};
use trouble::{Trouble, broken};
use way::{Ground, Way, Wish};

/// Lines of each log that are shown.
const TAIL: usize = 20;

/// Runs the command that `words` spell.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let mut words = words.to_vec();
    let wish = match Wish::take(&mut words) {
        Ok(wish) => wish,
        Err(why) => return usage(&why),
    };
    let Some((verb, names)) = words.split_first() else {
        return usage("servers needs up, down, status or logs");
    };
    let kinds = match chosen(names) {
        Ok(kinds) => kinds,
        Err(name) => {
            return usage(&format!("there is no server {name:?}; there are {}", names_of(Kind::ALL)));
        }
    };
    let place = Place::of_workspace();
    match verb.as_str() {
        "up" => up(&place, &kinds, wish),
        "down" => down(&place, &kinds),
        "status" => status(&place, &kinds),
        "logs" => logs(&place, &kinds),
        keeper::VERB => keeper::run(&place, &kinds),
        other => usage(&format!("servers has no {other:?}: up, down, status or logs")),
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(2)
}

fn names_of(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// All, or those that are named.
fn chosen(names: &[String]) -> Result<Vec<Kind>, String> {
    if names.is_empty() {
        return Ok(Kind::ALL.to_vec());
    }
    names.iter().map(|name| Kind::named(name).ok_or_else(|| name.clone())).collect()
}

/// Brings servers up at the same time, tells on standard error how that goes, and prints what a shell can take over.
fn up(place: &Place, kinds: &[Kind], wish: Wish) -> ExitCode {
    let outcomes = match bring_up(place, kinds, wish, true) {
        Ok(outcomes) => outcomes,
        Err(trouble) => return failed(&trouble),
    };
    let mut code = ExitCode::SUCCESS;
    for (kind, outcome) in outcomes {
        match outcome {
            Ok(record) => {
                for (name, value) in record.exports {
                    println!("export {name}='{value}'");
                }
            }
            Err(trouble) => {
                let ignored = if matches!(trouble, Trouble::Missing(_)) { "ignored: " } else { "" };
                eprintln!("{}: {ignored}{trouble}", kind.name());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn failed(trouble: &Trouble) -> ExitCode {
    eprintln!("error: {trouble}");
    ExitCode::FAILURE
}

/// What became of each server.
type Outcomes = Vec<(Kind, Result<Record, Trouble>)>;

/// Brings servers up at the same time. Those that are `kept` stay when a command that uses them is done.
fn bring_up(place: &Place, kinds: &[Kind], wish: Wish, kept: bool) -> Result<Outcomes, Trouble> {
    let ways = match wish.ways() {
        Ok(ways) => ways,
        Err(why) => {
            return Ok(kinds.iter().map(|kind| (*kind, Err(Trouble::Missing(why.clone())))).collect());
        }
    };
    let _lock = place.lock()?;
    let outcomes: Outcomes = thread::scope(|scope| {
        let started: Vec<_> =
            kinds.iter().map(|kind| (*kind, scope.spawn(|| bring_one_up(place, *kind, &ways)))).collect();
        let ended = started.into_iter().map(|(kind, thread)| (kind, thread.join()));
        ended.map(|(kind, outcome)| (kind, outcome.unwrap_or_else(|_| Err(broken("it panicked"))))).collect()
    });
    for (kind, outcome) in &outcomes {
        if place.folder(*kind).exists() {
            place.set_record(*kind, outcome.as_ref().ok()).map_err(broken)?;
        }
        if kept && outcome.is_ok() {
            place.keep(*kind).map_err(broken)?;
        }
    }
    Ok(outcomes)
}

/// Brings a server up in the first of the ways that works.
fn bring_one_up(place: &Place, kind: Kind, ways: &[Way]) -> Result<Record, Trouble> {
    if let Some(record) = place.record(kind)
        && state(place, kind) == State::Up
    {
        eprintln!("{}: already up at {}", kind.name(), record.url());
        return Ok(record);
    }
    let mut last = broken("there is no way to run it");
    for (at, way) in ways.iter().enumerate() {
        match start(place, kind, way) {
            Ok(record) => {
                eprintln!("{}: up at {}", kind.name(), record.url());
                return Ok(record);
            }
            Err(trouble) => last = with_log(trouble, place, kind),
        }
        if at + 1 < ways.len() {
            eprintln!("{}: not in a container, so from packages: {last}", kind.name());
        }
    }
    Err(last)
}

/// Starts a server in an emptied folder.
fn start(place: &Place, kind: Kind, way: &Way) -> Result<Record, Trouble> {
    let folder = place.folder(kind);
    // Whatever a command that was killed, or a server that no longer answers, left here.
    stop(&folder)?;
    place.fresh(kind)?;
    let ground = Ground { kind, folder: &folder, way };
    let started = match kind {
        Kind::Kafka(brokers) => kafka::start(brokers, place, &ground),
        Kind::Pulsar => pulsar::start(place, &ground),
        Kind::Redis(shape) => redis::start(shape, &ground),
    };
    if started.is_err() {
        _ = stop(&folder);
    }
    started
}

/// Ends the processes of a server, and returns when they are gone.
fn stop(folder: &Path) -> Result<(), Trouble> {
    let processes = Process::all(folder);
    process::stop(&processes).and_then(|()| way::remove_containers(&processes, folder)).map_err(broken)
}

/// Asks a server that is up whether it still answers.
fn ask(kind: Kind, folder: &Path, record: &Record) -> Result<(), String> {
    match kind {
        Kind::Kafka(brokers) => kafka::ask(brokers, folder, record),
        Kind::Pulsar => pulsar::ask(record),
        Kind::Redis(shape) => redis::ask(shape, folder, record),
    }
}

/// Adds what the server printed last to why it did not come up.
fn with_log(trouble: Trouble, place: &Place, kind: Kind) -> Trouble {
    let Trouble::Broken(why) = trouble else { return trouble };
    let last = Process::all(&place.folder(kind)).into_iter().filter_map(|process| {
        let log = place.folder(kind).join(format!("{}.log", process.role));
        Some(format!("\n{}:\n{}", log.display(), process::tail(&log, 5).ok()?))
    });
    Trouble::Broken(why + &last.collect::<String>())
}

fn down(place: &Place, kinds: &[Kind]) -> ExitCode {
    match take_down(place, kinds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => failed(&trouble),
    }
}

/// Ends servers, and returns when they are gone. Their files stay until they are brought up again.
fn take_down(place: &Place, kinds: &[Kind]) -> Result<(), Trouble> {
    let _lock = place.lock()?;
    let runs = |kind: &&Kind| Process::all(&place.folder(**kind)).iter().any(Process::runs);
    let there: Vec<&Kind> =
        kinds.iter().filter(|kind| place.record(**kind).is_some() || runs(kind)).collect();
    thread::scope(|scope| {
        let stopped: Vec<_> = kinds.iter().map(|kind| scope.spawn(|| stop(&place.folder(*kind)))).collect();
        stopped
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(broken("it panicked"))))
    })?;
    for kind in there {
        place.set_record(*kind, None).map_err(broken)?;
        eprintln!("{}: down", kind.name());
    }
    Ok(())
}

/// Ends all servers that were not brought up by hand.
fn take_down_unkept(place: &Place) -> Result<(), Trouble> {
    let unkept: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| !place.is_kept(*kind)).collect();
    take_down(place, &unkept)
}

/// How a server is: asks it.
fn state(place: &Place, kind: Kind) -> State {
    let folder = place.folder(kind);
    let processes = Process::all(&folder);
    let running = processes.iter().filter(|process| process.runs()).count();
    match place.record(kind) {
        None if running > 0 => State::Starting,
        None => State::Down,
        Some(_) if running == 0 => State::Died,
        Some(record) => match ask(kind, &folder, &record) {
            Ok(()) if running == processes.len() => State::Up,
            Ok(()) => State::Damaged,
            Err(_) => State::Silent,
        },
    }
}

/// Prints a table. Succeeds if all that were asked for are up.
fn status(place: &Place, kinds: &[Kind]) -> ExitCode {
    let rows: Vec<Row> = kinds.iter().map(|kind| row(place, *kind)).collect();
    print!("{}", table::table(&rows));
    if rows.iter().all(|row| row.state == State::Up) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn row(place: &Place, kind: Kind) -> Row {
    let processes = Process::all(&place.folder(kind));
    let state = state(place, kind);
    let running: Vec<&Process> = processes.iter().filter(|process| process.runs()).collect();
    Row {
        name: kind.name(),
        state,
        pids: running.iter().map(|process| process.pid).collect(),
        resident: running.iter().filter_map(|process| process.resident()).sum(),
        record: place.record(kind),
    }
}

fn logs(place: &Place, kinds: &[Kind]) -> ExitCode {
    for kind in kinds {
        for process in Process::all(&place.folder(*kind)) {
            let log = place.folder(*kind).join(format!("{}.log", process.role));
            println!("==> {} <==", log.display());
            match process::tail(&log, TAIL) {
                Ok(lines) => print!("{lines}"),
                Err(error) => println!("cannot be read: {error}"),
            }
        }
    }
    ExitCode::SUCCESS
}
