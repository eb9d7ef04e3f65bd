//! Certificates for servers behind TLS.
//!
//! An authority of its own signs one certificate for the server and one for a client, made anew each time. Not here: who uses them
//! (`redis/tls.rs`, `kafka/tls.rs`).

use super::{
    tool::OPENSSL,
    trouble::{Trouble, broken},
};
use std::{fs, path::Path};

/// Names under which the server is reached.
const NAMES: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost\n";
/// How a key is made.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Makes `ca.crt`, `server.crt`, `server.key`, `client.crt` and `client.key` in `folder`; and `other-ca.crt`, of an authority that signed none of
/// them.
pub(super) fn make(folder: &Path) -> Result<(), Trouble> {
    for name in ["ca", "other-ca"] {
        let authority = format!(
            "req -x509 {KEY} -days 30 -keyout {name}.key -out {name}.crt -subj /CN=ropeway-test-{name}"
        );
        OPENSSL.run(folder, &authority)?;
    }
    for (name, extensions) in [("server", NAMES), ("client", "extendedKeyUsage=clientAuth\n")] {
        fs::write(folder.join(format!("{name}.ext")), extensions).map_err(broken)?;
        let request = format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN=ropeway-test-{name}");
        OPENSSL.run(folder, &request)?;
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile {name}.ext -out {name}.crt"
        );
        OPENSSL.run(folder, &sign)?;
    }
    Ok(())
}
