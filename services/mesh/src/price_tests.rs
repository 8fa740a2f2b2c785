//! The invariants of `price`, on numbers chosen by a seeded generator.

use super::*;
use skein_proto::model::v1::PriceTier;

/// Every kind of token that has a price of its own, as somebody who counts
/// would add one of it.
const KINDS: [fn(&mut Usage, i64); 10] = [
    |usage, n| usage.input_uncached += n,
    |usage, n| usage.input_cache_read += n,
    |usage, n| usage.input_cache_write += n,
    |usage, n| {
        usage.input_cache_write += n;
        usage.input_cache_write_hour += n;
    },
    |usage, n| {
        usage.input_uncached += n;
        usage.input_audio += n;
    },
    |usage, n| {
        usage.input_uncached += n;
        usage.input_image += n;
    },
    |usage, n| usage.output += n,
    |usage, n| {
        usage.output += n;
        usage.output_reasoning += n;
    },
    |usage, n| {
        usage.output += n;
        usage.output_audio += n;
    },
    |usage, n| {
        usage.output += n;
        usage.output_image += n;
    },
];

fn dice(seed: u64) -> impl FnMut(i64) -> i64 {
    let mut random = fastrand::Rng::with_seed(seed);
    move |below| random.i64(0..below)
}

fn rates(roll: &mut impl FnMut(i64) -> i64, at_least: &Price) -> Price {
    let mut rate = |least: Option<i64>| Some(least.unwrap_or(0) + roll(100_000_000_000));
    Price {
        input: rate(at_least.input),
        output: rate(at_least.output),
        cache_read: rate(at_least.cache_read),
        cache_write: rate(at_least.cache_write),
        cache_write_hour: rate(at_least.cache_write_hour),
        reasoning: rate(at_least.reasoning),
        input_audio: rate(at_least.input_audio),
        output_audio: rate(at_least.output_audio),
        input_image: rate(at_least.input_image),
        output_image: rate(at_least.output_image),
        per_image: rate(at_least.per_image),
        ..Price::default()
    }
}

#[test]
fn more_of_any_kind_never_costs_less() {
    let mut roll = dice(7);
    for _ in 0..2_000 {
        let base = rates(&mut roll, &Price::default());
        let dearer = rates(&mut roll, &base);
        let tier = |above, price: &Price| PriceTier { above, price: Some(price.clone()) };
        let dearest = rates(&mut roll, &dearer);
        let tiers = vec![tier(100_000, &dearer), tier(200_000, &dearest)];
        let price = Price { tiers, ..base };
        let (mut usage, mut last) = (Usage::default(), 0);
        for _ in 0..60 {
            let kind = usize::try_from(roll(11)).unwrap();
            let tokens = roll(20_000);
            match KINDS.get(kind) {
                Some(add) => add(&mut usage, tokens),
                None => usage.images += roll(3),
            }
            let now = cost(&price, &usage).unwrap();
            assert!(now >= last, "{usage:?} at {price:?} cost {now}, with less it was {last}");
            last = now;
        }
    }
}

#[test]
fn a_kind_without_a_price_makes_the_cost_unknown() {
    let mut roll = dice(11);
    let all = rates(&mut roll, &Price::default());
    let take: [fn(&mut Price); 10] = [
        |price| price.input = None,
        |price| (price.cache_read, price.input) = (None, None),
        |price| price.cache_write = None,
        |price| price.cache_write_hour = None,
        |price| price.input_audio = None,
        |price| (price.input_image, price.input) = (None, None),
        |price| price.output = None,
        |price| (price.reasoning, price.output) = (None, None),
        |price| price.output_audio = None,
        |price| price.output_image = None,
    ];
    for (add, take) in KINDS.iter().zip(take) {
        let mut usage = Usage::default();
        add(&mut usage, 1);
        let mut price = all.clone();
        assert!(cost(&price, &usage).is_some(), "{usage:?}");
        take(&mut price);
        assert_eq!(cost(&price, &usage), None, "{usage:?} without a price");
        assert_eq!(cost(&price, &Usage::default()), Some(0), "nothing costs nothing");
    }
    let pictures = Usage { images: 2, ..Usage::default() };
    assert_eq!(cost(&Price { per_image: None, ..all.clone() }, &pictures), None);
    let counted = Usage { images: 2, output: 9, output_image: 9, ..Usage::default() };
    assert!(cost(&Price { per_image: None, ..all.clone() }, &counted).is_some());
    let searched = Price { per_query: Some(2_000_000), ..all };
    assert_eq!(cost(&searched, &Usage::default()), None, "no usage counts searches");
}

#[test]
fn classes_are_summed_at_their_own_price_and_rounded_up_once() {
    let price = Price {
        input: Some(150_000_000),
        output: Some(600_000_000),
        cache_read: Some(75_000_000),
        cache_write: Some(1),
        cache_write_hour: Some(2_000_000),
        reasoning: Some(300_000_000),
        per_image: Some(40_000_000),
        ..Price::default()
    };
    let usage = Usage {
        input_uncached: 800,
        input_cache_read: 200,
        output: 10,
        output_reasoning: 4,
        images: 2,
        ..Usage::default()
    };
    let expected = 800 * 150 + 200 * 75 + 6 * 600 + 4 * 300 + 2 * 40_000_000;
    assert_eq!(cost(&price, &usage), Some(expected));
    let written = Usage { input_cache_write: 3, input_cache_write_hour: 1, ..Usage::default() };
    assert_eq!(cost(&price, &written), Some(3), "2 and two millionths");
}

#[test]
fn a_tier_holds_for_the_whole_call_and_nothing_overflows() {
    let dear = Price { input: Some(4_000_000), output: Some(4_000_000), ..Price::default() };
    let price = Price {
        input: Some(2_000_000),
        output: Some(2_000_000),
        tiers: vec![PriceTier { above: 100, price: Some(dear) }],
        ..Price::default()
    };
    let usage = |input, output| Usage { input_uncached: input, output, ..Usage::default() };
    assert_eq!(cost(&price, &usage(100, 10)), Some(220));
    assert_eq!(cost(&price, &usage(101, 10)), Some(444));
    let cached = Usage { input_uncached: 1, input_cache_read: 100, ..Usage::default() };
    assert_eq!(cost(&price, &cached), Some(404), "the cache counts for the length");

    let most = |rate| Price { input: Some(rate), output: Some(rate), ..Price::default() };
    assert_eq!(cost(&most(i64::MAX), &usage(i64::MAX, i64::MAX)), Some(i64::MAX));
    let pictures = Usage { images: i64::MAX, ..Usage::default() };
    let dear = Price { per_image: Some(i64::MAX), ..Price::default() };
    assert_eq!(cost(&dear, &pictures), Some(i64::MAX));
    assert_eq!(cost(&most(5), &usage(-9, -9)), Some(0), "less than none is none");
}
