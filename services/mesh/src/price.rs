//! What a usage costs at a price, in integer billionths of a US dollar: the
//! one function, for whoever sets money aside and for whoever settles.
//!
//! Invariants:
//! - Tokens of a class that has no price make the cost unknown, never lower.
//! - More tokens of any kind never cost less, wherever a tier begins.
//! - Nothing overflows, and the last fraction is rounded up, once.

use skein_proto::model::v1::{Price, Usage};

/// Tokens that a price is for.
const PER: i128 = 1_000_000;

/// `None`: a class of the usage has no price.
pub fn cost(price: &Price, usage: &Usage) -> Option<i64> {
    if price.per_query.is_some() || price.per_second.is_some() {
        return None; // no usage says how many searches or seconds it was
    }
    let count = |tokens: i64| i128::from(tokens.max(0));
    let (uncached, read) = (count(usage.input_uncached), count(usage.input_cache_read));
    let write = count(usage.input_cache_write);
    let price = in_force(price, uncached + read + write);
    let hour = count(usage.input_cache_write_hour).min(write);
    let (audio, picture) = (count(usage.input_audio), count(usage.input_image));
    // Sound and pictures are taken to be new; where the cache had some of them
    // this is too much and not too little.
    let text = (uncached - audio - picture).max(0);
    let thought = count(usage.output_reasoning);
    let (spoken, drawn) = (count(usage.output_audio), count(usage.output_image));
    let said = (count(usage.output) - thought - spoken - drawn).max(0);
    let mut sum = pictures(price, drawn, count(usage.images))?;
    for (tokens, rate) in [
        (text, price.input),
        (audio, price.input_audio),
        (picture, price.input_image.or(price.input)),
        (read, price.cache_read.or(price.input)),
        (write - hour, price.cache_write),
        (hour, price.cache_write_hour),
        (said, price.output),
        (thought, price.reasoning.or(price.output)),
        (spoken, price.output_audio),
    ] {
        if tokens > 0 {
            sum = sum.saturating_add(tokens * rated(rate?));
        }
    }
    let whole = sum / PER + i128::from(sum % PER != 0);
    Some(i64::try_from(whole).unwrap_or(i64::MAX))
}

/// The prices for a call with so much input.
fn in_force(price: &Price, input: i128) -> &Price {
    let reached = price.tiers.iter().filter(|tier| input > i128::from(tier.above));
    let highest = reached.max_by_key(|tier| tier.above);
    highest.and_then(|tier| tier.price.as_ref()).unwrap_or(price)
}

/// Pictures cost what their tokens or their number cost, whichever is more.
fn pictures(price: &Price, tokens: i128, number: i128) -> Option<i128> {
    let by_tokens = (tokens > 0).then_some(price.output_image).flatten();
    let by_number = (number > 0).then_some(price.per_image).flatten();
    let costs = [
        by_tokens.map(|rate| tokens * rated(rate)),
        by_number.map(|rate| (number * PER).saturating_mul(rated(rate))),
    ];
    if tokens == 0 && number == 0 { Some(0) } else { costs.into_iter().flatten().max() }
}

fn rated(rate: i64) -> i128 {
    i128::from(rate.max(0))
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
