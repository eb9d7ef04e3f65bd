//! The data set that comes with the program: real reports of aircraft striking wildlife.
//!
//! Source, licence, and what is wrong with some rows: `cli/data/SOURCE.md`.
//! Not here: what a record means (`record.rs`).

use super::record::Record;

/// The file as it was taken from its source.
const FILE: &[u8] = include_bytes!("../../data/birdstrikes.csv");

/// What it is, in a few words for the screen.
pub(crate) const TITLE: &str = "FAA Wildlife Strike Database, 1990-2002 (public domain)";

/// All records, in the order of the file, which is the order of their dates.
///
/// # Errors
/// Where the file is not what the program was built for.
pub(crate) fn records() -> Result<Vec<Record>, csv::Error> {
    csv::Reader::from_reader(FILE).deserialize().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_file_has_what_its_description_says() {
        assert_eq!(FILE.len(), 1_223_329);
        let records = records().unwrap();
        assert_eq!(records.len(), 10_000);
        let mut airports: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &records {
            *airports.entry(&record.airport).or_default() += 1;
        }
        assert_eq!(airports.len(), 50);
        assert_eq!(airports["DALLAS/FORT WORTH INTL ARPT"], 908);
        assert_eq!(airports.values().min(), Some(&59));
        assert!(records.is_sorted_by(|a, b| a.date <= b.date));
    }

    #[test]
    fn the_bad_rows_are_those_that_the_description_lists() {
        let mut faults = BTreeMap::new();
        for why in records().unwrap().iter().filter_map(|record| record.check().err()) {
            let kind = ["but the repair", "not on the scale", "in flight", "taxis"]
                .into_iter()
                .find(|kind| why.contains(kind))
                .unwrap_or("something else");
            *faults.entry(kind).or_insert(0) += 1;
        }
        let expected = [("but the repair", 27), ("not on the scale", 15), ("in flight", 8), ("taxis", 1)];
        assert_eq!(faults, BTreeMap::from(expected));
    }
}
