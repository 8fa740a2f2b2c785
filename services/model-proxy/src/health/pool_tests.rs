//! The rules of choosing, driven by hand and by seeded chance.

use super::*;
use std::collections::BTreeSet;

const RULES: Rules = Rules {
    in_a_row: 5,
    rests: Rests { first: Duration::from_secs(5), longest: Duration::from_secs(120), free: 0 },
};
const SECOND: Duration = Duration::from_secs(1);

fn pool(keys: usize) -> Pool {
    Pool::new((1..=keys).map(|label| label.to_string().into()), RULES)
}

#[track_caller]
fn go(pool: &mut Pool, now: Instant, model: &str, tried: &[usize]) -> (Pass, bool) {
    match pool.choose(now, model, tried, 0.5) {
        Chosen::Go { pass, last_resort } => (pass, last_resort),
        Chosen::Wait { left, failure } => panic!("wait {left:?} for {failure:?}"),
    }
}

/// The keys that twenty calls get, one after the other.
fn keys_of(pool: &mut Pool, now: Instant, model: &str) -> BTreeSet<usize> {
    let mut one = || {
        let (pass, _) = go(pool, now, model, &[]);
        pool.left(model, pass);
        pass.key
    };
    (0..20).map(|_| one()).collect()
}

fn fail(pool: &mut Pool, now: Instant, model: &str, key: usize, failure: Failure) {
    let pass = pool.admit(now, model, key);
    pool.failed(now, model, pass, failure);
}

fn open(pool: &mut Pool, now: Instant, model: &str, key: usize) {
    for _ in 0..5 {
        fail(pool, now, model, key, Failure::Unavailable);
    }
}

#[test]
fn an_open_breaker_turns_calls_to_the_other_key_and_to_no_other_model() {
    let (mut pool, now) = (pool(2), Instant::now());
    open(&mut pool, now, "m", 0);
    assert_eq!(keys_of(&mut pool, now, "m"), [1].into());
    assert_eq!(keys_of(&mut pool, now, "n"), [0, 1].into());
}

#[test]
fn when_all_are_open_the_soonest_is_the_last_resort() {
    let (mut pool, now) = (pool(2), Instant::now());
    open(&mut pool, now, "m", 0);
    open(&mut pool, now + SECOND, "m", 1);
    let (pass, last) = go(&mut pool, now + SECOND, "m", &[]);
    assert_eq!((pass.key, last), (0, true));
    let (other, last) = go(&mut pool, now + SECOND, "m", &[0]);
    assert_eq!((other.key, last), (1, true), "not the one that this call has tried");
    pool.began(now + SECOND, "m", pass, SECOND);
    assert_eq!(pool.standing(now + SECOND, "m", 0), Standing::Good, "it works");
}

#[test]
fn one_call_probes_and_the_others_go_elsewhere() {
    let (mut pool, now) = (pool(2), Instant::now());
    open(&mut pool, now, "m", 0);
    let later = now + RULES.rests.first;
    let keys: Vec<_> = (0..6).map(|_| go(&mut pool, later, "m", &[]).0.key).collect();
    assert_eq!(keys.iter().filter(|key| **key == 0).count(), 1, "{keys:?}");
}

#[test]
fn a_refused_key_is_left_alone_for_all_models_but_never_the_only_one() {
    let (mut pool, now) = (pool(2), Instant::now());
    fail(&mut pool, now, "m", 0, Failure::Unauthenticated);
    assert_eq!(keys_of(&mut pool, now, "n"), [1].into());
    fail(&mut pool, now, "m", 1, Failure::Unauthenticated);
    assert!(go(&mut pool, now, "n", &[]).1, "a last resort");
    pool.probed(now, 1, SECOND, None);
    assert_eq!(go(&mut pool, now, "n", &[]).0.key, 1, "its list was given");
}

#[test]
fn a_model_that_a_key_may_not_use_is_no_matter_of_other_models() {
    let (mut pool, now) = (pool(2), Instant::now());
    fail(&mut pool, now, "m", 0, Failure::Forbidden);
    assert_eq!(keys_of(&mut pool, now, "m"), [1].into());
    assert_eq!(pool.standing(now, "n", 0), Standing::Good);
}

#[test]
fn an_empty_account_is_waited_for_and_a_limit_as_long_as_was_said() {
    let (mut pool, now) = (pool(2), Instant::now());
    fail(&mut pool, now, "m", 0, Failure::Quota);
    let limit = Failure::RateLimited { retry_after: Some(7 * SECOND) };
    fail(&mut pool, now, "m", 1, limit);
    match pool.choose(now + SECOND, "m", &[], 0.5) {
        Chosen::Wait { left, failure } => {
            assert_eq!(left, 6 * SECOND);
            assert!(matches!(failure, Failure::RateLimited { retry_after: Some(_) }));
        }
        Chosen::Go { .. } => panic!("the provider said to wait"),
    }
    assert_eq!(go(&mut pool, now, "n", &[]).0.key, 1, "the limit is of the model");
    assert_eq!(go(&mut pool, now + 7 * SECOND, "m", &[]).0.key, 1);
}

#[test]
fn a_limit_without_a_word_rests_after_repetition_only() {
    let (mut pool, now) = (pool(1), Instant::now());
    let limit = Failure::RateLimited { retry_after: None };
    let passes: Vec<_> = (0..10).map(|_| pool.admit(now, "m", 0)).collect();
    for pass in passes {
        pool.failed(now, "m", pass, limit);
    }
    assert_eq!(pool.standing(now, "m", 0), Standing::Good, "they came together");
    fail(&mut pool, now, "m", 0, limit);
    assert!(matches!(pool.standing(now, "m", 0), Standing::Told(left, _) if left == SECOND));
}

#[test]
fn calls_follow_what_the_headers_say_is_left() {
    let (mut pool, now) = (pool(2), Instant::now());
    for (key, left) in [(0, 0), (1, 500)] {
        let pass = pool.admit(now, "m", key);
        pool.heard(now, "m", pass, Quota { requests: Some(left), ..Quota::default() });
        pool.done(now, "m", pass);
    }
    assert_eq!(keys_of(&mut pool, now, "m"), [1].into());
    let later = keys_of(&mut pool, now + 61 * SECOND, "m");
    assert_eq!(later.len(), 2, "what was left a minute ago is unknown");
}

#[test]
fn a_request_that_is_wrong_says_nothing_of_the_provider() {
    let (mut pool, now) = (pool(1), Instant::now());
    for _ in 0..100 {
        fail(&mut pool, now, "no such model", 0, Failure::NotFound);
        fail(&mut pool, now, "m", 0, Failure::BadRequest);
    }
    assert!(pool.models.is_empty() && pool.keys[0].in_flight == 0 && pool.last_error.is_none());
}

#[test]
fn memory_is_bounded() {
    let (mut pool, now) = (pool(1), Instant::now());
    open(&mut pool, now + SECOND, "busy", 0);
    for name in 0..2_000_u32 {
        let now = now + SECOND * name;
        fail(&mut pool, now, &format!("m{name}"), 0, Failure::Unavailable);
        let _ = pool.choose(now, "busy", &[], 0.5);
    }
    assert!(pool.models.len() <= MOST_MODELS && pool.models.contains_key("busy"));
}

#[test]
fn a_breaker_that_is_forgotten_is_told_of() {
    let (mut pool, now) = (pool(1), Instant::now());
    open(&mut pool, now, "m", 0);
    pool.models.get_mut("m").unwrap().cells[0].told = Mood::Open;
    open(&mut pool, now + FORGOTTEN, "n", 0);
    open(&mut pool, now + FORGOTTEN * 2, "o", 0); // of the other nothing was said
    assert_eq!(pool.forgotten, [Arc::from("m")]);
}

#[test]
fn there_is_always_a_way_unless_the_provider_said_to_wait() {
    const FAILURES: [Failure; 8] = [
        Failure::Unavailable,
        Failure::Cut,
        Failure::Unauthenticated,
        Failure::Forbidden,
        Failure::BadRequest,
        Failure::RateLimited { retry_after: None },
        Failure::RateLimited { retry_after: Some(Duration::from_secs(9)) },
        Failure::Quota,
    ];
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(1..4);
        // Half of the runs know nothing but failures.
        let kinds = if seed % 2 == 0 { 5 } else { FAILURES.len() };
        let (mut pool, mut now) = (pool(count), Instant::now());
        let mut open: Vec<(Pass, &str)> = Vec::new();
        for _ in 0..400 {
            now += Duration::from_millis(random.u64(0..3_000));
            let model = ["a", "b"][random.usize(0..2)];
            let tried: Vec<_> = (0..count).filter(|_| random.u8(0..4) == 0).collect();
            match pool.choose(now, model, &tried, random.f64()) {
                Chosen::Go { pass, .. } => open.push((pass, model)),
                Chosen::Wait { left, failure } => {
                    assert!(seed % 2 == 1 && !left.is_zero(), "seed {seed}: {failure:?}");
                    let told = |key| pool.standing(now, model, key);
                    let waits =
                        |key| matches!(told(key), Standing::Told(..) | Standing::Refused(..));
                    assert!((0..count).all(waits), "seed {seed}");
                }
            }
            while open.len() > random.usize(0..6) {
                let (pass, model) = open.swap_remove(random.usize(..open.len()));
                match random.u8(0..6) {
                    0 => pool.left(model, pass),
                    1 => pool.done(now, model, pass),
                    _ => pool.failed(now, model, pass, FAILURES[random.usize(..kinds)]),
                }
            }
            let flying: u32 = pool.keys.iter().map(|key| key.in_flight).sum();
            assert_eq!(flying as usize, open.len(), "seed {seed}");
        }
    }
}
