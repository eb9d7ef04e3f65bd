//! Two reports beside each other. Pure.
//!
//! Not here: what is too much of a difference (`metric.rs`).

use crate::{
    metric::{self, Unit},
    report::Report,
};
use serde::Serialize;

/// A figure in both runs; `None` where one does not have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub figure: String,
    /// In the run that is compared with.
    pub base: Option<f64>,
    /// In the run that is compared.
    pub new: Option<f64>,
    /// How many percent more it is.
    pub percent: Option<f64>,
    /// How it is shown.
    #[serde(skip)]
    pub unit: Unit,
}

/// Every figure that one of them has.
#[must_use]
pub fn compare(base: &Report, new: &Report) -> Vec<Difference> {
    let rows = metric::names().into_iter().map(|(figure, unit)| {
        let (base, new) = (metric::value(base, &figure), metric::value(new, &figure));
        let percent = base.zip(new).and_then(|(base, new)| metric::difference(base, new));
        Difference { figure, base, new, percent, unit }
    });
    rows.filter(|row| row.base.is_some() || row.new.is_some()).collect()
}

/// What was asked for and is not the same, so that the runs may not be comparable: name, one value, other value.
#[must_use]
pub fn apart(base: &Report, new: &Report) -> Vec<(String, String, String)> {
    let none = || "-".to_owned();
    let mut found = Vec::new();
    let mut look = |name: &str, one: Option<String>, other: Option<String>| {
        if one != other {
            found.push((name.to_owned(), one.unwrap_or_else(none), other.unwrap_or_else(none)));
        }
    };
    look("kind", Some(base.kind.clone()), Some(new.kind.clone()));
    look("broker", Some(base.broker.kind.clone()), Some(new.broker.kind.clone()));
    look("durability", base.broker.durability.clone(), new.broker.durability.clone());
    look("cpu", base.host.cpu.clone(), new.host.cpu.clone());
    look(
        "cores",
        base.host.cores.map(|cores| cores.to_string()),
        new.host.cores.map(|cores| cores.to_string()),
    );
    look("file system", base.host.file_system.clone(), new.host.file_system.clone());
    let mut names: Vec<&String> = base.parameters.keys().chain(new.parameters.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        look(name, base.parameters.get(name).cloned(), new.parameters.get(name).cloned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn what_one_of_them_has_is_a_row() {
        let (base, mut new) = (report(), report());
        new.latency.publish = None;
        new.rates.as_mut().unwrap().throughput = 1500.0;
        let rows = compare(&base, &new);
        assert_eq!(rows[0].percent.map(f64::round), Some(50.0));
        let publish = rows.iter().find(|row| row.figure == "publish.p99").unwrap();
        assert!(publish.base.is_some() && publish.new.is_none() && publish.percent.is_none());
        assert!(!rows.iter().any(|row| row.figure.starts_with("delay")));
    }

    #[test]
    fn what_was_not_the_same_is_told() {
        let (base, mut new) = (report(), report());
        assert!(apart(&base, &new).is_empty());
        new.parameters.insert("keys".into(), "none".into());
        new.broker.kind = "embedded".into();
        let apart = apart(&base, &new);
        assert_eq!(apart[0], ("broker".into(), "memory".into(), "embedded".into()));
        assert_eq!(apart[1], ("keys".into(), "-".into(), "none".into()));
    }
}
