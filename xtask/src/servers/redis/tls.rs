//! Redis behind TLS: the lines of its configuration, and asking it.
//!
//! Not here: making certificates (`../certificates.rs`), the server (`node.rs`).

use crate::servers::tool::REDIS_CLI;
use std::path::Path;

/// The lines of the configuration that name the certificates.
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
        REDIS_CLI.run(folder, &with).map_err(|trouble| trouble.to_string())
    };
    ask("SET ropeway:ready yes")?;
    let read = ask("GET ropeway:ready")?;
    ask("DEL ropeway:ready")?;
    if read.trim() == "yes" { Ok(()) } else { Err(format!("what was written is read as {read:?}")) }
}
