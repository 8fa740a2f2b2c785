//! What a call costs, in integer billionths of a US dollar.
//!
//! Invariants:
//! - A price that is not in the table is unknown, and unknown is never zero.
//! - More tokens never cost less, tiers for long contexts included.
//! - Models that run here cost nothing, and that is known.

use serde::Deserialize;
use skein_proto::model::v1::{Capability, Cost, Price, Usage};

/// Tokens that the prices of the table are for.
const PER: i128 = 1_000_000;

/// One model of `prices.json`; amounts are billionths of a US dollar for a
/// million tokens, as published in November 2026.
#[derive(Debug, Deserialize)]
pub struct Listed {
    pub id: String,
    pub mode: String,
    #[serde(flatten)]
    rates: Rates,
    #[serde(default)]
    pub context_window: i64,
    #[serde(default)]
    pub max_output: i64,
    #[serde(default)]
    pub dimensions: i32,
    #[serde(default)]
    tools: bool,
    #[serde(default)]
    vision: bool,
    #[serde(default)]
    json_schema: bool,
    #[serde(default)]
    tiers: Vec<Tier>,
}

#[derive(Debug, Deserialize)]
struct Rates {
    input: i64,
    output: i64,
    cache_read: Option<i64>,
    cache_write: Option<i64>,
}

/// Rates of the whole call once its input is longer than `above` tokens.
#[derive(Debug, Deserialize)]
struct Tier {
    above: i64,
    #[serde(flatten)]
    rates: Rates,
}

pub struct Prices(Vec<Listed>);

impl Prices {
    pub fn known() -> Result<Self, serde_json::Error> {
        serde_json::from_str(include_str!("prices.json")).map(Self)
    }

    /// The entry of a model; a dated release (`…-2024-07-18`) is priced as the
    /// model it is a release of.
    pub fn find(&self, model: &str) -> Option<&Listed> {
        let entry = |id: &str| self.0.iter().find(|listed| listed.id == id);
        entry(model).or_else(|| entry(without_date(model)?))
    }

    pub fn all(&self) -> &[Listed] {
        &self.0
    }

    pub fn cost(&self, model: &str, usage: &Usage) -> Cost {
        if model.starts_with("local/") {
            return Cost { nano_usd: Some(0) };
        }
        Cost { nano_usd: self.find(model).map(|listed| listed.cost(usage)) }
    }
}

impl Listed {
    fn cost(&self, usage: &Usage) -> i64 {
        let input = usage.input_uncached + usage.input_cache_read + usage.input_cache_write;
        let tier = self.tiers.iter().filter(|tier| input > tier.above).max_by_key(|t| t.above);
        let rates = tier.map_or(&self.rates, |tier| &tier.rates);
        let sum: i128 = [
            (usage.input_uncached, rates.input),
            (usage.input_cache_read, rates.cache_read.unwrap_or(rates.input)),
            (usage.input_cache_write, rates.cache_write.unwrap_or(rates.input)),
            (usage.output, rates.output),
        ]
        .into_iter()
        .map(|(tokens, rate)| i128::from(tokens.max(0)) * i128::from(rate))
        .sum();
        i64::try_from(sum.div_euclid(PER) + i128::from(sum % PER != 0)).unwrap_or(i64::MAX)
    }

    pub fn price(&self) -> Price {
        Price {
            input: self.rates.input,
            output: self.rates.output,
            cache_read: self.rates.cache_read,
            cache_write: self.rates.cache_write,
            per_image: None,
        }
    }

    pub fn capabilities(&self) -> Vec<i32> {
        let embeds = self.mode == "embedding";
        [
            (!embeds, Capability::Chat),
            (embeds, Capability::Embed),
            (self.tools, Capability::Tools),
            (self.json_schema, Capability::JsonSchema),
            (self.vision, Capability::ImageInput),
        ]
        .into_iter()
        .filter_map(|(has, capability)| has.then_some(capability.into()))
        .collect()
    }
}

/// `gpt-4o-2024-08-06` → `gpt-4o`.
fn without_date(model: &str) -> Option<&str> {
    let (name, date) = model.split_at_checked(model.len().checked_sub(11)?)?;
    let shape = date.bytes().enumerate().all(|(at, byte)| match at {
        0 | 5 | 8 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    shape.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: i64, cached: i64, output: i64) -> Usage {
        Usage { input_uncached: input, input_cache_read: cached, output, ..Usage::default() }
    }

    #[test]
    fn classes_are_summed_at_their_own_price() {
        let prices = Prices::known().unwrap();
        // $0.15, $0.075 and $0.60 for a million tokens.
        let cost = prices.cost("openai/gpt-4o-mini", &usage(1000, 200, 10));
        assert_eq!(cost.nano_usd, Some(1000 * 150 + 200 * 75 + 10 * 600));
        let dated = prices.cost("openai/gpt-4o-mini-2024-07-18", &usage(1000, 200, 10));
        assert_eq!(dated, cost);
    }

    #[test]
    fn unknown_is_not_zero_and_local_is() {
        let prices = Prices::known().unwrap();
        assert_eq!(prices.cost("openai/my-own", &usage(1, 0, 1)).nano_usd, None);
        assert_eq!(prices.cost("local/extractive", &usage(1, 0, 1)).nano_usd, Some(0));
    }

    #[test]
    fn more_tokens_never_cost_less() {
        let prices = Prices::known().unwrap();
        for listed in prices.all() {
            let mut last = 0;
            for tokens in (0..400_000).step_by(1000) {
                let cost = listed.cost(&usage(tokens, tokens / 3, tokens / 7));
                assert!(cost >= last, "{} at {tokens}", listed.id);
                last = cost;
            }
        }
    }
}
