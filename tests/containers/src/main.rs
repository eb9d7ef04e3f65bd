//! Holds one container by testcontainers for as long as this process runs: `cargo xtask servers` starts one of these for each.
//!
//! Arguments: image, tag, name of the container, folder, user, and the command. The container has the network of the host and the folder in
//! the same place, so that the command is the one that runs without a container. Not here: which command (`xtask/src/servers/way.rs`).

use std::{env, fs, path::Path, process::ExitCode, time::Duration};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt as _,
    core::{Mount, logs::LogFrame},
    runners::AsyncRunner as _,
};
use tokio::signal::unix::{SignalKind, signal};

/// What fetching an image and starting a container may take.
const START: Duration = Duration::from_secs(15 * 60);
/// How often is looked whether the container still runs.
const LOOK: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match hold(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

async fn hold(arguments: &[String]) -> Result<(), Failure> {
    let [image, tag, name, folder, user, program, rest @ ..] = arguments else {
        return Err(
            "needs image, tag, name, folder, user, and a command: cargo xtask servers gives them".into()
        );
    };
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let starting = GenericImage::new(image, tag)
        .with_entrypoint(program)
        .with_cmd(rest)
        .with_container_name(name)
        // Not as a network by name: some engines take this one for a name that is yet to be made.
        .with_host_config_modifier(|host| host.network_mode = Some("host".to_owned()))
        .with_mount(Mount::bind_mount(folder, folder))
        .with_working_dir(folder)
        .with_user(user)
        .with_startup_timeout(START)
        .with_log_consumer(|frame: &LogFrame| eprint!("{}", String::from_utf8_lossy(frame.bytes())))
        .start();
    // Stopped while it starts: whoever stops this removes the container by its name.
    let container = tokio::select! {
        started = starting => started?,
        _ = terminated.recv() => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    };
    let mark = Path::new(folder).join(format!("{name}.runs"));
    fs::write(&mark, "")?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = ended(&container) => {}
    }
    container.rm().await?;
    fs::remove_file(mark)?;
    Ok(())
}

async fn ended(container: &ContainerAsync<GenericImage>) {
    while container.is_running().await.unwrap_or(false) {
        tokio::time::sleep(LOOK).await;
    }
}
