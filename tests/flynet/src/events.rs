//! What happened to the machines, in the order in which it happened.
//!
//! Invariants:
//! - Whatever changes a machine's state leaves an event, with the time at which
//!   the state was true.
//! - Old events go before memory does.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

const KEPT: usize = 1 << 16;

#[derive(Clone, Debug)]
pub struct Event {
    pub at: Instant,
    pub machine: String,
    pub app: String,
    pub region: String,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Created,
    /// In DNS from now on; the program may still be to come.
    Started,
    /// The program runs.
    Booted {
        pid: u32,
    },
    /// The kill signal, on an ordered stop.
    Told {
        signal: String,
    },
    /// SIGKILL by us: ordered, or the kill timeout had passed.
    Killed,
    /// The program has ended: its exit code, or the signal that ended it.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    /// The program could not be run at all.
    Unrunnable {
        why: String,
    },
    Stopped,
    Suspended,
    Resumed,
    Frozen,
    Thawed,
    Deployed {
        version: String,
    },
    Destroyed,
    /// A health check changed its mind.
    Checked {
        name: String,
        passing: bool,
    },
}

pub(crate) struct Events {
    began: Instant,
    log: watch::Sender<VecDeque<Event>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), log: watch::Sender::default() }
    }

    pub(crate) fn add(&self, event: Event) {
        self.log.send_modify(|log| {
            if log.len() == KEPT {
                log.pop_front();
            }
            log.push_back(event);
        });
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.log.borrow().iter().cloned().collect()
    }

    /// The first event that `of` picks, now or later.
    pub(crate) async fn until(&self, of: impl Fn(&Event) -> bool) -> Event {
        let mut log = self.log.subscribe();
        loop {
            let found = log.borrow_and_update().iter().find(|event| of(event)).cloned();
            if let Some(event) = found {
                return event;
            }
            if log.changed().await.is_err() {
                std::future::pending::<()>().await; // we hold the sender
            }
        }
    }

    /// Event and time since the network began.
    pub(crate) fn timed(&self) -> Vec<(Duration, Event)> {
        let since = |event: &Event| event.at.saturating_duration_since(self.began);
        self.log.borrow().iter().map(|event| (since(event), event.clone())).collect()
    }
}

/// How many machines ran, and when that changed.
#[derive(Clone, Debug)]
pub struct Timeline {
    pub rows: Vec<Running>,
}

/// From this moment on, this many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Since the network began.
    pub after: Duration,
    pub app: String,
    pub region: String,
    pub machines: usize,
}

impl Timeline {
    pub(crate) fn of(events: &[(Duration, Event)]) -> Self {
        let mut up: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let mut rows = Vec::new();
        for (after, event) in events {
            let running = up.entry((&event.app, &event.region)).or_default();
            let before = running.len();
            running.retain(|machine| *machine != event.machine || !event.what.ends_running());
            if event.what.begins_running() && !running.contains(&&*event.machine) {
                running.push(&event.machine);
            }
            if running.len() != before {
                rows.push(Running {
                    after: *after,
                    app: event.app.clone(),
                    region: event.region.clone(),
                    machines: running.len(),
                });
            }
        }
        Self { rows }
    }

    /// The most machines of an app in a region at one time.
    pub fn peak(&self, app: &str, region: &str) -> usize {
        let rows = self.rows.iter().filter(|row| row.app == app && row.region == region);
        rows.map(|row| row.machines).max().unwrap_or_default()
    }
}

impl What {
    fn begins_running(&self) -> bool {
        matches!(self, Self::Started | Self::Resumed)
    }

    fn ends_running(&self) -> bool {
        matches!(self, Self::Stopped | Self::Suspended | Self::Destroyed)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9}  {:<24} {:<6} MACHINES", "SECONDS", "APP", "REGION")?;
        for Running { after, app, region, machines } in &self.rows {
            let (seconds, bar) = (after.as_secs_f64(), "#".repeat(*machines));
            writeln!(f, "{seconds:>9.3}  {app:<24} {region:<6} {machines} {bar}")?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Started => f.write_str("started"),
            Self::Booted { pid } => write!(f, "booted as process {pid}"),
            Self::Told { signal } => write!(f, "told to go with {signal}"),
            Self::Killed => f.write_str("killed with SIGKILL"),
            Self::Exited { code: Some(code), .. } => write!(f, "exited with code {code}"),
            Self::Exited { signal: Some(signal), .. } => write!(f, "ended by signal {signal}"),
            Self::Exited { .. } => f.write_str("ended"),
            Self::Unrunnable { why } => write!(f, "could not be run: {why}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Suspended => f.write_str("suspended"),
            Self::Resumed => f.write_str("resumed"),
            Self::Frozen => f.write_str("frozen"),
            Self::Thawed => f.write_str("thawed"),
            Self::Deployed { version } => write!(f, "deployed {version}"),
            Self::Destroyed => f.write_str("destroyed"),
            Self::Checked { name, passing: true } => write!(f, "check {name} passes"),
            Self::Checked { name, passing: false } => write!(f, "check {name} fails"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_over_time_follow_starts_and_stops() {
        let event = |machine: &str, what| {
            let app = "a-router".to_owned();
            let at = Instant::now();
            let (machine, region) = (machine.to_owned(), "iad".to_owned());
            (Duration::from_secs(1), Event { at, machine, app, region, what })
        };
        let exited = What::Exited { code: Some(0), signal: None };
        let line = Timeline::of(&[
            event("a", What::Started),
            event("b", What::Started),
            event("b", exited),
            event("b", What::Stopped),
            event("a", What::Suspended),
            event("a", What::Resumed),
            event("a", What::Destroyed),
        ]);
        let counts: Vec<_> = line.rows.iter().map(|row| row.machines).collect();
        assert_eq!(counts, [1, 2, 1, 0, 1, 0]);
        assert_eq!((line.peak("a-router", "iad"), line.peak("a-router", "fra")), (2, 0));
        assert!(line.to_string().contains("2 ##"));
    }

    #[test]
    fn old_events_go_first() {
        let events = Events::new();
        for n in 0..=KEPT {
            let (app, region) = (String::new(), String::new());
            let machine = n.to_string();
            events.add(Event { at: Instant::now(), machine, app, region, what: What::Stopped });
        }
        let all = events.all();
        assert_eq!((all.len(), all[0].machine.as_str()), (KEPT, "1"));
    }
}
