//! What can be done to one machine.
//!
//! Invariants:
//! - One verb at a time; each returns when what it says is so.
//! - A machine leaves DNS before it is told anything, and nothing of it runs
//!   when its state says stopped.

use crate::{
    machine::{Machine, Order, State},
    supervise,
};
use std::sync::Arc;

/// Starts what is stopped; the machine may still be booting.
pub(crate) async fn start(machine: &Arc<Machine>) {
    let _one = machine.verb.lock().await;
    start_held(machine);
}

/// For whoever holds the machine's verb.
pub(crate) fn start_held(machine: &Arc<Machine>) {
    if machine.state() == State::Stopped {
        machine.order.send_replace(Order::Run);
        machine.status.send_modify(|status| status.state = State::Started);
        tokio::spawn(supervise::run(Arc::clone(machine)));
    }
}

/// Politely, or with SIGKILL; it stays stopped.
pub(crate) async fn stop(machine: &Arc<Machine>, order: Order) {
    if order == Order::Kill {
        // also what is being stopped too slowly for somebody's taste
        machine.order.send_if_modified(|now| *now == Order::Stop && replace(now, order));
    }
    let _one = machine.verb.lock().await;
    stop_held(machine, order).await;
}

/// For whoever holds the machine's verb.
pub(crate) async fn stop_held(machine: &Arc<Machine>, order: Order) {
    if machine.state() == State::Stopped {
        return;
    }
    machine.status.send_modify(|status| status.state = State::Stopping);
    machine.order.send_replace(order);
    let mut status = machine.status.subscribe();
    let _state = status.wait_for(|status| status.state == State::Stopped).await;
}

fn replace(now: &mut Order, order: Order) -> bool {
    *now = order;
    true
}
