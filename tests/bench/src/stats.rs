//! From many times to the few numbers people compare.

use serde::Serialize;
use std::time::Duration;

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Spread {
    pub(crate) fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<_> = times.map(|time| time.as_secs_f64() * 1e6).collect();
        sorted.sort_by(f64::total_cmp);
        Self { p50: quantile(&sorted, 50), p99: quantile(&sorted, 99) }
    }

    /// What is left of this over `other`, percentile by percentile. The difference
    /// of two percentiles is not the percentile of a difference: for p99 it is an
    /// estimate.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self { p50: self.p50 - other.p50, p99: self.p99 - other.p99 }
    }
}

/// The smallest value that `percent` of all do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// How fast the second of each pair grows with the first: least squares.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let spread = Spread::of((1..=200).map(Duration::from_micros));
        assert_eq!((spread.p50.round(), spread.p99.round()), (100.0, 198.0));
        assert_eq!(Spread::of([Duration::from_micros(7)].into_iter()).p99.round(), 7.0);
        assert_eq!(Spread::of(std::iter::empty()).p50, 0.0);
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(4.0, 1.0)]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
