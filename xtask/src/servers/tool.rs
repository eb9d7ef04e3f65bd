//! Programs that servers need: found, installed where that may be done, or named with what to run.
//!
//! May be done: as root on a system with apt-get. Not here: what is done with them.

use super::{
    clock::Deadline,
    trouble::{Trouble, broken},
};
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// For how long a program that is run for its answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// A program, and the package of Debian and its descendants that brings it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// As it is called.
    pub(crate) program: &'static str,
    package: &'static str,
}

/// Redis, from 7.0 on.
pub(crate) const REDIS_SERVER: Tool = Tool { program: "redis-server", package: "redis-server" };
/// The client that comes with Redis.
pub(crate) const REDIS_CLI: Tool = Tool { program: "redis-cli", package: "redis-tools" };
/// Makes certificates.
pub(crate) const OPENSSL: Tool = Tool { program: "openssl", package: "openssl" };

/// Runs Kafka and Pulsar.
pub(crate) const JAVA: Tool = Tool { program: "java", package: "default-jre-headless" };
/// Fetches jars.
pub(crate) const MAVEN: Tool = Tool { program: "mvn", package: "maven" };

/// apt-get takes one at a time.
static INSTALLING: Mutex<()> = Mutex::new(());

impl Tool {
    /// Where the program is. Installs it if it is missing and that may be done.
    pub(crate) fn find(self) -> Result<PathBuf, Trouble> {
        let installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = which(self.program) {
            return Ok(path);
        }
        let may = may_install();
        if may {
            eprintln!("installing {} with apt-get, since {} is missing", self.package, self.program);
            install(self.package);
        }
        drop(installing);
        which(self.program).ok_or_else(|| Trouble::Missing(self.advice(may)))
    }

    /// Runs it in `folder` with what `arguments` spell, and returns what it prints.
    pub(crate) fn run(self, folder: &Path, arguments: &str) -> Result<String, Trouble> {
        let mut child = Command::new(self.find()?)
            .args(arguments.split_whitespace())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| broken(format!("could not start {}: {error}", self.program)))?;
        let deadline = Deadline::after(TIMEOUT);
        // A server that was stopped takes connections and never answers. What is printed here fits into a pipe.
        while child.try_wait().map_err(broken)?.is_none() {
            if deadline.is_over() {
                child.kill().and_then(|()| child.wait()).map_err(broken)?;
                return Err(broken(format!("{} got no answer in {} s", self.program, TIMEOUT.as_secs())));
            }
            thread::sleep(PAUSE);
        }
        let output = child.wait_with_output().map_err(broken)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let says = String::from_utf8_lossy(&output.stderr);
        Err(broken(format!("{}: {}", self.program, says.trim().lines().last().unwrap_or_default())))
    }

    /// What to run where it is missing; `tried`: that was tried.
    pub(crate) fn advice(self, tried: bool) -> String {
        let Self { program, package } = self;
        if tried {
            format!(
                "{program} is missing, and apt-get could not install {package}: apt-get install {package}"
            )
        } else {
            format!(
                "{program} is missing: as root, apt-get install {package}; elsewhere, install it so that it is in PATH"
            )
        }
    }
}

/// Whether this process is root on a system with apt-get.
fn may_install() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    root && which("apt-get").is_some()
}

fn install(package: &str) {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // Another command may be at it: that is waited for.
        command
            .args(["-o", "DPkg::Lock::Timeout=300"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let install = ["install", "--quiet", "--yes", "--no-install-recommends", package];
    // The lists may be old or missing: then again with new ones.
    _ = apt(&install) || (apt(&["update", "--quiet"]) && apt(&install));
}

/// Where a program is in `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path() {
        assert!(which("sh").is_some());
        assert_eq!(which("no-such-program-here"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_run() {
        for tried in [false, true] {
            let advice = REDIS_SERVER.advice(tried);
            assert!(advice.contains("apt-get install redis-server"), "{advice}");
        }
    }
}
