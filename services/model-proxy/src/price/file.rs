//! A price file: a list of models, each with what the file says of it.
//!
//! Invariants:
//! - A key that nobody knows is an error, and so is a price that is negative,
//!   absurd, or tenfold away from the one that is built in and not confirmed.
//! - A tier names every price that it changes, and none gets cheaper by it.

use super::{Listed, Prices, fields::Fields};
use crate::config::Patience;
use mesh::config::Time;
use serde_json::Value;
use skein_proto::model::v1::{Price, PriceTier};
use std::collections::{BTreeMap, BTreeSet};

/// What a model is for; the first is meant where an entry says nothing.
pub const MODES: [&str; 7] =
    ["chat", "embedding", "image", "rerank", "transcription", "speech", "moderation"];

/// $10,000 for a million tokens: nothing costs so much.
const MOST: i64 = 10_000_000_000_000;
const MOST_TOKENS: i64 = 1_000_000_000;
/// A price that differs so many times from the one known is a slip of the pen.
const JUMP: i64 = 10;

/// What a file says of one model; what it is silent about stays as it was.
pub(super) struct Entry {
    id: String,
    mode: Option<&'static str>,
    context_window: Option<i64>,
    max_output: Option<i64>,
    dimensions: Option<i64>,
    /// Tools, vision, JSON schemas, reasoning.
    flags: [Option<bool>; 4],
    retires: Option<i64>,
    patience: Patience,
    rows: Option<Vec<(i64, Price)>>,
    /// Somebody has looked at the prices and they are right.
    confirmed: bool,
}

pub(super) fn read(text: &str) -> Result<Vec<Entry>, Vec<String>> {
    let list: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| vec![format!("must be a JSON list of models: {error}")])?;
    let (mut complaints, mut seen) = (Vec::new(), BTreeSet::new());
    let entries = list.iter().enumerate().filter_map(|(at, value)| {
        let Some(object) = value.as_object() else {
            complaints.push(format!("[{at}] must be an object"));
            return None;
        };
        let place = object.get("id").and_then(Value::as_str);
        let mut fields =
            Fields::new(place.map_or_else(|| format!("[{at}]"), str::to_owned), object);
        if !seen.insert(place) {
            fields.complain("is there twice");
        }
        Some(entry(fields, &mut complaints))
    });
    let entries: Vec<_> = entries.collect();
    if complaints.is_empty() { Ok(entries) } else { Err(complaints) }
}

fn entry(mut fields: Fields<'_>, complaints: &mut Vec<String>) -> Entry {
    let id = fields.text("id").unwrap_or_default().to_owned();
    let named =
        id.split_once('/').is_some_and(|(provider, id)| !provider.is_empty() && !id.is_empty());
    if !named {
        fields.complain("id must be <provider>/<model>");
    }
    let mode = fields.text("mode");
    let known = mode.and_then(|mode| MODES.into_iter().find(|known| *known == mode));
    if mode.is_some() && known.is_none() {
        fields.complain(format!("mode must be one of {}", MODES.join(", ")));
    }
    let flags = ["tools", "vision", "json_schema", "reasoning"].map(|name| fields.flag(name));
    let timers = fields.object("timers").map(|inner| patience(inner, complaints));
    let rows = fields.objects("prices");
    if rows.as_ref().is_some_and(Vec::is_empty) {
        fields.complain("prices must hold at least one row");
    }
    let entry = Entry {
        id,
        mode: known,
        context_window: fields.whole("context_window", MOST_TOKENS),
        max_output: fields.whole("max_output", MOST_TOKENS),
        dimensions: fields.whole("dimensions", 65_536),
        flags,
        retires: fields.day("retires"),
        patience: timers.unwrap_or_default(),
        confirmed: fields.flag("confirmed").unwrap_or_default(),
        rows: rows.map(|rows| {
            let mut rows: Vec<_> = rows.into_iter().map(|inner| row(inner, complaints)).collect();
            rows.sort_by_key(|(from, _)| *from);
            rows
        }),
    };
    fields.finish(complaints);
    entry
}

fn patience(mut fields: Fields<'_>, complaints: &mut Vec<String>) -> Patience {
    let mut time = |name| {
        let text = fields.text(name)?;
        let time = text.parse::<Time>();
        if let Err(error) = &time {
            fields.complain(format!("{name} is {text:?}: {error}"));
        }
        time.ok().map(|time| time.0)
    };
    let found =
        Patience { first_token: time("first_token"), idle: time("idle"), total: time("total") };
    fields.finish(complaints);
    found
}

/// From which day on, and what.
fn row(mut fields: Fields<'_>, complaints: &mut Vec<String>) -> (i64, Price) {
    let from = fields.day("from").unwrap_or_default();
    let base = rates(&mut fields);
    let mut tiers = Vec::new();
    for mut inner in fields.objects("tiers").unwrap_or_default() {
        let above = inner.whole("above", MOST_TOKENS);
        let price = rates(&mut inner);
        if above.is_none() {
            inner.complain("above must say how many tokens of input it begins at");
        }
        for ((name, below), (_, here)) in each(&base).into_iter().zip(each(&price)) {
            if below.is_some() && here.is_none() {
                inner.complain(format!("{name} is missing"));
            } else if below > here {
                inner.complain(format!("{name} must not be cheaper than without the tier"));
            }
        }
        inner.finish(complaints);
        tiers.push(PriceTier { above: above.unwrap_or_default(), price: Some(price) });
    }
    fields.finish(complaints);
    (from, Price { tiers, ..base })
}

fn rates(fields: &mut Fields<'_>) -> Price {
    let mut rate = |name| fields.whole(name, MOST);
    Price {
        input: rate("input"),
        output: rate("output"),
        cache_read: rate("cache_read"),
        cache_write: rate("cache_write"),
        cache_write_hour: rate("cache_write_hour"),
        reasoning: rate("reasoning"),
        input_audio: rate("input_audio"),
        output_audio: rate("output_audio"),
        input_image: rate("input_image"),
        output_image: rate("output_image"),
        per_image: rate("per_image"),
        per_query: rate("per_query"),
        per_second: rate("per_second"),
        tiers: Vec::new(),
    }
}

/// Every price there is, by its key.
fn each(price: &Price) -> [(&'static str, Option<i64>); 13] {
    [
        ("input", price.input),
        ("output", price.output),
        ("cache_read", price.cache_read),
        ("cache_write", price.cache_write),
        ("cache_write_hour", price.cache_write_hour),
        ("reasoning", price.reasoning),
        ("input_audio", price.input_audio),
        ("output_audio", price.output_audio),
        ("input_image", price.input_image),
        ("output_image", price.output_image),
        ("per_image", price.per_image),
        ("per_query", price.per_query),
        ("per_second", price.per_second),
    ]
}

impl Entry {
    /// What looks like a slip, against the table as it is.
    pub(super) fn doubts(&self, table: &Prices) -> Vec<String> {
        let known = table.find(&self.id).and_then(|listed| listed.rows.last());
        let (Some((_, known)), false) = (known, self.confirmed) else { return Vec::new() };
        let rows = self.rows.iter().flatten();
        let pairs = rows.flat_map(|(_, row)| each(row).into_iter().zip(each(known)));
        let far = pairs.filter_map(|((name, new), (_, old))| {
            let (new, old) = (new?, old?);
            (new != old && new.max(old) / JUMP >= new.min(old)).then(|| {
                format!(
                    "{}: {name} is {new} and {old} is built in, tenfold or more apart: \
                     correct it, or say \"confirmed\": true",
                    self.id
                )
            })
        });
        far.collect()
    }

    pub(super) fn put(self, table: &mut BTreeMap<String, Listed>) {
        let listed = table.entry(self.id).or_insert_with(Listed::new);
        let [tools, vision, json_schema, reasoning] = self.flags;
        listed.mode = self.mode.unwrap_or(listed.mode);
        listed.context_window = self.context_window.unwrap_or(listed.context_window);
        listed.max_output = self.max_output.unwrap_or(listed.max_output);
        let dimensions = self.dimensions.and_then(|count| i32::try_from(count).ok());
        listed.dimensions = dimensions.unwrap_or(listed.dimensions);
        listed.tools = tools.unwrap_or(listed.tools);
        listed.vision = vision.unwrap_or(listed.vision);
        listed.json_schema = json_schema.unwrap_or(listed.json_schema);
        listed.reasoning = reasoning.unwrap_or(listed.reasoning);
        listed.retires = self.retires.or(listed.retires);
        listed.patience = self.patience;
        if let Some(rows) = self.rows {
            listed.rows = rows;
        }
    }
}
