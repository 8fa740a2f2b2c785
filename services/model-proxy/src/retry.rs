//! What may be tried again, and when: the one table.
//!
//! Invariants:
//! - Nothing is tried again after its first content, nor what the provider would
//!   only refuse again; what may have been carried out only where the provider's
//!   calls may be repeated blindly.
//! - The provider's own word on waiting is never undercut.

use crate::error::{Failure, Hint};
use std::time::Duration;

/// Pauses double from here, as in the providers' own SDKs…
const FIRST: Duration = Duration::from_millis(500);
/// … to here. An overloaded provider gets twice as much.
const LONGEST: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Never,
    /// After a pause that doubles with every try.
    Soon,
    /// After a longer one: the provider has too much to do.
    Slowly,
    /// As the provider asked, and not before.
    After(Duration),
}

/// `blindly`: whether what may have been carried out may be sent again.
pub const fn again(failure: Failure, blindly: bool) -> Again {
    match failure {
        // Nothing was sent, or nothing was done.
        Failure::Unreachable | Failure::ConnectTimeout => Again::Soon,
        Failure::RateLimited { retry_after: Some(wait) } => Again::After(wait),
        Failure::RateLimited { retry_after: None } => Again::Soon,
        // It may come from a proxy before the provider, after the deed.
        Failure::Overloaded if blindly => Again::Slowly,
        Failure::Overloaded => Again::Never,
        Failure::Unavailable | Failure::Reset | Failure::Malformed | Failure::Cut if blindly => {
            Again::Soon
        }
        Failure::Unavailable | Failure::Reset | Failure::Malformed | Failure::Cut => Again::Never,
        // The patience of the caller is spent on a silent provider once; whoever
        // has another provider can do better than ask the same one again.
        Failure::FirstTokenTimeout | Failure::IdleTimeout | Failure::TotalTimeout => Again::Never,
        Failure::Unauthenticated
        | Failure::Forbidden
        | Failure::Quota
        | Failure::BadRequest
        | Failure::ContextLength
        | Failure::TooLarge
        | Failure::ContentFilter
        | Failure::NotFound => Again::Never,
    }
}

impl Again {
    /// The same, after what the provider says itself. That there is nothing
    /// left to spend no asking again will change.
    #[must_use]
    pub fn hinted(self, failure: Failure, hint: Hint) -> Self {
        match (self, hint) {
            (_, Hint { again: Some(false), .. }) | (Self::Never, Hint { again: None, .. }) => {
                Self::Never
            }
            (Self::Never, _) if matches!(failure, Failure::Quota) => Self::Never,
            (_, Hint { after: Some(wait), .. }) => Self::After(wait),
            (Self::Never, _) => Self::Soon,
            (known, _) => known,
        }
    }

    /// How long to wait before try number `tries + 1`. `chance`, from 0 to 1,
    /// takes up to a quarter off, so that those who failed together do not come
    /// back together; of the provider's own word nothing is taken off, but a
    /// little is added.
    pub fn pause(self, tries: u32, chance: f64) -> Option<Duration> {
        let doubled = |first: Duration| {
            let pause = first.saturating_mul(1 << tries.saturating_sub(1).min(16));
            pause.min(LONGEST).mul_f64(1.0 - chance / 4.0)
        };
        match self {
            Self::Never => None,
            Self::Soon => Some(doubled(FIRST)),
            Self::Slowly => Some(doubled(FIRST * 2)),
            Self::After(wait) => Some(wait + (wait / 10).min(FIRST).mul_f64(chance)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let pauses: Vec<_> = (1..8).map(|tries| Again::Soon.pause(tries, 0.0).unwrap()).collect();
        assert_eq!(pauses[..3], [500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(pauses[6], LONGEST);
        assert_eq!(Again::Soon.pause(1, 1.0), Some(Duration::from_millis(375)));
        let asked = Duration::from_secs(2);
        assert!(Again::After(asked).pause(5, 0.0).unwrap() >= asked);
        assert_eq!(Again::Never.pause(1, 0.0), None);
    }

    #[test]
    fn the_providers_own_word_decides() {
        let (again, after) = (|again| Hint { again, after: None }, Some(Duration::from_secs(3)));
        let waits = Hint { again: None, after };
        let of = |failure, hint| self::again(failure, true).hinted(failure, hint);
        assert_eq!(of(Failure::Unavailable, again(Some(false))), Again::Never);
        assert_eq!(of(Failure::BadRequest, again(Some(true))), Again::Soon);
        assert_eq!(of(Failure::Quota, again(Some(true))), Again::Never);
        assert_eq!(of(Failure::Overloaded, waits), Again::After(Duration::from_secs(3)));
        assert_eq!(of(Failure::BadRequest, waits), Again::Never);
        assert_eq!(of(Failure::Overloaded, again(None)), Again::Slowly);
    }

    #[test]
    fn what_may_have_been_done_is_repeated_only_where_it_may_be() {
        for failure in [Failure::Reset, Failure::Unavailable, Failure::Malformed, Failure::Cut] {
            assert_eq!(again(failure, true), Again::Soon);
            assert_eq!(again(failure, false), Again::Never);
        }
        assert_eq!(again(Failure::Overloaded, false), Again::Never);
        assert_eq!(again(Failure::Unreachable, false), Again::Soon, "nothing was sent");
        assert_eq!(again(Failure::Quota, true), Again::Never);
    }
}
