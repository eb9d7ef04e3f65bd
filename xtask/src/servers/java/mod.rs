//! Servers that are Java programs: the Java that runs them, and the command line.
//!
//! `jars.rs`: what they are made of. Not here: what is set in them (`../kafka/mod.rs`, `../pulsar/mod.rs`).

pub(crate) mod jars;

use super::{
    tool::JAVA,
    trouble::{Trouble, broken},
    way::{Ground, Way},
};
use std::{env, fs, path::PathBuf, process::Command};

/// The oldest Java that Kafka 4 and Pulsar 4 run on.
const OLDEST: u32 = 17;

/// Warnings to standard output; nothing else, so that logs stay short.
const LOGGING: &str = "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n\
                       appender.out.layout.pattern=%d{ISO8601} %p %c{1} %m%n\nrootLogger.level=warn\n\
                       rootLogger.appenderRef.out.ref=out\n";

/// What all of them are started with.
const FLAGS: &str = "-XX:+UseSerialGC\n-XX:+ExitOnOutOfMemoryError\n-Djava.awt.headless=true\n";

/// The Java that runs a server there: what was found, or what its image has.
pub(crate) fn of(ground: &Ground<'_>) -> Result<String, Trouble> {
    match ground.way {
        Way::Packages => Ok(find()?.display().to_string()),
        Way::Containers(..) => Ok("java".to_owned()),
    }
}

/// The Java of `JAVA_HOME`, or else of `PATH`; refused where it is too old.
fn find() -> Result<PathBuf, Trouble> {
    let home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let java = match home.filter(|java| java.is_file()) {
        Some(java) => java,
        None => JAVA.find()?,
    };
    let output = Command::new(&java).arg("-version").output().map_err(broken)?;
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    match major(&says) {
        Some(version) if version >= OLDEST => Ok(java),
        version => Err(Trouble::Missing(format!(
            "{} is Java {}, and {OLDEST} is the oldest that is used: {}",
            java.display(),
            version.map_or_else(|| "of an unknown version".to_owned(), |version| version.to_string()),
            JAVA.advice(false)
        ))),
    }
}

/// The number in `openjdk version "17.0.15" 2025-04-15`; for `"1.8.0_292"` that is 8.
fn major(says: &str) -> Option<u32> {
    let version = says.lines().find_map(|line| line.split_once(" version \""))?.1;
    let mut numbers = version.split(['.', '"', '-', '_']).map_while(|number| number.parse().ok());
    match numbers.next()? {
        1 => numbers.next(),
        major => Some(major),
    }
}

/// Writes class path and `flags`, one a line, into a file, since they are long. Returns the argument that names it.
pub(crate) fn arguments(ground: &Ground<'_>, class_path: &str, flags: &str) -> Result<String, Trouble> {
    let logging = ground.folder.join("log4j2.properties");
    let arguments = ground.folder.join("java.args");
    let text = format!(
        "-cp\n\"{}\"\n{FLAGS}-Dlog4j2.configurationFile=\"{}\"\n{flags}",
        quoted(class_path),
        quoted(&logging.display().to_string())
    );
    fs::write(&logging, LOGGING).and_then(|()| fs::write(&arguments, text)).map_err(broken)?;
    Ok(format!("@{}", arguments.display()))
}

/// As it stands in quotes in a file of arguments.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"), Some(17));
        assert_eq!(major("Picked up X\njava version \"1.8.0_292\""), Some(8));
        assert_eq!(major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(major("openjdk version \"26-ea\" 2026"), Some(26));
        assert_eq!(major("sh: java: not found"), None);
    }
}
