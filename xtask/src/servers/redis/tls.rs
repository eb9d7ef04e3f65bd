//! Certificates for Redis behind TLS, and asking through TLS.
//!
//! An authority of its own signs one certificate for the server and one for a client, made anew each time. Not here: the server (`node.rs`).

use crate::servers::{
    clock::Deadline,
    tool::{OPENSSL, REDIS_CLI, Tool},
    trouble::{Trouble, broken},
};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// For how long a program may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
/// Names under which the server is reached.
const NAMES: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost\n";

/// Makes `ca.crt`, `server.crt`, `server.key`, `client.crt` and `client.key` in `folder`.
pub(super) fn make_certificates(folder: &Path) -> Result<(), Trouble> {
    let authority = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=ropeway-test-ca";
    run(OPENSSL, folder, authority)?;
    for (name, extensions) in [("server", NAMES), ("client", "extendedKeyUsage=clientAuth\n")] {
        fs::write(folder.join(format!("{name}.ext")), extensions).map_err(broken)?;
        let request = format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN=ropeway-test-{name}"
        );
        run(OPENSSL, folder, &request)?;
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile {name}.ext -out {name}.crt"
        );
        run(OPENSSL, folder, &sign)?;
    }
    Ok(())
}

/// The lines of the configuration that name them.
pub(super) fn settings(folder: &Path) -> String {
    let [certificate, key, authority] =
        ["server.crt", "server.key", "ca.crt"].map(|name| folder.join(name).display().to_string());
    format!("tls-cert-file \"{certificate}\"\ntls-key-file \"{key}\"\ntls-ca-cert-file \"{authority}\"\n")
}

/// Writes and reads through TLS, with password and certificate.
pub(super) fn ping(folder: &Path, port: u16, password: &str) -> Result<(), String> {
    let ask = |words: &str| {
        let with = format!(
            "--tls --cacert ca.crt --cert client.crt --key client.key -h 127.0.0.1 -p {port} --no-auth-warning -a {password} {words}"
        );
        run(REDIS_CLI, folder, &with).map_err(|trouble| trouble.to_string())
    };
    ask("SET ropeway:ready yes")?;
    let read = ask("GET ropeway:ready")?;
    ask("DEL ropeway:ready")?;
    if read.trim() == "yes" { Ok(()) } else { Err(format!("what was written is read as {read:?}")) }
}

fn run(tool: Tool, folder: &Path, arguments: &str) -> Result<String, Trouble> {
    let mut child = Command::new(tool.find()?)
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| broken(format!("could not start {}: {error}", tool.program)))?;
    let deadline = Deadline::after(TIMEOUT);
    // A server that was stopped takes connections and never answers. What is printed here fits into a pipe.
    while child.try_wait().map_err(broken)?.is_none() {
        if deadline.is_over() {
            child.kill().and_then(|()| child.wait()).map_err(broken)?;
            return Err(broken(format!("{} got no answer in {} s", tool.program, TIMEOUT.as_secs())));
        }
        thread::sleep(PAUSE);
    }
    let output = child.wait_with_output().map_err(broken)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let says = String::from_utf8_lossy(&output.stderr);
    Err(broken(format!("{}: {}", tool.program, says.trim().lines().last().unwrap_or_default())))
}
