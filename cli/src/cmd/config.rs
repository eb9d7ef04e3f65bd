//! `ropeway config`: show, check.

use crate::{
    args::Globals,
    exit::Exit,
    failure::Failure,
    output::{Notes, Out, Row},
    settings::{Format, KEYS, Loaded, kafka},
};
use serde::Serialize;

/// What `config` takes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every setting with whence it came
    #[command(after_help = "\
Low to high: default, /etc/ropeway/ropeway.toml, ./ropeway.toml, -c files, ROPEWAY__SECTION__KEY
(or the content of the file that ROPEWAY__SECTION__KEY_FILE names), flags.
[kafka] has the parameters of a kafka: URL, for one that does not give them: [kafka] session = \"45s\"
JSON: [{key, value, origin, about}]; origin is default, FILE:LINE, env:NAME or flag NAME
Raw: a file of settings. What is secret is shown as *** everywhere.")]
    Show,
    /// Check settings; ends with 78 where one is wrong
    #[command(after_help = "JSON: {ok, files, problems}")]
    Check,
}

/// Runs a verb.
///
/// # Errors
/// A wrong setting; those of stdout.
pub(crate) fn run(verb: &Verb, globals: &Globals, loaded: Loaded, notes: &Notes) -> Result<Exit, Failure> {
    let mut out = Out::stdout();
    let exit = match verb {
        Verb::Show => {
            let loaded = loaded.check()?;
            show(&loaded, loaded.settings.output.format, &mut out)?;
            Exit::Ok
        }
        Verb::Check => {
            check(&loaded, globals.output.unwrap_or(loaded.settings.output.format), &mut out, notes)?
        }
    };
    out.flush()?;
    Ok(exit)
}

#[derive(Debug, Serialize)]
struct Shown {
    key: String,
    value: String,
    origin: String,
    about: &'static str,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &["KEY", "VALUE", "ORIGIN"];

    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.value.clone(), self.origin.clone()]
    }
}

fn show(loaded: &Loaded, format: Format, out: &mut Out) -> Result<(), Failure> {
    let of_kafka = loaded.settings.kafka.shown().map(|(name, value, origin)| Shown {
        key: format!("{}.{name}", kafka::TABLE),
        value: value.to_owned(),
        origin: origin.to_string(),
        about: kafka::ABOUT,
    });
    let rows: Vec<Shown> = KEYS
        .iter()
        .map(|key| Shown {
            key: key.name.to_owned(),
            value: loaded.settings.shown(key.name).unwrap_or_default(),
            origin: loaded.origin(key.name).to_string(),
            about: key.about,
        })
        .chain(of_kafka)
        .collect();
    if format == Format::Raw {
        return toml(&rows, out);
    }
    out.list(format, &rows)
}

/// A file of settings that means the same when it is read again. What is hidden would not: it becomes a remark.
fn toml(rows: &[Shown], out: &mut Out) -> Result<(), Failure> {
    let mut section = "";
    for row in rows {
        let Some((of, key)) = row.key.split_once('.') else { continue };
        if of != section {
            out.line(&format!("[{of}]"))?;
            section = of;
        }
        let hidden = if row.value.contains("***") { "# " } else { "" };
        let value = toml::Value::String(row.value.clone());
        out.line(&format!("# {}", row.about))?;
        out.line(&format!("{hidden}{key} = {value}"))?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Checked<'a> {
    ok: bool,
    files: Vec<String>,
    problems: &'a [String],
}

fn check(loaded: &Loaded, format: Format, out: &mut Out, notes: &Notes) -> Result<Exit, Failure> {
    let files: Vec<String> = loaded.files.iter().map(|path| path.display().to_string()).collect();
    let mut problems = loaded.problems.clone();
    if let Err(error) = crate::opening::check(&loaded.settings.broker.url, &loaded.settings.kafka) {
        let set = loaded.settings.kafka.named_in(&error.to_string());
        let set = set.map(|set| format!(" ({set})")).unwrap_or_default();
        problems.push(format!("{}: the URL of the broker: {error}{set}", loaded.origin("broker.url")));
    }
    let ok = problems.is_empty();
    let read = if files.is_empty() { "none".to_owned() } else { files.join(", ") };
    let verdict = match problems.len() {
        0 => "settings are well".to_owned(),
        1 => "1 setting is wrong".to_owned(),
        many => format!("{many} settings are wrong"),
    };
    let lines = [("result", verdict), ("files", read)];
    out.object(format, &Checked { ok, files, problems: &problems }, &lines)?;
    for problem in &problems {
        notes.failure(&Failure::config(problem));
    }
    Ok(if ok { Exit::Ok } else { Exit::Config })
}
