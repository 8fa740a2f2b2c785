//! BM25, the score of a keyword match, as pure arithmetic.
//!
//! Invariants:
//! - a rarer term counts more, and none counts against a passage;
//! - a term said again counts less each time, and less in a longer passage.

/// How fast repetition stops counting.
const K1: f32 = 1.2;
/// How far a passage's length counts against it.
const B: f32 = 0.75;

/// The weight of a term that is in `with` of `all` passages.
#[expect(clippy::cast_precision_loss, reason = "a statistic")]
pub fn rarity(all: usize, with: usize) -> f32 {
    let (all, with) = (all as f32, with as f32);
    (1.0 + (all - with + 0.5) / (with + 0.5)).ln()
}

/// The score of a term that is `count` times in a passage of `length` terms.
#[expect(clippy::cast_precision_loss, reason = "a statistic")]
pub fn score(rarity: f32, count: u32, length: u32, mean_length: f32) -> f32 {
    let count = count as f32;
    let share = if mean_length > 0.0 { length as f32 / mean_length } else { 1.0 };
    rarity * count * (K1 + 1.0) / K1.mul_add(1.0 - B + B * share, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_terms_count_more_and_none_counts_against() {
        assert!(rarity(1000, 1) > rarity(1000, 10));
        assert!(rarity(1000, 1000) > 0.0);
    }

    #[test]
    fn repetition_saturates_and_length_dilutes() {
        let one = score(1.0, 1, 100, 100.0);
        let two = score(1.0, 2, 100, 100.0);
        let many = score(1.0, 1000, 100, 100.0);
        assert!(one < two && two < many && many < 2.2 && two - one < one);
        assert!(score(1.0, 1, 300, 100.0) < one);
    }
}
