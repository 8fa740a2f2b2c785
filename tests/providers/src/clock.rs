//! The clock that work inside a fake runs by: real, faster, or moved by hand.
//!
//! Invariants:
//! - A clock that is paused moves by [`Clock::advance`] alone.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

pub struct Clock {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    /// The time at `since`.
    base: Duration,
    since: Instant,
    /// How many times faster than real; 0 is paused.
    speed: f64,
}

impl State {
    fn now(&self) -> Duration {
        self.base + self.since.elapsed().mul_f64(self.speed)
    }
}

impl Default for Clock {
    fn default() -> Self {
        let state = State { base: Duration::ZERO, since: Instant::now(), speed: 1.0 };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }
}

impl Clock {
    /// Since the fake was started.
    pub fn now(&self) -> Duration {
        self.with(|state| state.now())
    }

    /// Stands still from now on.
    pub fn pause(&self) {
        self.speed(0.0);
    }

    /// So many times faster than real time from now on.
    pub fn speed(&self, speed: f64) {
        self.set(|state| state.speed = speed);
    }

    pub fn advance(&self, by: Duration) {
        self.set(|state| state.base += by);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        self.with(|state| {
            state.base = state.now();
            state.since = Instant::now();
            change(state);
        });
        self.changed.send_replace(());
    }

    pub(crate) async fn until(&self, moment: Duration) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let (now, speed) = self.with(|state| (state.now(), state.speed));
            if now >= moment {
                return;
            }
            let elapsed = async {
                if speed > 0.0 {
                    tokio::time::sleep((moment - now).div_f64(speed)).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = elapsed => {}
                _ = changed.changed() => {}
            }
        }
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut State) -> R) -> R {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_is_what_the_test_says() {
        let clock = Clock::default();
        clock.pause();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(clock.now(), Duration::ZERO);
        let until = clock.until(Duration::from_secs(5));
        let advance = async {
            clock.advance(Duration::from_secs(4));
            tokio::task::yield_now().await;
            clock.advance(Duration::from_secs(1));
        };
        tokio::join!(until, advance);
        clock.speed(100.0);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(clock.now(), Duration::from_secs(6));
    }
}
