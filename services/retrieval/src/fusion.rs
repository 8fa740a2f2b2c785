//! Weighted reciprocal rank fusion: one ranking out of several.
//!
//! Ranks, not scores, are added, because BM25 and cosine have no scale in
//! common; and an arm has a weight, because a weak arm at full weight lowers
//! the whole (measured on SciFact: 0.666 to 0.581).
//!
//! Invariants:
//! - the order does not depend on the order of the arms, ties go by key;
//! - each hit says which arm saw it at which rank with which score.

use std::collections::HashMap;
use std::hash::Hash;

/// How little the very first ranks stand out; 60 is the usual choice.
const K: f64 = 60.0;

/// One ranking, best first.
#[derive(Clone, Debug)]
pub struct Arm<T> {
    pub name: &'static str,
    pub weight: f64,
    pub ranked: Vec<(T, f32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Fused<T> {
    pub key: T,
    pub score: f64,
    pub seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub arm: &'static str,
    pub rank: u32,
    pub score: f32,
}

/// The fused ranking, best first.
pub fn fuse<T: Copy + Eq + Hash + Ord>(arms: &[Arm<T>]) -> Vec<Fused<T>> {
    let mut found: HashMap<T, Fused<T>> = HashMap::new();
    for arm in arms {
        for (rank, &(key, score)) in (1_u32..).zip(&arm.ranked) {
            let hit =
                found.entry(key).or_insert_with(|| Fused { key, score: 0.0, seen: Vec::new() });
            hit.score += arm.weight / (K + f64::from(rank));
            hit.seen.push(Seen { arm: arm.name, rank, score });
        }
    }
    let mut fused: Vec<_> = found.into_values().collect();
    fused.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.key.cmp(&b.key)));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(name: &'static str, weight: f64, keys: &[u32]) -> Arm<u32> {
        Arm { name, weight, ranked: keys.iter().map(|&key| (key, 1.0)).collect() }
    }

    fn keys(fused: &[Fused<u32>]) -> Vec<u32> {
        fused.iter().map(|hit| hit.key).collect()
    }

    #[test]
    fn what_both_arms_see_comes_first() {
        let (words, meaning) = (arm("keyword", 1.0, &[1, 2]), arm("dense", 1.0, &[3, 2]));
        let fused = fuse(&[words.clone(), meaning.clone()]);
        assert_eq!(keys(&fused), [2, 1, 3]);
        assert_eq!(keys(&fuse(&[meaning, words])), [2, 1, 3]);
        let seen: Vec<_> = fused[0].seen.iter().map(|seen| (seen.arm, seen.rank)).collect();
        assert_eq!(seen, [("keyword", 2), ("dense", 2)]);
    }

    #[test]
    fn a_light_arm_only_decides_between_equals() {
        let fused = fuse(&[arm("keyword", 1.0, &[1, 2, 3]), arm("dense", 0.01, &[3, 2, 1])]);
        assert_eq!(keys(&fused), [1, 2, 3]);
    }
}
