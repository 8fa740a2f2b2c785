//! One try of a call on one machine.
//!
//! Invariants:
//! - A frozen machine costs one try: a call that takes longer than is usual
//!   there asks it for a sign of life, and goes elsewhere without one.
//! - Slow work of a living machine is never cut short, nor a call that may not
//!   be repeated, nor one that has nowhere else to go.

use super::{Channel, Machine, ResponseBody, machine::Failure};
use crate::{
    error::{self, Kind},
    methods::Method,
};
use http::{Request, Response};
use std::{pin::pin, time::Duration};
use tokio::time::{self, Instant};
use tonic::body::Body;

/// A call may take this many times as long as is usual before its machine is
/// asked for a sign of life, and never less than `UNUSUAL`.
const SLOW: f64 = 4.0;
const UNUSUAL: Duration = Duration::from_millis(250);

impl Channel {
    /// One try on one machine.
    pub(super) async fn attempt(
        &self,
        machine: &Machine,
        request: Request<Body>,
        method: Option<Method>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let mut sending = pin!(machine.send(request, method));
        let Some(method) = method.filter(|method| method.repeatable()) else {
            return sending.await;
        };
        let usual = machine.load().latency(method.index, Instant::now()).unwrap_or_default();
        let mut patience = UNUSUAL.max(Duration::from_secs_f64((usual * SLOW).min(60.0)));
        loop {
            if let Ok(answer) = time::timeout(patience, &mut sending).await {
                return answer;
            }
            // By the time we know, another region may be connected.
            if !self.has_other(machine) {
                self.need_far();
            }
            // While the sign of life is awaited the answer may still come.
            let alive = tokio::select! {
                answer = &mut sending => return answer,
                alive = machine.is_alive() => alive,
            };
            if !alive && self.has_other(machine) {
                let message = format!("a machine of {} shows no sign of life", self.app());
                let reason = Some("NO_SIGN_OF_LIFE");
                let status = error::status(Kind::Unavailable, reason, None, message);
                return Err(Failure::Lost(status));
            }
            patience = if alive { patience * 2 } else { UNUSUAL };
        }
    }

    /// Whether there is a usable machine besides `this`.
    pub(super) fn has_other(&self, this: &Machine) -> bool {
        let now = Instant::now();
        let ready = self.0.ready.borrow();
        ready.machines.iter().any(|other| !other.is(this) && other.load().is_usable(now))
    }
}
