//! What can be done to one machine.
//!
//! Invariants:
//! - One verb at a time; each returns when what it says is so.
//! - A machine leaves DNS before it is told anything, and nothing of it runs
//!   when its state says stopped.
//! - Freezing is a fault, not a state of Fly's: the machine stays `started`.

use crate::{
    error::Error,
    events::What,
    machine::{Machine, Order, State, Status},
    process, supervise,
};
use nix::{sys::signal::Signal, unistd::Pid};
use std::sync::Arc;

/// Starts what is stopped, resumes what is suspended; it may still be booting.
pub(crate) async fn start(machine: &Arc<Machine>) {
    let _one = machine.verb.lock().await;
    start_held(machine);
}

/// For whoever holds the machine's verb.
pub(crate) fn start_held(machine: &Arc<Machine>) {
    match machine.state() {
        State::Stopped => {
            machine.order.send_replace(Order::Run);
            machine.status.send_modify(|status| status.state = State::Started);
            machine.note(What::Started);
            tokio::spawn(supervise::run(Arc::clone(machine)));
        }
        State::Suspended => {
            machine.status.send_modify(|status| status.state = State::Started);
            hold_or_go(&machine.status.borrow());
            machine.note(What::Resumed);
        }
        State::Started | State::Stopping => {}
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
    let order = match machine.state() {
        State::Stopped => return,
        // its snapshot is dropped; there is nobody to tell
        State::Suspended => Order::Kill,
        State::Started | State::Stopping => order,
    };
    machine.status.send_modify(|status| status.state = State::Stopping);
    machine.order.send_replace(order);
    let mut status = machine.status.subscribe();
    let _state = status.wait_for(|status| status.state == State::Stopped).await;
}

/// Out of DNS and without CPU, memory and sockets kept; one that has no process
/// yet is stopped instead, as Fly falls back.
pub(crate) async fn suspend(machine: &Arc<Machine>) {
    let _one = machine.verb.lock().await;
    let (state, pid) = {
        let status = machine.status.borrow();
        (status.state, status.pid)
    };
    if state != State::Started {
        return;
    }
    if pid.is_none() {
        return stop_held(machine, Order::Stop).await;
    }
    machine.status.send_modify(|status| status.state = State::Suspended);
    hold_or_go(&machine.status.borrow());
    machine.note(What::Suspended);
}

/// SIGSTOP: the sockets stay, nobody answers. Fly does not know.
pub(crate) fn freeze(machine: &Machine, frozen: bool) -> Result<(), Error> {
    if machine.status.borrow().pid.is_none() {
        let (app, machine) = (machine.app.clone(), machine.id.clone());
        return Err(Error::NotRunning { app, machine });
    }
    machine.status.send_modify(|status| status.frozen = frozen);
    hold_or_go(&machine.status.borrow());
    machine.note(if frozen { What::Frozen } else { What::Thawed });
    Ok(())
}

fn hold_or_go(status: &Status) {
    let pid = status.pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let held = status.frozen || status.state == State::Suspended;
    process::signal_all(pid, if held { Signal::SIGSTOP } else { Signal::SIGCONT });
}

fn replace(now: &mut Order, order: Order) -> bool {
    *now = order;
    true
}
