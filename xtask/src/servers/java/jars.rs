//! The jars of a server, by Maven from its registry, kept between runs and checkouts in a cache of their own.
//!
//! The cache is `ropeway/servers` in `XDG_CACHE_HOME`, or else in `~/.cache`; without a home it is in the folder of the servers. Maven writes
//! a jar under another name until it is whole and has its checksum; the list of jars is written last. So what a killed run leaves is
//! finished by the next. Not here: running them (`mod.rs` beside this).

use crate::servers::{
    clock::Deadline,
    place::{Place, write},
    tool::MAVEN,
    trouble::{Trouble, broken},
};
use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// What Maven may take, with an empty cache and a slow registry.
const MAVEN_TIME: Duration = Duration::from_secs(15 * 60);
/// What lists the jars.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath";

/// The class path of what `pom` says. Fetches what is not in the cache.
pub(crate) fn class_path(place: &Place, name: &str, pom: &str) -> Result<String, Trouble> {
    let cache = cache(place);
    let folder = cache.join(name);
    let open = || -> io::Result<File> {
        fs::create_dir_all(&folder)?;
        let lock = File::create(cache.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    };
    let _lock = open().map_err(|error| broken(format!("cannot use {}: {error}", cache.display())))?;
    if let Some(known) = known(&folder, pom) {
        return Ok(known);
    }
    fetch(&cache, &folder, name, pom)?;
    known(&folder, pom).ok_or_else(|| broken(format!("Maven made no list of jars in {}", folder.display())))
}

fn cache(place: &Place) -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    cache.map_or_else(|| place.root().join("cache"), |cache| cache.join("ropeway/servers"))
}

/// The list of jars that was made of the same `pom`, if all of them are still there.
fn known(folder: &Path, pom: &str) -> Option<String> {
    let same = fs::read_to_string(folder.join("pom.xml")).is_ok_and(|made| made == pom);
    let list = fs::read_to_string(folder.join("classpath")).ok().filter(|_| same)?;
    let list = list.trim();
    let whole = !list.is_empty() && env::split_paths(list).all(|jar| jar.is_file());
    whole.then(|| list.to_owned())
}

fn fetch(cache: &Path, folder: &Path, name: &str, pom: &str) -> Result<(), Trouble> {
    let maven = MAVEN.find()?;
    eprintln!("{name}: fetching what is not in {}", cache.display());
    let list = folder.join("classpath");
    _ = fs::remove_file(&list);
    write(&folder.join("pom.xml"), pom).map_err(broken)?;
    let log = File::create(folder.join("maven.log")).map_err(broken)?;
    let child = Command::new(maven)
        .args(["--batch-mode", "--update-snapshots", "--strict-checksums", "--no-transfer-progress", PLUGIN])
        // A registry that does not answer is given up after a minute. Versions of Maven name that in two ways.
        .args(["-Dmaven.wagon.http.connectionTimeout=20000", "-Dmaven.wagon.http.readTimeout=60000"])
        .args(["-Dmaven.wagon.rto=60000", "-Daether.connector.requestTimeout=60000"])
        .arg(format!("-Dmaven.repo.local={}", cache.join("repository").display()))
        .arg(format!("-Dmdep.outputFile={}", list.display()))
        .args(["-DincludeScope=runtime", "-Dstyle.color=never", "-f"])
        .arg(folder.join("pom.xml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(broken)?)
        .stderr(log)
        .spawn()
        .map_err(broken)?;
    if finished(child)? {
        return Ok(());
    }
    _ = fs::remove_file(&list);
    let says = fs::read_to_string(folder.join("maven.log")).unwrap_or_default();
    let first = says.lines().find_map(|line| line.strip_prefix("[ERROR] ")).unwrap_or("it took too long");
    Err(Trouble::Missing(format!(
        "its jars cannot be fetched: {first} (all of it: {})",
        folder.join("maven.log").display()
    )))
}

/// Whether Maven succeeded; it is killed when it takes too long.
fn finished(mut maven: Child) -> Result<bool, Trouble> {
    let deadline = Deadline::after(MAVEN_TIME);
    loop {
        if let Some(status) = maven.try_wait().map_err(broken)? {
            return Ok(status.success());
        }
        if deadline.is_over() {
            maven.kill().map_err(broken)?;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_known_only_with_all_its_jars_and_for_the_same_pom() {
        let folder = env::temp_dir().join(format!("ropeway-xtask-jars-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let jars = ["a.jar", "b.jar"].map(|jar| folder.join(jar));
        for jar in &jars {
            fs::write(jar, "").unwrap();
        }
        let list = format!("{}:{}\n", jars[0].display(), jars[1].display());
        fs::write(folder.join("classpath"), &list).unwrap();
        assert_eq!(known(&folder, "one"), None);
        fs::write(folder.join("pom.xml"), "one").unwrap();
        assert_eq!(known(&folder, "one").as_deref(), Some(list.trim()));
        assert_eq!(known(&folder, "other"), None);
        fs::remove_file(&jars[1]).unwrap();
        assert_eq!(known(&folder, "one"), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
