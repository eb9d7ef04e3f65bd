//! One report of the data set: as it was written, and as it is understood.
//!
//! Pure. A [`Record`] is what travels on the bus, field by field as the file has it; [`Record::check`] turns it into a [`Strike`] or
//! says in words what is wrong with it. What is wrong with which rows is listed in `cli/data/SOURCE.md`.
//! Not here: reading the file (`source.rs`), computing with it (`totals.rs`).

use serde::{Deserialize, Serialize};

/// A report as it was written. The aliases are the column names of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(alias = "Airport Name")]
    pub(crate) airport: String,
    #[serde(alias = "Aircraft Make Model")]
    pub(crate) aircraft: String,
    #[serde(alias = "Effect Amount of damage")]
    pub(crate) damage: String,
    #[serde(alias = "Flight Date")]
    pub(crate) date: String,
    #[serde(alias = "Aircraft Airline Operator")]
    pub(crate) operator: String,
    #[serde(alias = "Origin State")]
    pub(crate) state: String,
    #[serde(alias = "Phase of flight")]
    pub(crate) phase: String,
    #[serde(alias = "Wildlife Size")]
    pub(crate) size: String,
    #[serde(alias = "Wildlife Species")]
    pub(crate) species: String,
    #[serde(alias = "Time of day")]
    pub(crate) time_of_day: String,
    #[serde(alias = "Cost Other")]
    pub(crate) cost_other: String,
    #[serde(alias = "Cost Repair")]
    pub(crate) cost_repair: String,
    #[serde(alias = "Cost Total $")]
    pub(crate) cost_total: String,
    #[serde(alias = "Speed IAS in knots")]
    pub(crate) speed: String,
}

/// A report on the bus: the record and its number in the order of publishing, from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reported {
    pub(crate) number: u64,
    #[serde(flatten)]
    pub(crate) record: Record,
}

/// What a good report says, as far as the totals need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) airport: String,
    /// Days since 1970-01-01.
    pub(crate) day: i32,
    pub(crate) damaging: bool,
    /// US dollars.
    pub(crate) cost: u64,
}

const SCALE: [&str; 4] = ["None", "Minor", "Medium", "Substantial"];
const IN_FLIGHT: [&str; 3] = ["Climb", "Approach", "Descent"];
const ON_THE_GROUND: [&str; 4] = ["Take-off run", "Landing Roll", "Taxi", "Parked"];
/// No aircraft taxis faster, in knots.
const FASTEST_TAXI: u32 = 60;

impl Record {
    /// What it says, or what is wrong with it, in words for whoever looks at the dead letter.
    pub(crate) fn check(&self) -> Result<Strike, String> {
        if self.airport.is_empty() {
            return Err("the airport is missing".to_owned());
        }
        let Some(day) = day(&self.date) else {
            return Err(format!("the flight date {:?} is not a date such as 1990-01-08", self.date));
        };
        if !SCALE.contains(&self.damage.as_str()) {
            return Err(format!("the damage {:?} is not on the scale {}", self.damage, SCALE.join(", ")));
        }
        let repair = dollars("repair cost", &self.cost_repair)?;
        let other = dollars("other cost", &self.cost_other)?;
        let total = dollars("total cost", &self.cost_total)?;
        if repair.checked_add(other) != Some(total) {
            return Err(format!("the total cost ${total} is not repair ${repair} plus other ${other}"));
        }
        if self.damage == "None" && repair > 0 {
            return Err(format!("the damage is None, but the repair cost ${repair}"));
        }
        self.check_speed()?;
        Ok(Strike { airport: self.airport.clone(), day, damaging: self.damage != "None", cost: total })
    }

    /// Many reports have no speed; one that is there must fit the phase of the flight.
    fn check_speed(&self) -> Result<(), String> {
        let phase = self.phase.as_str();
        let in_flight = IN_FLIGHT.contains(&phase);
        if !in_flight && !ON_THE_GROUND.contains(&phase) {
            return Err(format!("{phase:?} is not a phase of flight"));
        }
        if self.speed.is_empty() {
            return Ok(());
        }
        let Ok(knots) = self.speed.parse::<u32>() else {
            return Err(format!("the speed {:?} is not a number of knots", self.speed));
        };
        match phase {
            _ if in_flight && knots == 0 => {
                Err(format!("an aircraft in flight ({}) cannot be at 0 knots", phase.to_lowercase()))
            }
            "Taxi" if knots > FASTEST_TAXI => Err(format!("no aircraft taxis at {knots} knots")),
            _ => Ok(()),
        }
    }
}

fn dollars(what: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("the {what} {text:?} is not a whole number of dollars"))
}

/// The days from 1970-01-01 to a date `YYYY-MM-DD`; `None` where it is none.
fn day(date: &str) -> Option<i32> {
    let mut parts = date.splitn(3, '-');
    let mut part = |digits: usize| -> Option<i32> {
        let text = parts.next()?;
        let fits = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| text.parse().ok()).flatten()
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if day < 1 || day > length {
        return None;
    }
    let months: i32 = lengths.iter().take(usize::try_from(month).ok()? - 1).sum();
    let before = year - 1;
    let since_year_1 = before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    const DAYS_TO_1970: i32 = 719_162;
    Some(since_year_1 - DAYS_TO_1970 + months + day - 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn good() -> Record {
        let text = |text: &str| text.to_owned();
        Record {
            airport: text("NASHVILLE INTL"),
            aircraft: text("MD-80"),
            damage: text("Minor"),
            date: text("1996-02-29"),
            operator: text("AMERICAN AIRLINES"),
            state: text("Tennessee"),
            phase: text("Climb"),
            size: text("Small"),
            species: text("Killdeer"),
            time_of_day: text("Day"),
            cost_other: text("20"),
            cost_repair: text("100"),
            cost_total: text("120"),
            speed: text("140"),
        }
    }

    fn why(change: impl FnOnce(&mut Record)) -> String {
        let mut record = good();
        change(&mut record);
        record.check().unwrap_err()
    }

    #[test]
    fn a_good_report_is_understood() {
        let strike = good().check().unwrap();
        assert_eq!(strike, Strike { airport: "NASHVILLE INTL".into(), day: 9555, damaging: true, cost: 120 });
        let unknown_speed = Record { speed: String::new(), ..good() };
        unknown_speed.check().unwrap();
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        assert_eq!(
            why(|r| r.damage = "C".into()),
            "the damage \"C\" is not on the scale None, Minor, Medium, Substantial"
        );
        assert_eq!(why(|r| r.damage = "None".into()), "the damage is None, but the repair cost $100");
        assert_eq!(why(|r| r.speed = "0".into()), "an aircraft in flight (climb) cannot be at 0 knots");
        let taxi = |r: &mut Record| (r.phase, r.speed) = ("Taxi".into(), "130".into());
        assert_eq!(why(taxi), "no aircraft taxis at 130 knots");
        assert!(why(|r| r.cost_total = "121".into()).contains("is not repair $100 plus other $20"));
        assert!(why(|r| r.cost_repair = "-1".into()).contains("repair cost \"-1\""));
        assert!(why(|r| r.phase = "Hover".into()).contains("phase of flight"));
        assert!(why(|r| r.speed = "fast".into()).contains("knots"));
        assert!(why(|r| r.airport = String::new()).contains("airport"));
        assert!(why(|r| r.date = "1997-02-29".into()).contains("1997-02-29"));
    }

    #[test]
    fn dates_count_days_from_1970() {
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("1969-12-31"), Some(-1));
        assert_eq!(day("2000-03-01"), Some(11_017));
        assert_eq!(day("1990-01-08").zip(day("1990-01-09")).map(|(a, b)| b - a), Some(1));
        for bad in
            ["", "1990", "1990-1-8", "1990-13-01", "1990-00-10", "1990-04-31", "1900-02-29", "+990-01-01"]
        {
            assert_eq!(day(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_report_round_trips_as_json_with_its_number() {
        let reported = Reported { number: 7, record: good() };
        let json = serde_json::to_string(&reported).unwrap();
        assert!(json.starts_with("{\"number\":7,\"airport\":\"NASHVILLE INTL\""), "{json}");
        assert_eq!(serde_json::from_str::<Reported>(&json).unwrap(), reported);
    }
}
