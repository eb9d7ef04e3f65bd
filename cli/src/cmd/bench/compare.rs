//! `bench compare`: two reports beside each other.

use super::args::Compare;
use crate::{
    exit::Exit,
    failure::Failure,
    output::{Row, or_dash},
    session::Session,
};
use ropeway_bench::{
    compare::{self, Difference},
    report::Report,
};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
#[serde(transparent)]
struct Compared(Difference);

impl Row for Compared {
    const COLUMNS: &'static [&'static str] = &["FIGURE", "BASE", "NEW", "DIFFERENCE"];

    fn cells(&self) -> Vec<String> {
        let Difference { figure, base, new, percent, unit } = &self.0;
        let shown = |value: &Option<f64>| or_dash(value.map(|value| unit.show(value)));
        vec![
            figure.clone(),
            shown(base),
            shown(new),
            or_dash(percent.map(|percent| format!("{percent:+.1}%"))),
        ]
    }
}

/// Compares.
pub(super) fn run(args: &Compare, session: &mut Session) -> Result<(), Failure> {
    let (base, new) = (read(&args.base)?, read(&args.new)?);
    for (name, base, new) in compare::apart(&base, &new) {
        session.notes.say(&format!("not the same: {name} was {base} and is {new}"));
    }
    let rows: Vec<Compared> = compare::compare(&base, &new).into_iter().map(Compared).collect();
    session.out.list(session.format(), &rows)?;
    let objections: Vec<String> =
        args.fail_if.iter().filter_map(|fail| fail.objection(&base, &new)).collect();
    if objections.is_empty() {
        return Ok(());
    }
    objections.iter().for_each(|objection| session.notes.warn(objection));
    Err(Failure::new(format!("{} differences are too much", objections.len())).exits(Exit::Assertion))
}

fn read(path: &Path) -> Result<Report, Failure> {
    let json = std::fs::read_to_string(path).map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Error };
        Failure::new(format!("could not read {}", path.display())).caused_by(&error).exits(exit)
    })?;
    Report::parse(&json)
        .map_err(|why| Failure::usage(format!("{} cannot be compared: {why}", path.display())))
}
