//! How much a machine takes on, when it leaves by itself, and how it reaches
//! the platform.

use super::{Reader, Time, key};
use crate::load::Limits;
use std::{path::PathBuf, time::Duration};

/// Where Fly puts the Machines API of a machine's own app.
const FLY_API: &str = "/.fly/api";
/// Calls for each MiB of a machine's memory. A call whose reader has stopped
/// holds at most one stream window, 1 MiB, and few readers stop: two calls a MiB
/// leave room for every second call to hold half a window. Fly's own limit for
/// the public app (`hard_limit` in `fly/gateway.toml`) lies below.
const CALLS_PER_MIB: u64 = 2;
/// Memory to assume where the platform says nothing.
const DESK_MIB: u64 = 1024;
/// The soft limit is this part of the hard one: load may double twice while a
/// sibling boots.
const SOFT: u64 = 4;

#[derive(Clone, Debug)]
pub struct Life {
    pub limits: Limits,
    /// Leave after so long without work; `None`: never.
    pub idle_exit: Option<Duration>,
    /// `Some(true)`: never leaves. `None`: the platform is asked.
    pub core: Option<bool>,
    /// Unix socket of the Machines API.
    pub fly_api: PathBuf,
    /// End the process when its runtime stands still for so long; zero: never.
    pub watchdog: Duration,
}

impl Life {
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let memory = reader.platform("FLY_VM_MEMORY_MB").and_then(|mib| mib.parse().ok());
        let (soft, hard) = (key("mesh.soft-limit"), key("mesh.hard-limit"));
        let hard_limit = reader.or(hard, memory.unwrap_or(DESK_MIB).max(64) * CALLS_PER_MIB);
        let soft_limit = reader.or(soft, (hard_limit / SOFT).max(1));
        if soft_limit == 0 || soft_limit > hard_limit {
            let message = format!("must lie between 1 and the hard limit, {hard_limit}");
            reader.complain(soft, message);
        }
        let idle = key("mesh.idle-exit");
        let idle_exit = reader.optional::<Time>(idle).map(|time| time.0);
        if idle_exit.is_some_and(|time| time.is_zero()) {
            reader.complain(idle, "must be longer than 0s; leave it out to stay for ever");
        }
        let dog = key("mesh.watchdog");
        let watchdog = reader.or(dog, Time::from_secs(10)).0;
        if !watchdog.is_zero() && watchdog < Duration::from_secs(1) {
            reader.complain(dog, "below 1s a busy machine would look like a hung one");
        }
        Self {
            limits: Limits { soft: soft_limit, hard: hard_limit },
            idle_exit,
            core: reader.optional(key("mesh.core")),
            fly_api: reader.or(key("mesh.fly-api"), FLY_API.to_owned()).into(),
            watchdog,
        }
    }
}

impl Default for Life {
    /// On nobody's platform: takes what comes and stays.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            idle_exit: None,
            core: None,
            fly_api: FLY_API.into(),
            watchdog: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn read(environment: &[(&str, &str)]) -> Result<Life, String> {
        let sources = Sources::of(environment);
        let mut reader = sources.reader();
        let life = Life::read(&mut reader);
        reader.finish(|| Some(life)).map(|(life, _)| life).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_follow_the_machines_memory_unless_they_are_given() {
        let small = read(&[("FLY_VM_MEMORY_MB", "512")]).unwrap();
        assert_eq!(small.limits, Limits { soft: 256, hard: 1024 });
        let given = read(&[("SKEIN_MESH__HARD_LIMIT", "10"), ("SKEIN_MESH__SOFT_LIMIT", "3")]);
        assert_eq!(given.unwrap().limits, Limits { soft: 3, hard: 10 });
        let wrong = [("SKEIN_MESH__HARD_LIMIT", "2"), ("SKEIN_MESH__SOFT_LIMIT", "3")];
        assert!(read(&wrong).unwrap_err().contains("SKEIN_MESH__SOFT_LIMIT"));
    }

    #[test]
    fn nobody_leaves_or_is_core_unless_told() {
        let life = read(&[]).unwrap();
        assert_eq!((life.idle_exit, life.core), (None, None));
        let told = read(&[("SKEIN_MESH__IDLE_EXIT", "5m"), ("SKEIN_MESH__CORE", "true")]).unwrap();
        assert_eq!((told.idle_exit, told.core), (Some(Duration::from_secs(300)), Some(true)));
        assert!(read(&[("SKEIN_MESH__WATCHDOG", "10ms")]).is_err());
        assert_eq!(read(&[("SKEIN_MESH__WATCHDOG", "0s")]).unwrap().watchdog, Duration::ZERO);
    }
}
