//! Where regions are, for "nearest".
//!
//! Invariants:
//! - A region is nearest to itself; one that we do not know is far from all others.

use std::time::Duration;

/// Latitude and longitude of Fly's regions, in degrees.
const PLACES: [(&str, f64, f64); 18] = [
    ("ams", 52.4, 4.9),
    ("arn", 59.7, 17.9),
    ("bom", 19.1, 72.9),
    ("cdg", 48.9, 2.4),
    ("dfw", 32.8, -96.8),
    ("ewr", 40.8, -74.1),
    ("fra", 50.1, 8.7),
    ("gru", -23.5, -46.7),
    ("iad", 39.0, -77.5),
    ("jnb", -26.1, 28.2),
    ("lax", 33.9, -118.4),
    ("lhr", 51.5, -0.1),
    ("nrt", 35.6, 139.7),
    ("ord", 41.9, -87.6),
    ("sin", 1.3, 103.8),
    ("sjc", 37.4, -121.9),
    ("syd", -33.9, 151.2),
    ("yyz", 43.6, -79.4),
];

/// Farther than any two of the places above.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Of the Earth.
const RADIUS_KM: f64 = 6371.0;
/// A round trip by fibre, with the usual detours.
const SECONDS_PER_KM: f64 = 1.5 / 100_000.0;

/// What a round trip between two regions takes, by the great circle.
pub(crate) fn rtt(a: &str, b: &str) -> Duration {
    if a == b {
        return Duration::ZERO;
    }
    let place = |code| PLACES.iter().find(|(name, ..)| *name == code);
    let (Some((_, lat_a, lon_a)), Some((_, lat_b, lon_b))) = (place(a), place(b)) else {
        return UNKNOWN;
    };
    let (lat_a, lat_b) = (lat_a.to_radians(), lat_b.to_radians());
    let lon = (lon_a - lon_b).to_radians();
    let cosine = lat_a.sin() * lat_b.sin() + lat_a.cos() * lat_b.cos() * lon.cos();
    let km = cosine.clamp(-1.0, 1.0).acos() * RADIUS_KM;
    Duration::from_millis(2) + Duration::from_secs_f64(km * SECONDS_PER_KM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_nearer_than_far_and_unknown_is_farthest() {
        assert_eq!(rtt("iad", "iad"), Duration::ZERO);
        assert!(rtt("iad", "ewr") < rtt("iad", "fra") && rtt("iad", "fra") < rtt("iad", "nrt"));
        assert!(PLACES.iter().all(|(code, ..)| rtt(code, "nrt") < rtt("nrt", "atlantis")));
    }
}
