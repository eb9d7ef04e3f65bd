//! What the machine says of itself. What it does not say is left out.

use crate::report::Host;
use std::{fs, path::Path};

/// This machine, and the file system of `data`, where there is one.
#[must_use]
pub fn host(data: Option<&Path>) -> Host {
    let read = |path: &str| fs::read_to_string(path).ok();
    let mounts = read("/proc/mounts");
    // A directory that is not there yet will be made in the nearest that is.
    let path = data.and_then(|data| std::path::absolute(data).ok());
    let path = path.and_then(|path| path.ancestors().find_map(|path| path.canonicalize().ok()));
    Host {
        cpu: read("/proc/cpuinfo").and_then(|text| field(&text, "model name")),
        cores: std::thread::available_parallelism().ok().map(|cores| cores.get() as u64),
        memory: read("/proc/meminfo").and_then(|text| {
            let kib = field(&text, "MemTotal")?;
            kib.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        }),
        kernel: read("/proc/sys/kernel/ostype")
            .zip(read("/proc/sys/kernel/osrelease"))
            .map(|(kind, release)| format!("{} {}", kind.trim(), release.trim())),
        file_system: mounts.zip(path).and_then(|(mounts, path)| mounted(&mounts, &path)),
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The kind of the file system that is mounted nearest above `path`; of two at one place the later one.
fn mounted(mounts: &str, path: &Path) -> Option<String> {
    let found = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        path.starts_with(place.replace("\\040", " ")).then_some((place.len(), kind))
    });
    found.max_by_key(|(length, _)| *length).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_wins_and_the_last_of_those() {
        let mounts = "x / overlay rw 0 0\ny /data ext4 rw 0 0\nz /data xfs rw 0 0\nw /da btrfs rw 0 0\n";
        assert_eq!(mounted(mounts, Path::new("/data/topic")).as_deref(), Some("xfs"));
        assert_eq!(mounted(mounts, Path::new("/other")).as_deref(), Some("overlay"));
        assert_eq!(mounted("", Path::new("/")), None);
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        let text = "processor\t: 0\nmodel name\t: A: fast one\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A: fast one"));
        assert_eq!(field(text, "model"), None);
        assert!(host(Some(Path::new("not/there/yet"))).cores.is_some());
    }
}
