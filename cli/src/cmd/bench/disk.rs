//! `bench embedded`: a broker of its own in a directory that is removed afterwards.
//!
//! Not here: how it is measured (`ropeway-bench`).

use super::{args::Embedded, tell};
use crate::{exit::Exit, failure::Failure, output::Progress, session::Session};
use ropeway_bench::{disk::Disk, host, report::DiskRow};
use ropeway_broker::{Durability, MessageId};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio_util::sync::CancellationToken;

/// A directory that goes when it is dropped.
struct Place(PathBuf);

impl Place {
    fn make(beside: &Path, id: &str) -> Result<Self, Failure> {
        let path = beside.join(format!("ropeway-bench-{id}"));
        fs::create_dir(&path).map_err(|error| {
            let exit =
                if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Error };
            Failure::new(format!("could not make {}", path.display())).caused_by(&error).exits(exit)
        })?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where it cannot be removed it is in plain sight.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Measures the disk.
pub(super) async fn run(args: Embedded, session: &mut Session) -> Result<(), Failure> {
    if session.by_flag("broker.url") {
        return Err(Failure::usage("bench embedded makes a broker of its own").hint("--dir DIR says where"));
    }
    tell::prepare(&args.telling)?;
    let started = crate::time::shown(ropeway_broker::Timestamp::now());
    let id = format!("{:08x}", MessageId::new().as_u128() as u32);
    let place = Place::make(&args.dir, &id)?;
    let measured = measure(&args, &place, session).await;
    let file_system = host::host(Some(&place.0));
    drop(place);
    let rows = measured?;
    let durability = Some(Durability::PowerLoss.as_str().to_owned());
    let mut report = tell::report("embedded", &id, started, durability, session);
    report.host = file_system;
    report.broker.url = format!("embedded:{}", args.dir.display());
    report.parameters = [
        ("dir".to_owned(), args.dir.display().to_string()),
        ("rounds".to_owned(), args.rounds.to_string()),
        ("turn".to_owned(), format!("{:?}", args.turn)),
    ]
    .into();
    report.disk = Some(rows);
    tell::tell(report, &args.telling, session)
}

async fn measure(args: &Embedded, place: &Place, session: &Session) -> Result<Vec<DiskRow>, Failure> {
    let data = place.0.join("data");
    // What has a meaning in a URL is written as bytes.
    let path: String = data
        .to_string_lossy()
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let broker = ropeway_broker::connect(&format!("embedded:{path}")).await?;
    let stop = CancellationToken::new();
    let disk = Disk {
        broker: broker.clone(),
        file: place.0.join("bare"),
        rounds: usize::from(args.rounds),
        turn: args.turn,
        stop: stop.clone(),
    };
    let progress = Progress::new(&session.notes, "turns", Some(disk.turns()));
    let turns = AtomicU64::new(0);
    let mut running = Box::pin(disk.run(|| progress.at(turns.fetch_add(1, Relaxed) + 1)));
    let measured = loop {
        tokio::select! {
            ended = &mut running => break ended,
            () = session.stop.asked(), if !stop.is_cancelled() => stop.cancel(),
        }
    };
    drop(running);
    broker.close(session.settings.time.stop).await;
    measured.map_err(Failure::from)
}
