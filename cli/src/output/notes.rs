//! What is said on stderr: errors, notes, progress. A stderr that takes nothing stops nobody.

use crate::{
    args::Globals,
    failure::Failure,
    settings::{Color, Settings},
};
use indicatif::ProgressBar;
use std::{
    fmt::Write as _,
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

/// Says things on stderr. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    quiet: bool,
    color: bool,
    progress: bool,
    /// What is drawn below the lines now.
    drawn: Arc<Mutex<Option<ProgressBar>>>,
}

impl Notes {
    /// As the command line has it, before settings are known.
    pub(crate) fn new(globals: &Globals) -> Self {
        let color = colored(globals.color.unwrap_or(Color::Auto), std::io::stderr().is_terminal());
        Self { quiet: globals.quiet, color, progress: !globals.no_progress, drawn: Arc::default() }
    }

    /// As the settings have it.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            quiet: settings.output.log == crate::settings::Level::Error,
            color: colored(settings.output.color, std::io::stderr().is_terminal()),
            progress: settings.output.progress,
            drawn: Arc::default(),
        }
    }

    /// Says one line, unless told to be quiet.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            self.write(&format!("{}\n", visible(line)));
        }
    }

    /// Warns in one line, quiet or not.
    pub(crate) fn warn(&self, line: &str) {
        self.write(&format!("{}{}\n", self.label("warning:", "33"), visible(line)));
    }

    /// Asks in one line; the answer is typed behind it.
    pub(crate) fn ask(&self, question: &str) {
        self.write(&visible(question));
    }

    /// Whether colours are used.
    pub(crate) const fn is_colored(&self) -> bool {
        self.color
    }

    /// Tells a failure: what, why, what to do.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.is_quiet() {
            return;
        }
        let mut text = format!("{}{}\n", self.label("error:", "31"), visible(failure.what()));
        for cause in failure.causes() {
            let _ = writeln!(text, "  {}{}", self.label("cause:", "2"), visible(cause));
        }
        if let Some(hint) = failure.advice() {
            let _ = writeln!(text, "  {}{}", self.label("hint:", "36"), visible(hint));
        }
        self.write(&text);
    }

    /// Whether progress should be shown, and whether it may be drawn.
    pub(crate) fn progress(&self) -> (bool, bool) {
        (self.progress && !self.quiet, std::io::stderr().is_terminal())
    }

    /// Draws this below the lines from now on; nothing, where there is none.
    pub(super) fn draw(&self, bar: Option<ProgressBar>) {
        *self.drawn.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn write(&self, text: &str) {
        let write = || _ = std::io::stderr().lock().write_all(text.as_bytes());
        match &*self.drawn.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn label(&self, word: &str, code: &str) -> String {
        if self.color { format!("\x1b[1;{code}m{word}\x1b[0m ") } else { format!("{word} ") }
    }
}

/// Whether colours are used where it goes to a terminal or not.
pub(crate) fn colored(color: Color, terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

/// Text with its control characters made visible, so that data can neither move the cursor nor split a line.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_never_obeyed() {
        assert_eq!(visible("a\x1b[2Jb\nc\u{202e}d é"), "a\\u{1b}[2Jb\\nc\\u{202e}d é");
    }

    #[test]
    fn colours_follow_the_setting() {
        assert!(colored(Color::Always, false));
        assert!(!colored(Color::Never, true) && !colored(Color::Auto, false));
    }
}
