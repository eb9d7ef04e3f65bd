//! Expressions that pick a value out of a JSON text: `.user.id`, `.items[0]`, `."odd name"`, `.region?`.
//!
//! Pure. Only what the path passes is looked into, and a number comes out digit by digit as it was written, however large.

use serde_json::value::RawValue;
use std::{collections::HashMap, fmt, str::FromStr};

/// A path into a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    text: String,
    steps: Vec<Step>,
    optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pick {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |at: usize| {
            format!(
                "expression {text:?} cannot be read at byte {at}; it looks like .user.id, .items[0], .\"odd name\" or .region?"
            )
        };
        let (path, optional) = text.strip_suffix('?').map_or((text, false), |path| (path, true));
        let mut steps = Vec::new();
        let mut rest = path;
        while !rest.is_empty() {
            let at = path.len() - rest.len();
            let (step, after) = step(rest).ok_or_else(|| wrong(at))?;
            steps.push(step);
            rest = after;
        }
        if steps.is_empty() {
            return Err(wrong(0));
        }
        Ok(Self { text: text.to_owned(), steps, optional })
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        return Some((Step::Index(index.parse().ok()?), rest));
    }
    let rest = text.strip_prefix('.')?;
    if rest.starts_with('"') {
        let mut names = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let name = names.next()?.ok()?;
        return Some((Step::Name(name), &rest[names.byte_offset()..]));
    }
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    (!name.is_empty() && !name.contains(['"', ']', ' '])).then(|| (Step::Name(name.to_owned()), rest))
}

impl Pick {
    /// The value at the path: a string's content, the text of a number, `true`, `false`, or of a list or object. `None`: it is not there
    /// or null, and the expression ends in `?`.
    ///
    /// # Errors
    /// Why there is no value.
    pub(crate) fn of(&self, json: &RawValue) -> Result<Option<String>, String> {
        let absent = || match self.optional {
            true => Ok(None),
            false => {
                Err(format!("there is nothing at {self}; end the expression in ? where it may be missing"))
            }
        };
        let mut here = json;
        for step in &self.steps {
            let next = match step {
                Step::Name(name) if here.get().starts_with('{') => {
                    let fields: HashMap<String, &RawValue> = parse(here)?;
                    fields.get(name).copied()
                }
                Step::Index(index) if here.get().starts_with('[') => {
                    let items: Vec<&RawValue> = parse(here)?;
                    items.get(*index).copied()
                }
                _ => None,
            };
            let Some(next) = next else {
                return absent();
            };
            here = next;
        }
        match here.get() {
            "null" => absent(),
            text if text.starts_with('"') => parse(here).map(Some),
            text => Ok(Some(text.to_owned())),
        }
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(json: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(json.get()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(expression: &str, json: &str) -> Result<Option<String>, String> {
        expression.parse::<Pick>()?.of(&RawValue::from_string(json.to_owned()).map_err(|e| e.to_string())?)
    }

    #[test]
    fn values_come_out_as_they_were_written() {
        let json =
            r#"{"user":{"id":12345678901234567890123,"näme":"a\"b"},"items":[1,{"x":null}],"odd name":true}"#;
        for (expression, value) in [
            (".user.id", Some("12345678901234567890123")),
            (".user.näme", Some("a\"b")),
            (".items[0]", Some("1")),
            (".items[1]", Some("{\"x\":null}")),
            (".items[1].x?", None),
            (".items[7]?", None),
            (".user.id.deeper?", None),
            (".\"odd name\"", Some("true")),
        ] {
            assert_eq!(pick(expression, json), Ok(value.map(str::to_owned)), "{expression}");
        }
        for missing in [".nothing", ".items[1].x", ".user[0]", ".items.x"] {
            assert!(pick(missing, json).unwrap_err().contains(missing), "{missing}");
        }
    }

    #[test]
    fn an_expression_that_cannot_be_read_says_where() {
        for bad in ["", "?", "user", ".", ".a..b", ".a[", ".a[x]", ".a[-1]", ".\"a", ".a b", "[]"] {
            assert!(bad.parse::<Pick>().unwrap_err().contains("cannot be read"), "{bad}");
        }
        assert_eq!("[0].a".parse::<Pick>().unwrap().to_string(), "[0].a");
    }
}
