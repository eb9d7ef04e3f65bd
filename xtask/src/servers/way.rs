//! The two ways to run a server: programs of this machine, or containers.
//!
//! A container runs the same command as the program would, with the same files in the same place and on the same ports, so that all that is
//! known of a server holds for both. One process of this machine holds each container, and stands for it. Not here: holding a container
//! (`tests/containers/src/main.rs`), which engine there is (`engine.rs`).

use super::{
    clock::Deadline,
    engine::Engine,
    kind::Kind,
    process::{self, Process},
    trouble::{Trouble, broken},
};
use crate::{cargo, target};
use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// What an engine may take to fetch an image and to start a container.
const START: Duration = Duration::from_secs(15 * 60);
const PAUSE: Duration = Duration::from_millis(50);

/// What was asked for with `--with`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Containers where an engine answers, and where that does not work out, packages.
    Either,
    Packages,
    Containers,
}

impl Wish {
    /// Takes `--with WAY` or `--with=WAY` out of `words`.
    pub(crate) fn take(words: &mut Vec<String>) -> Result<Self, String> {
        let Some(at) = words.iter().position(|word| word == "--with" || word.starts_with("--with=")) else {
            return Ok(Self::Either);
        };
        let word = words.remove(at);
        let way = match word.split_once('=') {
            Some((_, way)) => way.to_owned(),
            None if at < words.len() => words.remove(at),
            None => String::new(),
        };
        match way.as_str() {
            "packages" => Ok(Self::Packages),
            "containers" => Ok(Self::Containers),
            other => Err(format!("--with takes packages or containers, not {other:?}")),
        }
    }

    /// The ways to try, the first first.
    ///
    /// # Errors
    /// There is no container engine, and nothing else was asked for.
    pub(crate) fn ways(self) -> Result<Vec<Way>, String> {
        match self {
            Self::Packages => Ok(vec![Way::Packages]),
            Self::Containers => Ok(vec![Way::containers()?]),
            Self::Either => Ok(Way::containers().into_iter().chain([Way::Packages]).collect()),
        }
    }
}

/// How servers are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Programs of this machine.
    Packages,
    /// Containers of this engine, each held by that program.
    Containers(Engine, PathBuf),
}

impl Way {
    /// Containers, if an engine answers. Builds what holds them.
    fn containers() -> Result<Self, String> {
        let engine = Engine::find()?;
        let build = ["build", "--quiet", "--package", HOLDER];
        let built = cargo().args(build).status().map_err(|error| error.to_string())?;
        if !built.success() {
            return Err(format!("{HOLDER}, which holds containers, cannot be built"));
        }
        Ok(Self::Containers(engine, target().join("debug").join(HOLDER)))
    }
}

/// The package and program that holds a container.
const HOLDER: &str = "ropeway-containers";

/// Where and how one server is run.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) kind: Kind,
    pub(crate) folder: &'a Path,
    pub(crate) way: &'a Way,
}

impl Ground<'_> {
    /// Starts a process of the server. Its working directory is the folder.
    pub(crate) fn start(&self, role: &str, command: &[String]) -> Result<Process, Trouble> {
        match self.way {
            Way::Packages => Process::start(self.folder, role, command).map_err(broken),
            Way::Containers(engine, holder) => self.start_container(engine, holder, role, command),
        }
    }

    fn start_container(
        &self,
        engine: &Engine,
        holder: &Path,
        role: &str,
        command: &[String],
    ) -> Result<Process, Trouble> {
        let name = container(self.folder, role);
        engine.remove(&name).map_err(broken)?;
        let image = self.kind.image();
        let (image, tag) = (image.name, image.tag());
        let owner = self.folder.metadata().map_err(broken)?;
        let user = format!("{}:{}", owner.uid(), owner.gid());
        let (holder, folder) = (holder.display().to_string(), self.folder.display().to_string());
        let mut hold = [&holder, image, &tag, &name, &folder, &user].map(str::to_owned).to_vec();
        hold.extend(command.iter().cloned());
        let process = Process::start(self.folder, role, &hold).map_err(broken)?;
        let deadline = Deadline::after(START);
        // The holder writes this when the container runs: an image may have to be fetched before.
        while !mark(self.folder, &name).exists() {
            if !process.runs() || deadline.is_over() {
                _ = process::stop(&[process]);
                return Err(broken(format!("no container of {image}:{tag}")));
            }
            thread::sleep(PAUSE);
        }
        Ok(process)
    }
}

/// Removes what containers a holder that was killed has left. Where the engine is gone they are too, or go when the next ones are started.
pub(crate) fn remove_containers(processes: &[Process], folder: &Path) -> Result<(), String> {
    for process in processes {
        let name = container(folder, &process.role);
        let mark = mark(folder, &name);
        if mark.exists()
            && let Ok(engine) = Engine::find()
        {
            engine.remove(&name)?;
            fs::remove_file(mark).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// What a holder writes when its container runs, and removes when it has removed that.
fn mark(folder: &Path, container: &str) -> PathBuf {
    folder.join(format!("{container}.runs"))
}

/// The name of the container of a role: another one in each checkout.
fn container(folder: &Path, role: &str) -> String {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("ropeway-{:08x}-{role}", hasher.finish() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_taken_out_of_the_words() {
        let take = |text: &str| {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            Wish::take(&mut words).map(|wish| (wish, words.join(" ")))
        };
        assert_eq!(take("up redis"), Ok((Wish::Either, "up redis".into())));
        assert_eq!(take("up --with packages redis"), Ok((Wish::Packages, "up redis".into())));
        assert_eq!(take("up redis --with=containers"), Ok((Wish::Containers, "up redis".into())));
        assert!(take("up --with").is_err() && take("up --with jars redis").is_err());
    }

    #[test]
    fn containers_of_two_checkouts_have_two_names() {
        let [one, other] = ["/a/redis", "/b/redis"].map(|folder| container(Path::new(folder), "primary"));
        assert!(one != other && one.ends_with("-primary"), "{one}");
    }
}
