//! What people read of a pool.

use super::*;
use crate::health::{breaker::Rules, cooldown::Rests, pool::Chosen};

const SECOND: Duration = Duration::from_secs(1);

fn pool() -> Pool {
    let rests = Rests { first: 12 * SECOND, longest: 120 * SECOND, free: 0 };
    Pool::new(["1", "2"].map(Into::into), Rules { in_a_row: 5, rests })
}

fn fail(pool: &mut Pool, now: Instant, model: &str, key: usize, failure: Failure) {
    if let Chosen::Go { pass, .. } = pool.choose(now, model, &[1 - key], 0.5) {
        assert_eq!(pass.key, key);
        pool.failed(now, model, pass, failure);
    }
}

#[test]
fn a_model_is_as_well_as_its_keys_and_says_which_are_not() {
    let (mut pool, now) = (pool(), Instant::now());
    assert_eq!(of_model(&pool, now, "m").0, ModelHealth::Unspecified, "never tried");
    for _ in 0..5 {
        fail(&mut pool, now, "m", 1, Failure::Unavailable);
    }
    let (health, reason) = of_model(&pool, now, "m");
    assert_eq!(health, ModelHealth::Degraded);
    assert_eq!(reason, "key 2: open for 12 s after 5 failures (PROVIDER_UNAVAILABLE)");
    fail(&mut pool, now, "m", 0, Failure::RateLimited { retry_after: Some(1500 * SECOND / 1000) });
    let (health, reason) = of_model(&pool, now, "m");
    assert_eq!(health, ModelHealth::Down);
    assert!(
        reason.starts_with("key 1: at its limit for 2 s (PROVIDER_RATE_LIMITED); "),
        "{reason}"
    );
    assert_eq!(of_model(&pool, now, "n").0, ModelHealth::Unspecified, "another model's matter");
}

#[test]
fn a_refused_key_shows_on_every_model_and_a_silent_provider_too() {
    let (mut pool, now) = (pool(), Instant::now());
    fail(&mut pool, now, "m", 0, Failure::Unauthenticated);
    let (health, reason) = of_model(&pool, now, "n");
    assert_eq!(health, ModelHealth::Degraded);
    assert_eq!(reason, "key 1: is refused, asked again in 60 s (PROVIDER_UNAUTHENTICATED)");
    pool.probed(now, 0, SECOND, None);
    assert_eq!(of_model(&pool, now, "n"), (ModelHealth::Up, String::new()));
    pool.probed(now + SECOND, 0, SECOND, Some(Failure::Unreachable));
    let (health, reason) = of_model(&pool, now + SECOND, "n");
    assert_eq!(health, ModelHealth::Down);
    assert_eq!(reason, "does not answer (PROVIDER_UNREACHABLE)");
}

#[test]
fn the_status_of_a_provider_is_whole() {
    let (mut pool, now) = (pool(), Instant::now());
    for _ in 0..5 {
        fail(&mut pool, now, "m", 1, Failure::Reset);
    }
    fail(&mut pool, now, "m", 0, Failure::Quota);
    pool.probed(now, 0, SECOND / 4, None);
    let status = status("openai", &pool, now + SECOND);
    assert_eq!((status.name.as_str(), status.probe_us, status.p50_us), ("openai", 250_000, 0));
    assert_eq!(status.health(), ModelHealth::Degraded);
    assert_eq!(
        (status.keys[0].refused.as_str(), status.keys[0].refused_ms),
        ("PROVIDER_QUOTA", 59_000)
    );
    assert_eq!(status.keys[1].refused, "");
    let breaker = &status.breakers[0];
    assert_eq!(
        (breaker.state(), breaker.left_ms, breaker.failures),
        (BreakerState::Open, 11_000, 5)
    );
    assert_eq!((breaker.model.as_str(), breaker.key.as_str()), ("m", "2"));
    assert_eq!((status.last_error.as_str(), status.last_error_ms), ("PROVIDER_QUOTA", 1_000));
}
