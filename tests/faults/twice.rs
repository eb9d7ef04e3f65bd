//! Two of everything, and what a directory can be besides a good one: opened twice, taken away, without the right to write.
//!
//! Not here: faults of a disk that works for everybody else (`disk_full.rs`, `injected.rs`).

use crate::{run::Run, worker};
use libtest_mimic::{Completion, Failed};
use ropeway_broker::{ErrorKind, Message, MessageBroker, MessageBrokerExt, Result, Topic, TopicSpec};
use std::{
    fs,
    future::Future,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

const CLOSE: Duration = Duration::from_secs(10);

type Outcome = std::result::Result<(), Failed>;

fn in_tokio(test: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(test)
}

async fn open(directory: &Path) -> Result<Arc<dyn MessageBroker>> {
    ropeway_broker::connect(&format!("embedded:{}", directory.display())).await
}

async fn write(broker: &dyn MessageBroker) -> std::result::Result<Topic, Failed> {
    let topic = Topic::new("work")?;
    match broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await {
        Err(error) if error.kind() != ErrorKind::Exists => return Err(error.into()),
        _ => {}
    }
    broker.publish_one(&topic, Message::builder().payload("x").build()).await?;
    Ok(topic)
}

/// A second process names the first and is refused, and comes in as soon as the first was killed.
pub(crate) fn a_second_process_is_refused() -> Outcome {
    let root = tempfile::tempdir()?;
    let directory = root.path().join("broker");
    let mut run = Run::new(root.path(), format!("embedded:{}", directory.display()));
    let mut first = run.start_ready()?;
    let refused = in_tokio(async {
        match open(&directory).await {
            Ok(_) => Err("a directory was opened twice".into()),
            Err(error) if error.kind() != ErrorKind::Conflict => Err(format!("{error:?}").into()),
            Err(error) if !error.to_string().contains(&first.0.id().to_string()) => {
                Err(format!("the other process is not named: {error}").into())
            }
            Err(_) => Ok(()),
        }
    });
    first.kill()?;
    refused?;
    in_tokio(async {
        let broker = open(&directory).await?;
        write(&*broker).await?;
        broker.close(CLOSE).await;
        Ok(())
    })
}

/// One process opens a directory twice and another one beside it.
pub(crate) fn a_second_broker_is_refused() -> Outcome {
    in_tokio(async {
        let root = tempfile::tempdir()?;
        let (one, other) = (root.path().join("one"), root.path().join("other"));
        let first = open(&one).await?;
        match open(&one).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(format!("{error:?}").into()),
            Ok(_) => return Err("a directory was opened twice".into()),
        }
        let second = open(&other).await?;
        write(&*first).await?;
        write(&*second).await?;
        first.close(CLOSE).await;
        let again = open(&one).await?;
        write(&*again).await?;
        again.close(CLOSE).await;
        second.close(CLOSE).await;
        Ok(())
    })
}

/// The directory goes away under a broker: nothing hangs or ends the process, and what is opened next is new.
pub(crate) fn a_directory_may_go_away() -> Outcome {
    in_tokio(async {
        let root = tempfile::tempdir()?;
        let directory = root.path().join("broker");
        let broker = open(&directory).await?;
        let topic = write(&*broker).await?;
        fs::remove_dir_all(&directory)?;
        for _ in 0..10 {
            // The open file takes it, or nobody does: both are answers.
            let message = Message::builder().payload("y").build();
            _ = tokio::time::timeout(CLOSE * 6, broker.publish_one(&topic, message)).await?;
        }
        _ = broker.admin().delete_topic(&topic).await;
        broker.close(CLOSE).await;
        drop(broker);
        let broker = open(&directory).await?;
        write(&*broker).await?;
        broker.close(CLOSE).await;
        Ok(())
    })
}

/// A directory that may not be written is refused, and nothing of it is lost.
pub(crate) fn a_directory_without_rights_is_refused() -> std::result::Result<Completion, Failed> {
    let root = tempfile::tempdir()?;
    let directory = root.path().join("broker");
    in_tokio(async {
        let broker = open(&directory).await?;
        write(&*broker).await?;
        broker.close(CLOSE).await;
        Ok(())
    })?;
    // For root rights stop nothing, so that somebody else has to try: a child that has given its own away.
    let every = |mode: u32| -> std::io::Result<()> {
        for path in [root.path(), &directory, &directory.join("db")] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    every(0o555)?;
    let open = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(std::env::current_exe()?)
        .env(worker::ROLE, "open")
        .env(worker::URL, format!("embedded:{}", directory.display()))
        .stdin(Stdio::null())
        .output();
    every(0o755)?;
    let output = match open {
        Ok(output) if !output.stderr.starts_with(b"setpriv:") => output,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            return Ok(Completion::ignored_with(format!(
                "needs the right to become another user: {}",
                why.trim()
            )));
        }
        Err(error) => return Ok(Completion::ignored_with(format!("needs setpriv (util-linux): {error}"))),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(3) || !said.contains("worker: ") {
        return Err(format!("it was not refused: {output:?}").into());
    }
    in_tokio(async {
        let broker = self::open(&directory).await?;
        write(&*broker).await?;
        broker.close(CLOSE).await;
        Ok(())
    })?;
    Ok(Completion::Completed)
}
