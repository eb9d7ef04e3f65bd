//! `deploy/compose.yaml`: read by `docker compose config`, where that is installed; no engine is needed for it.
//!
//! Not here: the servers that `cargo xtask servers` starts (`servers/mod.rs`), whose versions the file has too.

use crate::root;
use std::process::{Command, Stdio};

/// Of the repository.
const FILE: &str = "deploy/compose.yaml";

/// The check, or why it cannot be made here.
pub(crate) fn check() -> Result<Command, &'static str> {
    let mut version = Command::new("docker");
    version.args(["compose", "version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !version.status().is_ok_and(|status| status.success()) {
        return Err("docker compose is not installed");
    }
    let mut check = Command::new("docker");
    check.current_dir(root()).args(["compose", "-f", FILE, "--profile", "*", "config", "--quiet"]);
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::Kind;
    use std::fs;

    #[test]
    fn images_have_the_versions_of_the_servers_and_of_the_container_test() {
        let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
        let compose = read(FILE);
        let images: Vec<&str> =
            compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        let known: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| {
                let image = kind.image();
                format!("{}:{}", image.name, image.tag())
            })
            .collect();
        assert!(images.iter().all(|image| known.iter().any(|known| known == image)), "{images:?}");
        assert!(known.iter().all(|known| images.contains(&known.as_str())), "{images:?}");
        let (image, tag) = (Kind::ALL[0].image().name, Kind::ALL[0].image().tag());
        let test = read("tests/containers/tests.rs");
        let named = [image, &tag].iter().all(|word| test.contains(&format!("\"{word}\"")));
        assert!(named, "another image than {image}:{tag}");
    }

    #[test]
    fn every_service_says_when_it_is_healthy() {
        let compose = fs::read_to_string(root().join(FILE)).unwrap();
        let (_, services) = compose.split_once("\nservices:\n").unwrap();
        let (services, _) = services.split_once("\nvolumes:\n").unwrap();
        let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':');
        let names = services.lines().filter(is_name).count();
        assert_eq!(services.matches("    healthcheck:\n").count(), names);
        assert_eq!(names, 12);
    }
}
