//! Reads a TOML document key by key, and collects its errors instead of stopping at the first.
//!
//! Invariant: when a table is closed, every key that was not read is an error. So the code that
//! reads a table is the only list of its keys. A key that was renamed is an error that names the
//! new one.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;
use super::wording::{quoted, unknown};
use crate::quantity::{DURATION_FORM, format_duration, parse_duration};

/// Keys that were renamed: the old name and the new one.
const RENAMED: [(&str, &str); 2] = [
    ("patience", "max_staleness"),
    ("blind_ttl", "disconnected_ttl"),
];

/// A table of the file, or the place of a table that the file does not have.
pub(super) struct Table<'a> {
    pub(super) report: &'a Report,
    path: String,
    at: usize,
    entries: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

/// A value of the file, and its place there.
#[derive(Clone)]
pub(super) struct Setting<'a> {
    report: &'a Report,
    path: String,
    at: usize,
    value: &'a DeValue<'a>,
}

/// A value by its kind.
pub(super) enum Shape<'a> {
    Text(&'a str),
    Boolean(bool),
    /// Its digits with their sign, and their base.
    Integer(&'a str, u32),
    Float(&'a str),
    Datetime,
    Array(Vec<Setting<'a>>),
    Table(Table<'a>),
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
    pub(super) fn get(&self, key: &'static str) -> Option<Setting<'a>> {
        self.asked.borrow_mut().push(key);
        let (name, value) = self.entries?.get_key_value(key)?;
        Some(self.value(name, value))
    }

    fn value(&self, name: &Spanned<Cow<'_, str>>, value: &'a Spanned<DeValue<'a>>) -> Setting<'a> {
        let at = match value.get_ref() {
            // A table's span is that of its last addition. Its key stands at its first mention.
            DeValue::Table(_) => name.span().start,
            _ => value.span().start,
        };
        Setting {
            report: self.report,
            path: self.path_of(name.get_ref()),
            at,
            value: value.get_ref(),
        }
    }

    /// Like [`Table::get`]. Reports an error if the key is missing.
    pub(super) fn need(&self, key: &'static str, valid: impl Display) -> Option<Setting<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.fault_of(key, "is missing", valid);
        }
        value
    }

    /// The table `key`, or an empty one if it is missing.
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

    /// All entries in the order of the file, for a table whose keys are the operator's names.
    pub(super) fn entries(&self) -> Vec<(&'a str, Setting<'a>)> {
        let mut entries: Vec<_> = self.entries.into_iter().flatten().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries
            .into_iter()
            .map(|(name, value)| (name.get_ref().as_ref(), self.value(name, value)))
            .collect()
    }

    /// Reports an error of the table itself.
    pub(super) fn fault(&self, problem: impl Display, valid: impl Display) {
        self.report.fault(self.at, &self.path, problem, valid);
    }

    /// Reports an error of the missing `key`, at the table's place.
    pub(super) fn fault_of(&self, key: &str, problem: impl Display, valid: impl Display) {
        self.report
            .fault(self.at, &self.path_of(key), problem, valid);
    }

    /// Reports every key that was not read.
    pub(super) fn close(self) {
        let mut known = self.asked.borrow().clone();
        known.sort_unstable();
        known.dedup();
        for (name, _) in self.entries.into_iter().flatten() {
            if self.report.is_full() {
                break;
            }
            let key = name.get_ref().as_ref();
            if known.contains(&key) {
                continue;
            }
            let (at, path) = (name.span().start, self.path_of(key));
            let renamed = RENAMED.iter().find(|(old, _)| *old == key);
            match renamed.filter(|(_, new)| known.contains(new)) {
                Some((_, new)) => {
                    let problem = format!("was renamed to {new}");
                    self.report.fault(at, &path, problem, self.path_of(new));
                }
                None => {
                    let problem = unknown("key", key, &known);
                    self.report.fault(at, &path, problem, known.join(", "));
                }
            }
        }
    }

    /// The duration at `key`. `default` if it is missing or not valid.
    pub(super) fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.get(key)
            .and_then(|value| value.duration())
            .unwrap_or(default)
    }

    /// The duration at `key`, if there is one. Zero is an error.
    pub(super) fn positive_duration(&self, key: &'static str) -> Option<Duration> {
        self.get(key)?
            .duration_within(Duration::from_millis(1)..=Duration::MAX)
    }

    /// The boolean at `key`. `default` if it is missing or not valid.
    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        self.get(key)
            .and_then(|value| value.boolean())
            .unwrap_or(default)
    }

    /// The whole number at `key`. `default` if it is missing or not in `range`.
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

impl<'a> Setting<'a> {
    /// The line that it is in.
    pub(super) fn line(&self) -> usize {
        self.report.line(self.at)
    }

    /// Reports an error of this value.
    pub(super) fn fault(&self, problem: impl Display, valid: impl Display) {
        self.report.fault(self.at, &self.path, problem, valid);
    }

    /// The value as the file has it, cut if it is long.
    pub(super) fn quoted(&self) -> String {
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

    /// Reports that the value is not valid.
    pub(super) fn wrong(&self, valid: impl Display) {
        self.fault(format!("is {}", self.quoted()), valid);
    }

    /// The value by its kind. Reports an error if an array is too long.
    pub(super) fn shape(&self) -> Option<Shape<'a>> {
        Some(match self.value {
            DeValue::String(text) => Shape::Text(text),
            DeValue::Boolean(boolean) => Shape::Boolean(*boolean),
            DeValue::Integer(number) => Shape::Integer(number.as_str(), number.radix()),
            DeValue::Float(number) => Shape::Float(number.as_str()),
            DeValue::Datetime(_) => Shape::Datetime,
            DeValue::Array(_) => Shape::Array(self.list("an array")?),
            DeValue::Table(_) => Shape::Table(self.table()?),
        })
    }

    /// The text. Reports an error if it is not one.
    pub(super) fn text(&self, valid: impl Display) -> Option<&'a str> {
        self.parse(valid, Some)
    }

    /// What `parse` makes of the text. Reports an error if it is not a text, or `parse` fails.
    pub(super) fn parse<T>(
        &self,
        valid: impl Display,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        self.or_wrong(self.as_text().and_then(parse), valid)
    }

    /// What was read of this value. Reports that the value is not valid if that is nothing.
    pub(super) fn or_wrong<T>(&self, read: Option<T>, valid: impl Display) -> Option<T> {
        if read.is_none() {
            self.wrong(valid);
        }
        read
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        self.parse(DURATION_FORM, parse_duration)
    }

    /// A duration in `range`. [`Duration::MAX`] as its end means no limit.
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
        self.or_wrong(self.as_boolean(), "true or false")
    }

    /// The whole number, if it is one.
    pub(super) fn as_integer(&self) -> Option<i64> {
        match self.value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub(super) fn as_boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number from 0 to 1.
    pub(super) fn share(&self) -> Option<f64> {
        let number = match self.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => self.as_integer().map(|number| number as f64),
        };
        let share = number.filter(|number| (0.0..=1.0).contains(number));
        if share.is_none() {
            self.wrong("a number from 0 to 1, such as 0.001");
        }
        share
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let number = self.as_integer().filter(|number| range.contains(number));
        let valid = match (*range.start(), *range.end()) {
            (i64::MIN, i64::MAX) => "a whole number".to_owned(),
            (least, i64::MAX) => format!("a whole number of at least {least}"),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        self.or_wrong(number, valid)
    }

    /// The items of an array. Their number is limited, because some callers compare each item with
    /// all others.
    pub(super) fn list(&self, valid: impl Display) -> Option<Vec<Setting<'a>>> {
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
        let item = |item: &'a Spanned<DeValue<'a>>| Setting {
            report: self.report,
            path: self.path.clone(),
            at: item.span().start,
            value: item.get_ref(),
        };
        Some(items.iter().map(item).collect())
    }

    /// Like [`Setting::list`], for an array that must not be empty.
    pub(super) fn nonempty_list(&self, valid: &str) -> Option<Vec<Setting<'a>>> {
        let items = self.list(valid)?;
        if items.is_empty() {
            self.fault("is empty", valid);
            return None;
        }
        Some(items)
    }

    /// The value of `key`, for a table that was closed before.
    pub(super) fn inner(&self, key: &'static str) -> Option<Setting<'a>> {
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
