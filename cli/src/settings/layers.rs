//! The layers of settings, and whence each value came.
//!
//! Not here: which settings there are and the order of the layers (`mod.rs`).

use super::{KEYS, Settings, kafka};
use crate::failure::Failure;
use ropeway_broker::nearest;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

/// What the names of environment variables begin with.
pub(crate) const PREFIX: &str = "ROPEWAY__";
/// The largest file of settings, or of one value, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// How many names a key of the table of Kafka is joined of at the most, such as `rdkafka.socket.timeout.ms`.
const MAX_NAMES: usize = 12;

/// Whence a value came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said otherwise.
    Default,
    /// A file, and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A setting given by a flag.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    /// `section.key`.
    pub(crate) key: &'static str,
    /// The flag's name, such as `--broker`.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) value: String,
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// Files that may be missing, later ones win.
    pub(crate) usual: Vec<PathBuf>,
    /// Files that were named and must be there, later ones win.
    pub(crate) named: Vec<PathBuf>,
    /// The environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Flags.
    pub(crate) flags: Vec<Flag>,
}

/// What came of the layers.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The values in force.
    pub(crate) settings: Settings,
    /// The files that were read, lowest first.
    pub(crate) files: Vec<PathBuf>,
    /// What is wrong, each in one line with its place.
    pub(crate) problems: Vec<String>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Whence the value of a key came.
    pub(crate) fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Whether a key was given by a flag.
    pub(crate) fn by_flag(&self, key: &str) -> bool {
        matches!(self.origin(key), Origin::Flag(_))
    }

    /// The failure that tells everything that is wrong, where something is.
    ///
    /// # Errors
    /// A wrong setting, with all others that are wrong too.
    pub(crate) fn check(self) -> Result<Self, Failure> {
        let what = match self.problems.as_slice() {
            [] => return Ok(self),
            [one] => one.clone(),
            many => format!("{} settings are wrong: {}", many.len(), many.join("; ")),
        };
        Err(Failure::config(what).hint("`ropeway config show` lists all settings with their origin"))
    }

    fn set(&mut self, key: &str, value: &str, origin: Origin) {
        if let Some((kafka::TABLE, name)) = key.split_once('.') {
            if let Err(why) = self.settings.kafka.set(name, value, origin.clone()) {
                self.problems.push(format!("{origin}: `{key}`: {why}"));
            }
            return;
        }
        let Some(known) = KEYS.iter().find(|known| known.name == key) else {
            let names: Vec<&str> = KEYS.iter().map(|known| known.name).collect();
            let near = nearest(key, &names).map(|near| format!("; did you mean `{near}`?"));
            let near = near.unwrap_or_default();
            self.problems.push(format!("{origin}: there is no setting `{key}`{near}"));
            return;
        };
        match self.settings.set(key, value) {
            Ok(_) => {
                self.origins.insert(known.name, origin);
            }
            Err(takes) => {
                self.problems.push(format!("{origin}: {value:?} is not acceptable for `{key}`: {takes}"));
            }
        }
    }

    fn file(&mut self, path: &Path, must_exist: bool) {
        match read(path) {
            Ok(text) => {
                self.files.push(path.to_owned());
                self.table(path, &text);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {}
            Err(error) => self.problems.push(format!("{}: cannot be read: {error}", path.display())),
        }
    }

    fn table(&mut self, path: &Path, text: &str) {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let line = line(error.span().map_or(0, |span| span.start));
                self.problems.push(format!("{}:{line}: not TOML: {}", path.display(), error.message()));
                return;
            }
        };
        for (section, value) in table.get_ref() {
            let at = Origin::File(path.to_owned(), line(section.span().start));
            let DeValue::Table(keys) = value.get_ref() else {
                self.set(section.get_ref(), "", at);
                continue;
            };
            if keys.is_empty()
                && section.get_ref() != kafka::TABLE
                && !KEYS.iter().any(|key| key.name.split('.').next() == Some(section.get_ref()))
            {
                self.set(section.get_ref(), "", at);
            }
            for (key, value) in keys {
                let at = |at: usize| Origin::File(path.to_owned(), line(at));
                self.key(
                    format!("{}.{}", section.get_ref(), key.get_ref()),
                    key.span().start,
                    value.get_ref(),
                    &at,
                );
            }
        }
    }

    /// Sets what stands at a key. Names of the table of Kafka have dots in them, which is a table in a table.
    fn key(&mut self, name: String, place: usize, value: &DeValue<'_>, at: &dyn Fn(usize) -> Origin) {
        let is_kafka = name.starts_with("kafka.") && name.split('.').count() < MAX_NAMES;
        match value {
            DeValue::String(text) => self.set(&name, text, at(place)),
            DeValue::Integer(number) => self.set(&name, number.as_str(), at(place)),
            DeValue::Float(number) => self.set(&name, number.as_str(), at(place)),
            DeValue::Boolean(flag) => self.set(&name, &flag.to_string(), at(place)),
            DeValue::Datetime(time) => self.set(&name, &time.to_string(), at(place)),
            DeValue::Table(keys) if is_kafka => {
                for (key, value) in keys {
                    self.key(format!("{name}.{}", key.get_ref()), key.span().start, value.get_ref(), at);
                }
            }
            DeValue::Array(_) | DeValue::Table(_) => self.set(&name, "(a list or table)", at(place)),
        }
    }

    fn env(&mut self, name: &str, value: OsString) {
        let origin = Origin::Env(name.to_owned());
        let Ok(value) = value.into_string() else {
            self.problems.push(format!("{origin}: is not UTF-8"));
            return;
        };
        let key = name.trim_start_matches(PREFIX).to_ascii_lowercase().replacen("__", ".", 1);
        // No variable has a dot in its name.
        let key = match key.split_once("kafka.rdkafka__") {
            Some(("", name)) => format!("kafka.rdkafka.{}", name.replace('_', ".")),
            _ => key,
        };
        match key.strip_suffix("_file") {
            Some(key) => match read(Path::new(&value)) {
                Ok(text) => self.set(key, text.trim_end_matches(['\r', '\n']), origin),
                Err(error) => self.problems.push(format!("{origin}: {value:?} cannot be read: {error}")),
            },
            None => self.set(&key, &value, origin),
        }
    }
}

impl Sources {
    /// Those of this process, with the files and flags of its command line.
    pub(crate) fn of_process(named: &[PathBuf], flags: Vec<Flag>) -> Self {
        Self {
            usual: vec![PathBuf::from("/etc/ropeway/ropeway.toml"), PathBuf::from("ropeway.toml")],
            named: named.to_vec(),
            env: std::env::vars_os().collect(),
            flags,
        }
    }

    /// Reads them all, and goes on past what is wrong.
    pub(crate) fn load(self) -> Loaded {
        let mut loaded = Loaded {
            settings: Settings::default(),
            files: Vec::new(),
            problems: Vec::new(),
            origins: BTreeMap::new(),
        };
        for path in &self.usual {
            loaded.file(path, false);
        }
        for path in &self.named {
            loaded.file(path, true);
        }
        let mut env: Vec<(String, OsString)> = self
            .env
            .into_iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        env.sort();
        for (name, value) in env {
            loaded.env(&name, value);
        }
        for flag in self.flags {
            loaded.set(flag.key, &flag.value, Origin::Flag(flag.name));
        }
        loaded
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_higher_layer_wins_and_the_origin_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let usual =
            file(&dir, "a.toml", "[broker]\nurl = \"memory:\"\n[consume]\ndrain = \"1s\"\nmessages = 7\n");
        let named = file(&dir, "b.toml", "\n[consume]\ndrain = \"2s\"\n");
        let secret = file(&dir, "secret", "redis://u:p@h\n");
        let env = [
            ("ROPEWAY__CONSUME__ACK_INTERVAL", "3ms".to_owned()),
            ("ROPEWAY__BROKER__URL_FILE", secret.display().to_string()),
            ("ROPEWAY__OUTPUT__FORMAT", "json".to_owned()),
            ("ROPEWAY_OTHER", "x".to_owned()),
        ];
        let loaded = Sources {
            usual: vec![dir.path().join("absent.toml"), usual.clone()],
            named: vec![named.clone()],
            env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            flags: vec![Flag { key: "output.format", name: "-o", value: "raw".into() }],
        }
        .load()
        .check()
        .unwrap();
        assert_eq!(loaded.files, [usual.clone(), named.clone()]);
        let shown = |key| (loaded.settings.shown(key).unwrap(), loaded.origin(key).clone());
        assert_eq!(shown("consume.drain"), ("2s".into(), Origin::File(named, 3)));
        assert_eq!(shown("consume.messages"), ("7".into(), Origin::File(usual, 5)));
        assert_eq!(
            shown("consume.ack_interval"),
            ("3ms".into(), Origin::Env("ROPEWAY__CONSUME__ACK_INTERVAL".into()))
        );
        assert_eq!(shown("output.format"), ("raw".into(), Origin::Flag("-o")));
        assert_eq!(shown("time.stop"), ("10s".into(), Origin::Default));
        assert_eq!(shown("broker.url").0, "redis://***@h");
        assert_eq!(loaded.settings.broker.url.reveal(), "redis://u:p@h");
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let bad = file(
            &dir,
            "bad.toml",
            "url = 'x'\n[consume]\ndrian = '1s'\ndrain = 30\nmessages = [1]\n[consum]\n[time.stop]\nx = 1\n",
        );
        let broken = file(&dir, "broken.toml", "[broker]\nurl = \n");
        let loaded = Sources {
            named: vec![bad, broken, dir.path().join("absent.toml")],
            env: vec![("ROPEWAY__OUTPUT__COLR".into(), "auto".into())],
            ..Sources::default()
        }
        .load();
        let text = loaded.problems.join("\n");
        for part in [
            "bad.toml:1: there is no setting `url`",
            "bad.toml:3: there is no setting `consume.drian`; did you mean `consume.drain`?",
            "bad.toml:4: \"30\" is not acceptable for `consume.drain`: it takes a duration with its unit",
            "bad.toml:5: \"(a list or table)\" is not acceptable for `consume.messages`",
            "bad.toml:6: there is no setting `consum`",
            "bad.toml:7: \"(a list or table)\" is not acceptable for `time.stop`",
            "broken.toml:2: not TOML",
            "absent.toml: cannot be read",
            "env:ROPEWAY__OUTPUT__COLR: there is no setting `output.colr`; did you mean `output.color`?",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert_eq!(loaded.check().unwrap_err().exit(), Exit::Config);
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn the_table_of_kafka_has_the_names_of_its_url() {
        let dir = tempfile::tempdir().unwrap();
        let low = file(
            &dir,
            "low.toml",
            "[kafka]\nsession = \"40s\"\nreplication = 3\nrdkafka.socket.timeout.ms = 700\nrdkafka.\"fetch.min.bytes\" = 9\n",
        );
        let high = file(&dir, "high.toml", "[kafka]\nsession = \"50s\"\n");
        let env = [
            ("ROPEWAY__KAFKA__LINGER", "5ms"),
            ("ROPEWAY__KAFKA__RDKAFKA__SOCKET_TIMEOUT_MS", "800"),
            ("ROPEWAY__KAFKA__KEY_PASSWORD", "hush"),
        ];
        let sources = Sources {
            named: vec![low.clone(), high.clone()],
            env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            ..Sources::default()
        };
        let loaded = sources.load().check().unwrap();
        let shown: Vec<_> = loaded
            .settings
            .kafka
            .shown()
            .map(|(n, v, at)| (n.to_owned(), v.to_owned(), at.clone()))
            .collect();
        let env = |name: &str| Origin::Env(format!("ROPEWAY__KAFKA__{name}"));
        let expected = [
            ("key_password", "***", env("KEY_PASSWORD")),
            ("linger", "5ms", env("LINGER")),
            ("rdkafka.fetch.min.bytes", "9", Origin::File(low.clone(), 5)),
            ("rdkafka.socket.timeout.ms", "800", env("RDKAFKA__SOCKET_TIMEOUT_MS")),
            ("replication", "3", Origin::File(low, 3)),
            ("session", "50s", Origin::File(high, 2)),
        ];
        assert_eq!(shown, expected.map(|(name, value, at)| (name.to_owned(), value.to_owned(), at)));
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn what_is_wrong_in_the_table_of_kafka_is_told_with_file_line_and_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let deep = format!("rdkafka.{} = 1\n", ["a"; 60].join("."));
        let text = format!(
            "[kafka]\nsesion = \"3s\"\nsession = 3\nplugin.library.paths = \"/x.so\"\nrdkafka.ssl.keystore.location = \"/x\"\n\
             bootstrap.servers = \"h\"\nkey_password = \"hush\"\nreplication = [1]\n{deep}"
        );
        let loaded = Sources { named: vec![file(&dir, "k.toml", &text)], ..Sources::default() }.load();
        let text = loaded.problems.join("\n");
        for part in [
            "k.toml:2: `kafka.sesion`: kafka+ssl has no parameter `sesion` (did you mean `session`?); its parameters are: ca,",
            "k.toml:3: `kafka.session`: kafka+ssl: `session=3` is not acceptable; it takes a time such as",
            "k.toml:4: `kafka.plugin.library.paths`: `rdkafka.plugin.library.paths` is refused: it runs code",
            "k.toml:5: `kafka.rdkafka.ssl.keystore.location`: `rdkafka.ssl.keystore.location` is refused: it reads a file; use `cert` and `key`",
            "k.toml:6: `kafka.bootstrap.servers`: `rdkafka.bootstrap.servers` is refused: the hosts stand in the URL",
            "k.toml:7: `kafka.key_password`: a password does not belong into a file",
            "k.toml:8: `kafka.replication`: ",
            "k.toml:9: `kafka.rdkafka.a.a.a",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert!(!text.contains("hush"));
    }
}
