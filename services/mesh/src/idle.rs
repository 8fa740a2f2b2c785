//! When a machine leaves because it has nothing to do.
//!
//! Fly's autostop never sees traffic of the private network, so a machine counts
//! its own work and exits 0 after `mesh.idle-exit` without any; with the restart
//! policy `on-failure` Fly then leaves it stopped. The next call wakes one
//! ([`crate::wake`]).
//!
//! Who stays. A machine can tell from three things, and stays in doubt:
//! - `mesh.core = true`, when all machines of the app are to stay;
//! - its own metadata `skein_core`, which somebody set on this machine alone
//!   (`fly machine update <id> --metadata skein_core=1`) and which survives
//!   deploys. It is read from the platform each time, so it can be changed
//!   without a restart;
//! - its own restart policy: under `always` an exit is only a restart.
//!
//! `mesh.core = false` leaves without asking the platform.
//!
//! Invariants:
//! - Nobody leaves who cannot be woken: with `<app>.flycast` the proxy starts a
//!   machine for whoever connects; without it a started sibling must be left to
//!   ask. Siblings see each other, so the one with the lowest id stays.
//! - Work that begins while the machine makes up its mind keeps it.

use crate::{
    load::Load,
    machines::{Listed, Machines},
};
use std::time::Duration;
use tokio::time::{self, Instant};

/// The metadata that keeps a machine.
pub const CORE: &str = "skein_core";

/// What a machine must know to leave.
pub struct Idle {
    pub after: Duration,
    pub core: Option<bool>,
    pub load: Load,
    pub machines: Machines,
    pub siblings: Siblings,
}

/// How the last of us could be woken, by the DNS of the private network.
pub struct Siblings {
    pub own: String,
    pub network: crate::world::Network,
}

impl Idle {
    /// Until there was nothing to do for long enough and nothing speaks against
    /// leaving.
    pub async fn until_free_to_leave(self) {
        if self.core == Some(true) {
            std::future::pending::<()>().await;
        }
        let mut told = String::new();
        loop {
            let begun = self.quiet().await;
            match self.objection().await {
                Some(objection) if objection != told => {
                    tracing::info!(reason = objection, "idle, but stays");
                    told = objection;
                }
                Some(_) => {}
                None if self.is_quiet_since(begun) => return,
                None => {}
            }
        }
    }

    /// Until there was no work for the whole time; what had begun by then.
    async fn quiet(&self) -> u64 {
        let look = (self.after / 20).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let (mut begun, mut since) = (self.load.begun(), Instant::now());
        while since.elapsed() < self.after {
            time::sleep(look).await;
            if !self.is_quiet_since(begun) {
                (begun, since) = (self.load.begun(), Instant::now());
            }
        }
        begun
    }

    fn is_quiet_since(&self, begun: u64) -> bool {
        self.load.in_flight() == 0 && self.load.begun() == begun
    }

    async fn objection(&self) -> Option<String> {
        if self.core != Some(false) {
            match self.machines.own().await {
                Ok(own) => {
                    if let Some(objection) = is_core(&own) {
                        return Some(objection.to_owned());
                    }
                }
                Err(error) => return Some(format!("cannot ask whether it may leave: {error}")),
            }
        }
        self.siblings.objection().await.map(str::to_owned)
    }
}

fn is_core(own: &Listed) -> Option<&'static str> {
    let core = own.config.metadata.get(CORE).is_some_and(|value| !matches!(&**value, "" | "0"));
    if core {
        Some("its metadata says skein_core")
    } else if own.config.restart.policy == "always" {
        Some("its restart policy is `always`")
    } else {
        None
    }
}

impl Siblings {
    async fn objection(&self) -> Option<&'static str> {
        if self.network.has_flycast().await {
            return None;
        }
        let Some(started) = self.network.own_machines_started().await else {
            return Some("DNS cannot say who else is started");
        };
        let someone_stays = started.iter().any(|id| *id < self.own);
        (!someone_stays).then_some("nobody could wake it: no sibling stays and no flycast address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_restart_policy_keep_a_machine() {
        let own = |text: &str| is_core(&serde_json::from_str(text).unwrap()).is_some();
        assert!(own(r#"{"id":"a","config":{"metadata":{"skein_core":"1"}}}"#));
        assert!(own(r#"{"id":"a","config":{"restart":{"policy":"always"}}}"#));
        assert!(!own(r#"{"id":"a","config":{"metadata":{"skein_core":"0"}}}"#));
        assert!(!own(r#"{"id":"a","config":{"restart":{"policy":"on-failure"}}}"#));
    }
}
