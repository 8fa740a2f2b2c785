//! Fields of a JSON object, taken out one by one.
//!
//! Invariant: whatever is wrong with an object is said at once, what nobody
//! takes out of it included.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

pub(super) struct Fields<'a> {
    /// Where the object is, for people.
    place: String,
    object: &'a Map<String, Value>,
    taken: BTreeSet<&'static str>,
    complaints: Vec<String>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(place: String, object: &'a Map<String, Value>) -> Self {
        Self { place, object, taken: BTreeSet::new(), complaints: Vec::new() }
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.insert(name);
        self.object.get(name)
    }

    pub(super) fn complain(&mut self, message: impl std::fmt::Display) {
        self.complaints.push(format!("{}: {message}", self.place));
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let value = self.take(name)?;
        let text = value.as_str();
        if text.is_none() {
            self.complain(format!("{name} must be a text, is {value}"));
        }
        text
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.complain(format!("{name} must be true or false, is {value}"));
        }
        flag
    }

    /// A whole number from 0 to `most`.
    pub(super) fn whole(&mut self, name: &'static str, most: i64) -> Option<i64> {
        let value = self.take(name)?;
        let number = value.as_i64().filter(|number| (0..=most).contains(number));
        if number.is_none() {
            self.complain(format!("{name} must be a whole number from 0 to {most}, is {value}"));
        }
        number
    }

    /// Days since 1970 of a date such as 2026-11-23.
    pub(super) fn day(&mut self, name: &'static str) -> Option<i64> {
        let text = self.text(name)?;
        let day = day(text);
        if day.is_none() {
            self.complain(format!("{name} must be a day such as 2026-11-23, is {text:?}"));
        }
        day
    }

    pub(super) fn object(&mut self, name: &'static str) -> Option<Fields<'a>> {
        let value = self.take(name)?;
        let object = value.as_object();
        if object.is_none() {
            self.complain(format!("{name} must be an object"));
        }
        Some(Fields::new(format!("{}: {name}", self.place), object?))
    }

    pub(super) fn objects(&mut self, name: &'static str) -> Option<Vec<Fields<'a>>> {
        let value = self.take(name)?;
        let list: Option<Vec<_>> =
            value.as_array().map(|list| list.iter().map(Value::as_object).collect())?;
        if list.is_none() {
            self.complain(format!("{name} must be a list of objects"));
        }
        let object = |(at, object)| Fields::new(format!("{}: {name}[{at}]", self.place), object);
        Some(list?.into_iter().enumerate().map(object).collect())
    }

    /// What was wrong, in this object and in the `inner` ones.
    pub(super) fn finish(mut self, complaints: &mut Vec<String>) {
        for name in self.object.keys().filter(|name| !self.taken.contains(name.as_str())) {
            self.complaints.push(format!("{}: {name:?} is no key of this table", self.place));
        }
        complaints.append(&mut self.complaints);
    }
}

/// Days since 1970 of `2026-11-23`.
pub(super) fn day(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let mut part = |length: usize| {
        let part = parts.next().filter(|part| part.len() == length)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
        part.parse::<i64>().ok()
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Howard Hinnant's count of days: years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let leaps = year / 4 - year / 100 + year / 400;
    Some(year * 365 + leaps + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::day;

    #[test]
    fn days_are_counted_from_1970() {
        for (text, count) in [
            ("1970-01-01", 0),
            ("1970-12-31", 364),
            ("2000-03-01", 11_017),
            ("2024-02-29", 19_782),
            ("2026-11-23", 20_780),
        ] {
            assert_eq!(day(text), Some(count), "{text}");
        }
        for text in ["2026-13-01", "2026-1-1", "2026-11", "26-11-23", "2026-11-2x", "0001-01-01"] {
            assert_eq!(day(text), None, "{text}");
        }
    }
}
