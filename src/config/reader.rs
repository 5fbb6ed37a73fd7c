//! Reads a TOML document key by key, and keeps what is wrong with it instead of stopping at the first fault.
//!
//! Invariant: a key that nobody asked for is reported when its table is closed, so what a table understands is written down
//! once: in the code that reads it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;
use crate::quantity::{DURATION_FORM, format_duration, parse_duration};

/// A table, or the place where one could have been.
pub(super) struct Table<'a> {
    pub(super) report: &'a Report,
    path: String,
    at: usize,
    entries: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Value<'a> {
    report: &'a Report,
    path: String,
    at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn root(report: &'a Report, entries: &'a DeTable<'a>) -> Table<'a> {
        Table {
            report,
            path: String::new(),
            at: 0,
            entries: Some(entries),
            asked: RefCell::default(),
        }
    }

    /// The path of `key` in this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        let bare = !key.is_empty()
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if bare {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value of `key`, if there is one.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.entries?.get_key_value(key)?;
        Some(self.value(name, value))
    }

    fn value(&self, name: &Spanned<Cow<'_, str>>, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        let at = match value.get_ref() {
            // A table's own span may be anywhere that something was added to it; its first mention is its key.
            DeValue::Table(_) => name.span().start,
            _ => value.span().start,
        };
        Value {
            report: self.report,
            path: self.path_of(name.get_ref()),
            at,
            value: value.get_ref(),
        }
    }

    /// Like [`Table::get`]; reports that it is missing if there is none.
    pub(super) fn need(&self, key: &'static str, valid: impl Display) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.fault_of(key, "is missing", valid);
        }
        value
    }

    /// The table `key`, an empty one where there is none.
    pub(super) fn table(&self, key: &'static str) -> Table<'a> {
        match self.get(key) {
            Some(value) => value.table().unwrap_or_else(|| self.absent(key)),
            None => self.absent(key),
        }
    }

    fn absent(&self, key: &str) -> Table<'a> {
        Table {
            report: self.report,
            path: self.path_of(key),
            at: self.at,
            entries: None,
            asked: RefCell::default(),
        }
    }

    /// All entries in the order of the file, for a table whose keys are names that the operator chose.
    pub(super) fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let mut entries: Vec<_> = self.entries.into_iter().flatten().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries
            .into_iter()
            .map(|(name, value)| (name.get_ref().as_ref(), self.value(name, value)))
            .collect()
    }

    /// Reports a fault of the table itself.
    pub(super) fn fault(&self, problem: impl Display, valid: impl Display) {
        self.report.fault(self.at, &self.path, problem, valid);
    }

    /// Reports a fault of the missing `key`, at the table's place.
    pub(super) fn fault_of(&self, key: &str, problem: impl Display, valid: impl Display) {
        self.report
            .fault(self.at, &self.path_of(key), problem, valid);
    }

    /// Reports every key that was not asked for.
    pub(super) fn close(self) {
        let mut known = self.asked.borrow().clone();
        known.sort_unstable();
        known.dedup();
        for (name, _) in self.entries.into_iter().flatten() {
            if self.report.is_full() {
                break;
            }
            let key = name.get_ref().as_ref();
            if !known.contains(&key) {
                self.report.fault(
                    name.span().start,
                    &self.path_of(key),
                    unknown("key", key, &known),
                    known.join(", "),
                );
            }
        }
    }

    /// The duration at `key`, `default` where there is none or a wrong one.
    pub(super) fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.get(key)
            .and_then(|value| value.duration())
            .unwrap_or(default)
    }

    /// The duration at `key`, if there is one; it must not be zero.
    pub(super) fn some_time(&self, key: &'static str) -> Option<Duration> {
        self.get(key)?
            .duration_within(Duration::from_millis(1)..=Duration::MAX)
    }

    /// The boolean at `key`, `default` where there is none or a wrong one.
    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        self.get(key)
            .and_then(|value| value.boolean())
            .unwrap_or(default)
    }

    /// The whole number at `key`, `default` where there is none or one that is out of `range`.
    pub(super) fn integer<T: TryFrom<i64>>(
        &self,
        key: &'static str,
        range: RangeInclusive<i64>,
        default: T,
    ) -> T {
        self.get(key)
            .and_then(|value| value.integer(range))
            .and_then(|number| T::try_from(number).ok())
            .unwrap_or(default)
    }
}

impl<'a> Value<'a> {
    /// The line that it is in.
    pub(super) fn line(&self) -> usize {
        self.report.line(self.at)
    }

    /// Reports a fault of this value.
    pub(super) fn fault(&self, problem: impl Display, valid: impl Display) {
        self.report.fault(self.at, &self.path, problem, valid);
    }

    /// The value as a reader of the file knows it, cut where it is long.
    pub(super) fn shown(&self) -> String {
        match self.value {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(date) => date.to_string(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    /// Reports that the value is what it is.
    pub(super) fn wrong(&self, valid: impl Display) {
        self.fault(format!("is {}", self.shown()), valid);
    }

    /// A text.
    pub(super) fn text(&self, valid: impl Display) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong(valid);
                None
            }
        }
    }

    /// A text that `parse` makes something of; `valid` says of what.
    pub(super) fn parse<T>(
        &self,
        valid: impl Display,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let parsed = match self.value {
            DeValue::String(text) => parse(text),
            _ => None,
        };
        if parsed.is_none() {
            self.wrong(valid);
        }
        parsed
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        self.parse(DURATION_FORM, parse_duration)
    }

    /// A duration within `range`, whose end may be [`Duration::MAX`] for none.
    pub(super) fn duration_within(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let found = self.duration()?;
        if range.contains(&found) {
            return Some(found);
        }
        let least = format_duration(*range.start());
        self.wrong(if *range.end() == Duration::MAX {
            format!("{DURATION_FORM}, of at least {least}")
        } else {
            format!(
                "a duration from {least} to {}",
                format_duration(*range.end())
            )
        });
        None
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(boolean) => Some(*boolean),
            _ => {
                self.wrong("true or false");
                None
            }
        }
    }

    /// The whole number that it is, if it is one.
    pub(super) fn as_integer(&self) -> Option<i64> {
        match self.value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }

    /// The boolean that it is, if it is one.
    pub(super) fn as_boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }

    /// The text that it is, if it is one.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let number = self.as_integer().filter(|number| range.contains(number));
        if number.is_none() {
            self.wrong(match (*range.start(), *range.end()) {
                (i64::MIN, i64::MAX) => "a whole number".to_owned(),
                (least, i64::MAX) => format!("a whole number of at least {least}"),
                (least, most) => format!("a whole number from {least} to {most}"),
            });
        }
        number
    }

    /// An array's values. Each is compared with the others by some, so there is a limit to them.
    pub(super) fn list(&self, valid: impl Display) -> Option<Vec<Value<'a>>> {
        const MOST: usize = 10_000;
        let DeValue::Array(items) = self.value else {
            self.wrong(valid);
            return None;
        };
        if items.len() > MOST {
            self.fault(
                format!("has {} entries", items.len()),
                format!("at most {MOST} entries"),
            );
            return None;
        }
        let item = |item: &'a Spanned<DeValue<'a>>| Value {
            report: self.report,
            path: self.path.clone(),
            at: item.span().start,
            value: item.get_ref(),
        };
        Some(items.iter().map(item).collect())
    }

    /// The same for an array that has some.
    pub(super) fn some_list(&self, valid: &str) -> Option<Vec<Value<'a>>> {
        let items = self.list(valid)?;
        if items.is_empty() {
            self.fault("is empty", valid);
            return None;
        }
        Some(items)
    }

    /// A table's value of `key`, for one that was read before and is looked at again.
    pub(super) fn inner(&self, key: &'static str) -> Option<Value<'a>> {
        match self.value {
            DeValue::Table(_) => self.table()?.get(key),
            _ => None,
        }
    }

    pub(super) fn table(&self) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value else {
            self.wrong("a table");
            return None;
        };
        Some(Table {
            report: self.report,
            path: self.path.clone(),
            at: self.at,
            entries: Some(entries),
            asked: RefCell::default(),
        })
    }
}

/// A text in quotes, cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Says that `found` is none of the `known`, and which of them was probably meant.
pub(super) fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    // A suggestion compares letter by letter: for what a person wrote, not for a file of noise.
    const LONGEST: usize = 100;
    const MOST: usize = 1_000;
    let comparable = found.len() <= LONGEST && known.len() <= MOST;
    let near = known
        .iter()
        .filter(|_| comparable)
        .map(|name| (strsim::osa_distance(found, name), name))
        .min()
        .filter(|(distance, name)| {
            *distance <= 2.min(name.len() / 2) + usize::from(name.len() > 8)
        });
    match near {
        Some((_, name)) => format!("is an unknown {what}, did you mean {name:?}?"),
        None => format!("is an unknown {what}"),
    }
}
