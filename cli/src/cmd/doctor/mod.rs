//! `ropeway doctor`: what a broker can, guarantees and lacks for us, how it is misconfigured, and how to mend that.
//!
//! Nothing is changed: neither on a server nor in a directory. Here: the verb, and how a report is printed. Not here: what a report is
//! (`report.rs`), brokers in this process (`local.rs`), servers of Redis (`redis/`), clusters of Kafka (`kafka/`).

#[cfg(feature = "kafka")]
mod kafka;
mod local;
#[cfg(feature = "redis")]
mod redis;
mod report;

use crate::{
    exit::Exit,
    failure::Failure,
    opening,
    output::{colored, visible},
    session::Session,
    settings::{Address, Format, Setting as _},
};
use report::{Level, Report};
use ropeway_broker::BrokerUrl;
use std::io::IsTerminal;

/// What `doctor` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 where nothing is worse than a note, 6 with warnings, 3 with errors; 69 where nobody answers, and
78 where the URL is wrong or names a broker that this build does not have. Changes nothing on a server or disk.
  error: what was acked may be lost, or something does not work; warning: it works, and less is promised
JSON: {broker, backend, verdict, guarantees, can, lacks, findings: [{server, check, level, says, fix}]}
  verdict: fine, warning or error; level: fine, note, warning or error; fix: commands and lines of
  redis.conf or server.properties, in their order; server is null where a finding is not about one
Raw prints the verdict.
Examples:
  ropeway doctor redis://127.0.0.1:6379
  ropeway doctor kafka://127.0.0.1:9092
  ropeway doctor embedded:./data -o json")]
pub(crate) struct Args {
    /// The broker's URL [default: that of --broker]
    url: Option<String>,
}

/// Looks, and tells.
///
/// # Errors
/// Errors (3) and warnings (6) that were found, which are printed before; a wrong URL (78); nobody there (69); those of stdout.
pub(crate) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let address = match &args.url {
        Some(url) => {
            Address::parse(url).map_err(|takes| Failure::config(format!("{url:?} is no URL: {takes}")))?
        }
        None => session.settings.broker.url.clone(),
    };
    let wrong = |error: ropeway_broker::Error| {
        let hint = format!("the broker is {address}; `ropeway doctor URL` looks at another");
        Failure::from(error).exits(Exit::Config).hint(hint)
    };
    opening::check(&address, &session.settings.kafka).map_err(wrong)?;
    let url = BrokerUrl::parse(address.reveal()).map_err(wrong)?;
    let (report, unreachable) = match url.scheme.as_str() {
        "memory" => (local::memory(&address, &url).await?, None),
        #[cfg(feature = "embedded")]
        "embedded" => (local::directory(&address, &url).await?, None),
        #[cfg(feature = "kafka")]
        "kafka" | "kafka+ssl" => Box::pin(kafka::look(&address, session)).await?,
        #[cfg(feature = "redis")]
        _ => Box::pin(redis::look(&address, session)).await?,
        #[cfg(not(feature = "redis"))]
        other => return Err(Failure::config(format!("doctor does not know {other}:"))),
    };
    print(&report, session)?;
    session.out.flush()?;
    match (unreachable, report.verdict) {
        (Some(exit), _) => Err(Failure::new(report.sentence()).exits(exit)),
        (None, Level::Error) => Err(Failure::new(report.sentence()).exits(Exit::Assertion)),
        (None, Level::Warning) => Err(Failure::new(report.sentence()).exits(Exit::Warned)),
        (None, Level::Note | Level::Fine) => Ok(()),
    }
}

fn print(report: &Report, session: &mut Session) -> Result<(), Failure> {
    let colors = colored(session.settings.output.color, std::io::stdout().is_terminal());
    match session.format() {
        Format::Json => session.out.json(report),
        Format::Ndjson => session.out.ndjson(report),
        Format::Raw => session.out.line(report.verdict.name()),
        Format::Table => lines(report, colors).iter().try_for_each(|line| session.out.line(line)),
    }
}

/// A report for people.
fn lines(report: &Report, colors: bool) -> Vec<String> {
    const WIDTH: usize = 11;
    let about = |name: &str, text: &str| format!("{name:WIDTH$} {}", visible(text));
    let mut lines = vec![about("broker", &report.broker)];
    for (name, all) in [("guarantees", &report.guarantees), ("can", &report.can), ("lacks", &report.lacks)] {
        lines.extend(all.iter().map(|text| about(name, text)));
    }
    lines.push(String::new());
    let mut server = None;
    for finding in &report.findings {
        if server != Some(&finding.server) {
            lines.extend(finding.server.iter().map(|name| format!("{}:", visible(name))));
            server = Some(&finding.server);
        }
        let level = format!("{:8}", finding.level.name());
        let level = match finding.level.color() {
            Some(code) if colors => format!("\x1b[1;{code}m{level}\x1b[0m"),
            _ => level,
        };
        lines.push(format!("{level} {:14} {}", finding.check, visible(&finding.says)));
        lines.extend(finding.fix.iter().map(|fix| format!("{:8} {:14} fix: {}", "", "", visible(fix))));
    }
    if report.verdict < Level::Warning {
        lines.extend([String::new(), report.sentence()]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{report::Finding, *};

    #[test]
    fn people_see_each_finding_with_its_fix_and_colours_only_where_wanted() {
        let findings = vec![
            Finding::new("a", Level::Fine, "is well"),
            Finding::new("b", Level::Error, "is \x1b[31mbad").fix("do this").at("h:1"),
        ];
        let report = Report::new("redis://h:1".into(), "redis", findings);
        let plain = lines(&report, false).join("\n");
        assert!(
            plain.contains("error    b") && plain.contains("fix: do this") && plain.contains("h:1:"),
            "{plain}"
        );
        assert!(!plain.contains('\x1b'), "{plain}");
        assert!(lines(&report, true).join("\n").contains("\x1b[1;31merror"));
    }
}
