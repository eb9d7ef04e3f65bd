//! Settings: what can be set, and what is set where nothing else says so.
//!
//! Low to high: defaults, `/etc/ropeway/ropeway.toml`, `./ropeway.toml`, `-c` files, `ROPEWAY__SECTION__KEY` (or the content of the file
//! that `ROPEWAY__SECTION__KEY_FILE` names), flags. An unknown name is an error that names the nearest.
//! Not here: reading the layers and whence each value came (`layers.rs`), text to value (`value.rs`), hidden values (`address.rs`), the table
//! `[kafka]`, whose names are those of the parameters of its URLs (`kafka.rs`).

mod address;
pub(crate) mod kafka;
mod layers;
mod value;

pub(crate) use address::Address;
pub(crate) use layers::{Flag, Loaded, Origin, Sources};
pub(crate) use value::{Color, Count, Format, Level, Listen, Setting, Size, duration};

use std::time::Duration;

/// One thing that can be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// `section.key`.
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) about: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $section_about:literal])+ $section:ident: $Section:ident {
        $($(#[doc = $about:literal])+ $key:ident: $type:ty = $default:expr;)+
    })+) => {
        /// Everything that can be set, with the value in force.
        #[derive(Clone, Debug)]
        pub(crate) struct Settings {
            $($(#[doc = $section_about])+ pub(crate) $section: $Section,)+
            /// What a URL of Kafka does not give itself.
            pub(crate) kafka: kafka::Parameters,
        }

        $($(#[doc = $section_about])+
        #[derive(Clone, Debug)]
        pub(crate) struct $Section {
            $($(#[doc = $about])+ pub(crate) $key: $type,)+
        })+

        impl Default for Settings {
            fn default() -> Self {
                Self { $($section: $Section { $($key: $default,)+ },)+ kafka: kafka::Parameters::default() }
            }
        }

        /// All keys, in the order of the documentation.
        pub(crate) const KEYS: &[Key] = &[$($(
            Key {
                name: concat!(stringify!($section), ".", stringify!($key)),
                about: concat!($($about),+).trim_ascii(),
            },
        )+)+];

        impl Settings {
            /// Sets one key from text. `Ok(false)`: there is no such key.
            ///
            /// # Errors
            /// What the key takes instead, to follow "is not acceptable: ".
            fn set(&mut self, key: &str, text: &str) -> Result<bool, String> {
                $($(if key == concat!(stringify!($section), ".", stringify!($key)) {
                    self.$section.$key = Setting::parse(text)?;
                    return Ok(true);
                })+)+
                Ok(false)
            }

            /// The value of a key as text that [`Self::set`] takes, hidden where it is secret.
            pub(crate) fn shown(&self, key: &str) -> Option<String> {
                $($(if key == concat!(stringify!($section), ".", stringify!($key)) {
                    return Some(self.$section.$key.show());
                })+)+
                None
            }
        }
    };
}

settings! {
    /// The bus.
    broker: Broker {
        /// URL of the broker: embedded:DIR, memory:, redis://HOST or kafka://HOST (flag --broker)
        url: Address = Address::new("embedded:./.ropeway");
    }
    /// What is printed.
    output: Output {
        /// table, json, ndjson or raw (flag -o)
        format: Format = Format::Table;
        /// auto, always or never (flag --color; NO_COLOR counts as never)
        color: Color = Color::Auto;
        /// whether progress is shown on stderr (flag --no-progress)
        progress: bool = true;
        /// error, warn, info, debug or trace: what is logged to stderr (flags -q, -v)
        log: Level = Level::Warn;
    }
    /// How long things may take.
    time: Time {
        /// how long the broker may take over one request (flag --timeout)
        request: Duration = Duration::from_secs(30);
        /// how long an orderly end may take: flushing publishers, draining consumers
        stop: Duration = Duration::from_secs(10);
    }
    /// Publishing.
    publish: Publish {
        /// messages that may wait for the broker's answer
        messages: Count = Count(4096);
        /// bytes that may wait for the broker's answer
        bytes: Size = Size(32 * 1024 * 1024);
    }
    /// Consuming in a group.
    consume: Consume {
        /// messages that may be delivered and not acked
        messages: Count = Count(1024);
        /// bytes that may be delivered and not acked
        bytes: Size = Size(64 * 1024 * 1024);
        /// how soon acks take effect at the latest
        ack_interval: Duration = Duration::from_millis(100);
        /// how long a partition may be kept when the group takes it away
        drain: Duration = Duration::from_secs(10);
    }
    /// The address for metrics and health.
    http: Http {
        /// ADDRESS:PORT that serves /metrics, /healthz and /readyz while a verb runs; off serves nothing (flag --listen)
        listen: Listen = Listen(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_survives_being_written_and_read_again() {
        let defaults = Settings::default();
        for key in KEYS {
            let shown = defaults.shown(key.name).unwrap();
            let mut read = Settings::default();
            assert_eq!(read.set(key.name, &shown), Ok(true), "{} = {shown}", key.name);
            assert_eq!(read.shown(key.name).unwrap(), shown, "{}", key.name);
            assert!(!key.about.is_empty());
        }
        assert_eq!(Settings::default().set("consume.drian", "1s"), Ok(false));
    }
}
