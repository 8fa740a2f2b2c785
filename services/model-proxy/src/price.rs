//! Which price a model has on which day, and what is known of its limits.
//!
//! The table is `prices.json`, made by `scripts/prices.py`; a file of one's own
//! in the same shape (`SKEIN_PRICES__FILE`) changes and extends it.
//!
//! Invariants:
//! - A price that is not in the table is unknown, and unknown is never zero.
//! - A dated release (`…-2024-07-18`, `…-20240718`) has the price of the model
//!   it is a release of; no other name is taken for another.
//! - A call is priced as of its own day; before the first day of a table that
//!   only knows today, today's price holds.
//! - Models that run here cost nothing, and that is known.

mod fields;
mod file;

pub use file::MODES;

use crate::config::Patience;
use mesh::price;
use skein_proto::model::v1::{Capability, Cost, Price, Usage};
use std::collections::BTreeMap;

/// What is known of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub mode: &'static str,
    pub context_window: i64,
    pub max_output: i64,
    pub dimensions: i32,
    pub tools: bool,
    pub vision: bool,
    pub json_schema: bool,
    pub reasoning: bool,
    /// Days since 1970 on which the provider says it ends.
    pub retires: Option<i64>,
    /// Timers that the operator's file gives it.
    pub patience: Patience,
    /// From which day (since 1970), oldest first.
    rows: Vec<(i64, Price)>,
}

#[derive(Clone, Debug)]
pub struct Prices(BTreeMap<String, Listed>);

impl Prices {
    /// Errors are complaints about the file, all of them.
    pub fn built_in() -> Result<Self, Vec<String>> {
        let mut table = Self(BTreeMap::new());
        for entry in file::read(include_str!("prices.json"))? {
            entry.put(&mut table.0);
        }
        Ok(table)
    }

    /// The same with a file's models in it.
    pub fn with(mut self, text: &str) -> Result<Self, Vec<String>> {
        let mut complaints = Vec::new();
        for entry in file::read(text)? {
            complaints.extend(entry.doubts(&self));
            entry.put(&mut self.0);
        }
        if complaints.is_empty() { Ok(self) } else { Err(complaints) }
    }

    pub fn find(&self, model: &str) -> Option<&Listed> {
        self.entry(model).map(|(_, listed)| listed)
    }

    /// The name that a model has in the table.
    pub fn name(&self, model: &str) -> Option<&str> {
        self.entry(model).map(|(name, _)| name)
    }

    /// The names of a provider's models.
    pub fn of<'a>(&'a self, provider: &str) -> impl Iterator<Item = &'a str> {
        let is = move |name: &&str| name.split_once('/').is_some_and(|(of, _)| of == provider);
        self.0.keys().map(String::as_str).filter(is)
    }

    /// `at` is in seconds since 1970.
    pub fn price(&self, model: &str, at: i64) -> Option<&Price> {
        self.find(model)?.price(at)
    }

    /// What a usage of `model` cost at that time.
    pub fn cost(&self, model: &str, usage: &Usage, at: i64) -> Cost {
        if model.starts_with("local/") {
            return Cost { nano_usd: Some(0) };
        }
        let price = self.price(model, at);
        Cost { nano_usd: price.and_then(|price| price::cost(price, usage)) }
    }

    fn entry(&self, model: &str) -> Option<(&str, &Listed)> {
        let found = |name: &str| self.0.get_key_value(name);
        let (name, listed) = found(model).or_else(|| found(without_date(model)?))?;
        Some((name.as_str(), listed))
    }
}

impl Listed {
    fn new() -> Self {
        Self {
            mode: MODES[0],
            context_window: 0,
            max_output: 0,
            dimensions: 0,
            tools: false,
            vision: false,
            json_schema: false,
            reasoning: false,
            retires: None,
            patience: Patience::default(),
            rows: Vec::new(),
        }
    }

    /// `at` is in seconds since 1970.
    pub fn price(&self, at: i64) -> Option<&Price> {
        let day = at.div_euclid(86_400);
        let begun = self.rows.iter().rev().find(|(from, _)| *from <= day);
        begun.or_else(|| self.rows.first()).map(|(_, price)| price)
    }

    pub fn capabilities(&self) -> Vec<i32> {
        [
            (self.mode == "chat", Capability::Chat),
            (self.mode == "embedding", Capability::Embed),
            (self.mode == "image", Capability::Image),
            (self.mode == "rerank", Capability::Rerank),
            (self.tools, Capability::Tools),
            (self.json_schema, Capability::JsonSchema),
            (self.vision, Capability::ImageInput),
        ]
        .into_iter()
        .filter_map(|(has, capability)| has.then_some(capability.into()))
        .collect()
    }
}

/// `gpt-4o-2024-08-06` and `claude-haiku-4-5-20251001` without their days.
fn without_date(model: &str) -> Option<&str> {
    let end = |length: usize| model.split_at_checked(model.len().checked_sub(length)?);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let dashed = || {
        let (name, date) = end(11)?;
        fields::day(date.strip_prefix('-')?).map(|_| name)
    };
    let plain = || {
        let (name, date) = end(9)?;
        let date = date.strip_prefix('-').filter(|date| digits(date))?;
        let (year, rest) = date.split_at(4);
        let (month, day) = rest.split_at(2);
        fields::day(&format!("{year}-{month}-{day}")).map(|_| name)
    };
    dashed().or_else(plain)
}

#[cfg(test)]
#[path = "price/tests.rs"]
mod tests;
