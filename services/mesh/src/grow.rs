//! More machines when there is too much to do: above the soft limit a machine
//! starts a stopped sibling of its own region.
//!
//! Callers spread over whatever is ready, so nobody has to be told. The other
//! direction is [`crate::idle`]: whoever is left without work leaves.
//!
//! Invariant: a moment above the limit is not a crowd: the average over about a
//! second is, and it is asked again for every further sibling.

use crate::{
    load::Load,
    machines::{Machines, Started},
};
use std::time::Duration;
use tokio::time;

const SAMPLE: Duration = Duration::from_millis(100);
/// Weight of a sample: the average follows within a second or so.
const WEIGHT: f64 = 0.15;
/// Between two siblings; the starts themselves are no closer than that either.
const NEXT: Duration = Duration::from_secs(1);
/// When there is no sibling to start, or the platform refuses.
const LATER: Duration = Duration::from_secs(5);

/// Follows `load` for ever.
pub async fn follow(load: Load, machines: Machines, region: String) {
    let limit = load.limits().soft as f64;
    let mut average = 0.0;
    loop {
        time::sleep(SAMPLE).await;
        average += WEIGHT * (load.in_flight() as f64 - average);
        if average <= limit {
            continue;
        }
        let pause = match machines.start_one(&region).await {
            Ok(Started::One) => {
                tracing::info!(in_flight = average, limit, "above the soft limit");
                NEXT
            }
            Ok(Started::TooSoon) => NEXT,
            Ok(Started::None) | Err(_) => LATER, // a refusal is reported where it happens
        };
        time::sleep(pause.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        average = load.in_flight() as f64;
    }
}
