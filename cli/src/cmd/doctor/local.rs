//! Brokers in this process: `memory:`, and the directory of `embedded:` as it looks from outside.
//!
//! Not here: whether what lies in a directory is whole (`data check`, which owns it meanwhile).

use super::report::{Finding, Level, Report, size};
use crate::{failure::Failure, settings::Address};
use ropeway_broker::{BrokerUrl, EmbeddedSettings};

const ORDER: &str = "order per key, at least once, acks in any order";

/// `memory:`.
///
/// # Errors
/// Those of the broker.
pub(super) async fn memory(address: &Address, url: &BrokerUrl) -> Result<Report, Failure> {
    let settings = EmbeddedSettings::of_url(url)?;
    let findings = vec![
        Finding::new("durability", Level::Note, "everything is gone with the process")
            .fix("use embedded:DIR to keep it"),
        Finding::new(
            "memory",
            Level::Fine,
            format!("messages may take {} (max_memory)", size(settings.max_memory)),
        ),
    ];
    let mut report = Report::new(address.to_string(), "memory", findings).capable(capabilities().await?);
    report.guarantees = vec![ORDER.to_owned(), "what was acked survives nothing (volatile)".to_owned()];
    Ok(report)
}

/// The directory of `embedded:`. It is not opened: another process may have it.
///
/// # Errors
/// Those of the broker.
#[cfg(feature = "embedded")]
pub(super) async fn directory(address: &Address, url: &BrokerUrl) -> Result<Report, Failure> {
    use ropeway_broker::Durability;
    let settings = EmbeddedSettings::of_url(url)?;
    let findings = match ropeway_store::look(url.path.as_ref()) {
        Ok(look) => of_look(&url.path, &look, &settings),
        Err(error) => {
            let fix = match &error {
                ropeway_store::Error::Version { .. } => {
                    "use the version of Ropeway that wrote it, or a newer one".to_owned()
                }
                ropeway_store::Error::Corrupt { .. } => crate::failure::damaged(&url.path),
                _ if std::path::Path::new(&url.path).is_file() => {
                    format!("name a directory: {} is a file", url.path)
                }
                _ => format!("see that this user may read {}", url.path),
            };
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            vec![Finding::new("directory", Level::Error, format!("{error}{cause}")).fix(fix)]
        }
    };
    let mut report = Report::new(address.to_string(), "embedded", findings).capable(capabilities().await?);
    let survives = match settings.durability {
        Durability::ProcessCrash => {
            "what was acked survives a killed process, not a power cut (process_crash)"
        }
        _ => "what was acked survives a power cut (power_loss), if the disk keeps what it says it has synced",
    };
    report.guarantees = vec![ORDER.to_owned(), survives.to_owned()];
    Ok(report)
}

#[cfg(feature = "embedded")]
fn of_look(dir: &str, look: &ropeway_store::Look, settings: &EmbeddedSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match look.format {
        None => Finding::new("directory", Level::Note, format!("there is no store in {dir} yet; it is made when it is opened")),
        Some(format) if format < look.newest => Finding::new(
            "directory",
            Level::Note,
            format!("format {format}; it is brought to {} when it is opened, and older versions do not read it then", look.newest),
        ),
        Some(format) => Finding::new("directory", Level::Fine, format!("format {format}, the newest")),
    });
    let (bytes, most) = (look.bytes, settings.max_disk);
    let says = format!("{} on disk of {} that it may take (max_disk)", size(bytes), size(most));
    let fix = format!(
        "add ?max_disk={}GiB to the URL, purge or delete topics, or give them a retention",
        (most >> 29).max(1)
    );
    findings.push(match bytes {
        _ if bytes >= most => {
            Finding::new("size", Level::Error, format!("{says}: publishing is refused")).fix(fix)
        }
        _ if bytes / 9 >= most / 10 => Finding::new("size", Level::Warning, says).fix(fix),
        _ => Finding::new("size", Level::Fine, says),
    });
    if let Some(free) = look.free {
        let least = settings.min_free;
        let says = format!("{} free on its disk; {} must stay free (min_free)", size(free), size(least));
        let fix = "make room on the disk, or move the directory to a larger one";
        findings.push(match free {
            _ if free <= least => {
                Finding::new("disk", Level::Error, format!("{says}: publishing is refused")).fix(fix)
            }
            _ if free / 4 <= least => Finding::new("disk", Level::Warning, says).fix(fix),
            _ => Finding::new("disk", Level::Fine, says),
        });
    }
    findings
}

/// What the broker in this process can: the same for both.
async fn capabilities() -> Result<ropeway_broker::Capabilities, Failure> {
    Ok(ropeway_broker::connect("memory:").await?.capabilities())
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use super::*;
    use ropeway_store::Look;

    fn levels(format: Option<u32>, bytes: u64, free: u64) -> Vec<Level> {
        let settings = EmbeddedSettings { max_disk: 1000, min_free: 100, ..EmbeddedSettings::default() };
        let look = Look { format, newest: 4, bytes, free: Some(free) };
        of_look("d", &look, &settings).iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn room_and_format_are_judged_by_what_is_set() {
        assert_eq!(levels(Some(4), 10, 10_000), [Level::Fine; 3]);
        assert_eq!(levels(None, 0, 10_000)[0], Level::Note);
        assert_eq!(levels(Some(3), 0, 10_000)[0], Level::Note);
        for (bytes, level) in [(899, Level::Fine), (950, Level::Warning), (1000, Level::Error)] {
            assert_eq!(levels(Some(4), bytes, 10_000)[1], level, "{bytes}");
        }
        for (free, level) in [(500, Level::Fine), (300, Level::Warning), (100, Level::Error)] {
            assert_eq!(levels(Some(4), 0, free)[2], level, "{free}");
        }
    }
}
