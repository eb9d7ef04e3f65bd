//! Kafka behind TLS: one port asks for a user and a password, in whichever of three ways, another for a certificate.
//!
//! Not here: making certificates (`../certificates.rs`).

use super::{node::Node, properties::value, wire};
use crate::servers::{
    clock::Deadline,
    place::Record,
    tool::OPENSSL,
    trouble::{Trouble, broken},
    way::Ground,
};
use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

const USER: &str = "ropeway";
const PASSWORD: &str = "ropeway-test";
/// For how long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// The lines of the configuration. Writes the file that they name.
pub(super) fn settings(folder: &Path) -> Result<String, Trouble> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).map_err(broken);
    let store = folder.join("server.pem");
    fs::write(&store, read("server.key")? + &read("server.crt")? + &read("ca.crt")?).map_err(broken)?;
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    Ok(format!(
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORD:SASL_SSL,CERTIFICATE:SSL\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={}\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={}\n\
         listener.name.certificate.ssl.client.auth=required\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.password.plain.sasl.jaas.config={plain} user_{USER}=\"{PASSWORD}\";\n\
         listener.name.password.scram-sha-256.sasl.jaas.config={scram}\n\
         listener.name.password.scram-sha-512.sasl.jaas.config={scram}\n",
        value(&store),
        value(&folder.join("ca.crt"))
    ))
}

/// What makes the user known as the folder of the log is made.
pub(super) fn users() -> Vec<String> {
    let user = |mechanism| format!("{mechanism}=[name={USER},password={PASSWORD}]");
    ["SCRAM-SHA-256", "SCRAM-SHA-512"]
        .into_iter()
        .flat_map(|mechanism| ["--add-scram".to_owned(), user(mechanism)])
        .collect()
}

/// The variables for the tests.
pub(super) fn exports(ground: &Ground<'_>, node: &Node) -> Vec<(String, String)> {
    let url = |port| format!("kafka+ssl://127.0.0.1:{port}");
    let all = [
        (ground.kind.variable(), url(node.password)),
        ("ROPEWAY_TEST_KAFKA_MTLS_URL".to_owned(), url(node.certificate)),
        ("ROPEWAY_TEST_KAFKA_TLS_DIR".to_owned(), ground.folder.display().to_string()),
        ("ROPEWAY_TEST_KAFKA_TLS_USER".to_owned(), USER.to_owned()),
        ("ROPEWAY_TEST_KAFKA_TLS_PASSWORD".to_owned(), PASSWORD.to_owned()),
    ];
    all.into()
}

/// Asks through both ports.
pub(super) fn ask(folder: &Path, record: &Record) -> Result<(), String> {
    let mut ports = record
        .exports
        .iter()
        .filter_map(|(_, value)| value.strip_prefix("kafka+ssl://")?.rsplit_once(':')?.1.parse::<u16>().ok());
    let (Some(password), Some(certificate)) = (ports.next(), ports.next()) else {
        return Err("its URLs have no ports".to_owned());
    };
    through(folder, password, false)?;
    through(folder, certificate, true)
}

/// Whether a node answers through both ports.
pub(super) fn answers(folder: &Path, node: &Node) -> Result<(), String> {
    through(folder, node.password, false)?;
    through(folder, node.certificate, true)
}

/// Asks for metadata through a port, with the certificate or else with the password.
fn through(folder: &Path, port: u16, certificate: bool) -> Result<(), String> {
    let mut command = Command::new(OPENSSL.find().map_err(|trouble| trouble.to_string())?);
    command.args(["s_client", "-quiet", "-verify_return_error", "-CAfile", "ca.crt"]);
    if certificate {
        command.args(["-cert", "client.crt", "-key", "client.key"]);
    }
    let mut client = command
        .arg("-connect")
        .arg(format!("127.0.0.1:{port}"))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("could not start {}: {error}", OPENSSL.program))?;
    let (Some(input), Some(output)) = (client.stdin.take(), client.stdout.take()) else {
        return Err("its input and output cannot be had".to_owned());
    };
    let asking = thread::spawn(move || {
        let mut pipe = Pipe { input, output };
        if !certificate {
            wire::authenticate(&mut pipe, USER, PASSWORD)?;
        }
        wire::cluster(&mut pipe).map(drop)
    });
    let deadline = Deadline::after(TIMEOUT);
    while !asking.is_finished() && !deadline.is_over() {
        thread::sleep(PAUSE);
    }
    // Ends what still reads from it, too.
    _ = client.kill();
    _ = client.wait();
    let asked = asking.join().map_err(|_| "asking it panicked".to_owned())?;
    asked.map_err(|error| format!("port {port} behind TLS: {error}"))
}

/// What a program takes and prints, as a connection.
#[derive(Debug)]
struct Pipe {
    input: ChildStdin,
    output: ChildStdout,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.output.read(into)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }
}
