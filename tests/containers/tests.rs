//! testcontainers, where an engine runs: a server in a container answers, and is gone afterwards.
//!
//! Without an engine its trials are shown as ignored. Not here: how `cargo xtask servers` uses containers (`xtask/src/servers/way.rs`).

#[path = "../../xtask/src/servers/engine.rs"]
mod engine;

use engine::Engine;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};
use testcontainers::{GenericImage, ImageExt as _, core::WaitFor, runners::AsyncRunner as _};

/// The image of Redis that `cargo xtask servers` uses.
const REDIS: (&str, &str) =
    ("redis", "7.0.15@sha256:ba8af28227224b9a73b59aa7df25b09781b8d6b23b72adcc4c58fb9019d81fa2");

fn main() {
    let trial = Trial::ignorable_test("redis_in_a_container_answers_and_is_gone_afterwards", || {
        match Engine::find() {
            Ok(engine) => answers_and_is_gone(&engine).map(|()| Completion::Completed),
            Err(why) => Ok(Completion::ignored_with(why)),
        }
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_kind("containers")]).exit();
}

fn answers_and_is_gone(engine: &Engine) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let name = format!("ropeway-test-{}", std::process::id());
    runtime.block_on(async {
        let redis = GenericImage::new(REDIS.0, REDIS.1)
            .with_entrypoint("redis-server")
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .with_cmd(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .with_container_name(&name)
            .with_host_config_modifier(|host| host.network_mode = Some("host".to_owned()))
            .start()
            .await?;
        let mut client = TcpStream::connect(("127.0.0.1", port))?;
        client.set_read_timeout(Some(Duration::from_secs(10)))?;
        client.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        client.read_exact(&mut answer)?;
        if answer != *b"+PONG\r\n" {
            return Err(format!("{answer:?}").into());
        }
        redis.rm().await?;
        // A container that is gone already is nothing to complain about.
        engine.remove(&name)?;
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => Err("something still listens on its port".into()),
            Err(_) => Ok(()),
        }
    })
}
