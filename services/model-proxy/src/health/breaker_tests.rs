//! The state machine, driven by hand and by seeded chance.

use super::*;

const RULES: Rules = Rules {
    in_a_row: 5,
    rests: Rests { first: Duration::from_secs(5), longest: Duration::from_secs(120), free: 0 },
};

fn fail(breaker: &mut Breaker, now: Instant) {
    let ticket = breaker.admit(now);
    breaker.failed(ticket, Failure::Unavailable, now, RULES);
}

fn opened(now: Instant) -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        fail(&mut breaker, now);
    }
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_and_a_success_between_does_not() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    for _ in 0..4 {
        fail(&mut breaker, now);
    }
    let ticket = breaker.admit(now);
    breaker.succeeded(ticket, now);
    fail(&mut breaker, now);
    assert_eq!(breaker.state(now), State::Closed);
    assert_eq!(opened(now).state(now), State::Open(RULES.rests.first));
    assert_eq!(opened(now).cause(), Some((5, Failure::Unavailable)));
}

#[test]
fn half_of_twenty_calls_open_it_but_not_those_of_long_ago() {
    let begun = Instant::now();
    let every_other = |pause: Duration| {
        let (mut breaker, mut now) = (Breaker::default(), begun);
        for _ in 0..20 {
            let ticket = breaker.admit(now);
            breaker.succeeded(ticket, now);
            now += pause;
            fail(&mut breaker, now);
            now += pause;
        }
        breaker.state(now)
    };
    assert!(matches!(every_other(Duration::from_millis(10)), State::Open(_)));
    assert_eq!(every_other(Duration::from_secs(3)), State::Closed, "never twenty in the window");
}

#[test]
fn one_call_probes_and_its_end_decides() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + RULES.rests.first;
    let probe = breaker.admit(later);
    assert_eq!(breaker.state(later), State::HalfOpen { probing: true });
    breaker.left(probe);
    assert_eq!(breaker.state(later), State::HalfOpen { probing: false }, "its caller left");
    let probe = breaker.admit(later);
    breaker.failed(probe, Failure::Reset, later, RULES);
    assert_eq!(breaker.state(later), State::Open(RULES.rests.first * 2), "twice as long");
    let last = later + RULES.rests.first * 2;
    let probe = breaker.admit(last);
    breaker.began(probe);
    assert_eq!(breaker.state(last), State::Closed);
}

#[test]
fn a_call_of_before_says_nothing_new() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let old = breaker.admit(now);
    for _ in 0..5 {
        fail(&mut breaker, now);
    }
    let state = breaker.state(now);
    breaker.succeeded(old, now);
    breaker.failed(old, Failure::Cut, now + Duration::from_secs(1), RULES);
    assert_eq!(breaker.state(now), state);
}

#[test]
fn a_last_resort_that_fails_prolongs_the_rest_and_one_that_works_ends_it() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + Duration::from_secs(2);
    let call = breaker.admit(later);
    breaker.failed(call, Failure::Reset, later, RULES);
    assert_eq!(breaker.state(later), State::Open(RULES.rests.first), "not doubled");
    let call = breaker.admit(later);
    breaker.succeeded(call, later);
    assert_eq!(breaker.state(later), State::Closed);
}

#[test]
fn never_two_probes_and_never_a_shorter_rest_whatever_happens() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut open: Vec<Ticket> = Vec::new();
        let mut end = now;
        for _ in 0..300 {
            now += Duration::from_millis(random.u64(0..4_000));
            if open.is_empty() || random.bool() {
                open.push(breaker.admit(now));
            } else {
                let ticket = open.swap_remove(random.usize(..open.len()));
                match random.u8(0..8) {
                    0 => breaker.left(ticket),
                    1 => breaker.succeeded(ticket, now),
                    2 => {
                        breaker.began(ticket);
                        open.push(ticket);
                    }
                    _ => breaker.failed(ticket, Failure::Unavailable, now, RULES),
                }
            }
            let state = breaker.state(now);
            let probes = open.iter().filter(|one| one.probe && breaker.is_fresh(**one)).count();
            if state == (State::HalfOpen { probing: false }) {
                assert_eq!(probes, 0, "seed {seed}");
            }
            if state != State::Closed {
                assert!(probes <= 1, "seed {seed}");
            }
            let ends = now + breaker.rest.left(now).unwrap_or_default();
            assert!(ends >= end, "seed {seed}");
            end = ends;
        }
    }
}
