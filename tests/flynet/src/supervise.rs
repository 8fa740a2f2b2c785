//! Runs one machine: starts its process, restarts it by policy, ends it.
//!
//! Invariants:
//! - Between `started` and the process lies the boot; DNS lists the machine all
//!   that time.
//! - An ordered stop is never undone by the restart policy.
//! - Nothing of a machine is left when its state says stopped.
//! - A check never restarts a machine.

use crate::{
    checks,
    events::What,
    machine::{Machine, Order, State},
    process::{self, Exit},
    restart::{Restarts, WINDOW},
};
use nix::sys::signal::Signal;
use std::sync::Arc;
use tokio::{process::Child, time::Instant};

/// Until the machine is stopped, by order or by its policy.
pub(crate) async fn run(machine: Arc<Machine>) {
    let _checking = checks::begin(&machine);
    let config = Arc::clone(&machine.release().config);
    let window = machine.pace.scaled(WINDOW);
    let mut restarts = Restarts::new(config.restart, config.retries, window);
    let mut wait = machine.pace.boot;
    loop {
        if told_within(&machine, wait).await {
            return stopped(&machine, None);
        }
        let begun = Instant::now();
        let exit = match process::start(&machine) {
            Ok(child) => until_exit(&machine, child).await,
            Err(error) => {
                machine.note(What::Unrunnable { why: error.to_string() });
                process::note(&machine, &error.to_string(), false)
            }
        };
        let now = Instant::now();
        let again = restarts.next(exit.clean, now.duration_since(begun), now);
        // a suspended machine that lost its memory cannot go on where it was
        let over = *machine.order.borrow() != Order::Run || machine.state() != State::Started;
        match again {
            Some(next) if !over => wait = next,
            _ => return stopped(&machine, Some(exit)),
        }
        machine.status.send_modify(|status| {
            status.pid = None;
            status.frozen = false;
            status.exit = Some(exit.text);
        });
    }
}

fn stopped(machine: &Machine, exit: Option<Exit>) {
    machine.status.send_modify(|status| {
        status.pid = None;
        status.frozen = false;
        if let Some(exit) = exit {
            status.exit = Some(exit.text);
        }
        status.state = State::Stopped;
    });
    machine.note(What::Stopped);
}

async fn told_within(machine: &Machine, wait: std::time::Duration) -> bool {
    let mut order = machine.order.subscribe();
    let told = order.wait_for(|order| *order != Order::Run);
    tokio::time::timeout(wait, told).await.is_ok()
}

async fn until_exit(machine: &Machine, mut child: Child) -> Exit {
    let pid = process::pid(&child);
    let mut order = machine.order.subscribe();
    let ordered = tokio::select! {
        outcome = child.wait() => Err(outcome),
        told = order.wait_for(|order| *order != Order::Run) => Ok(told.map(|order| *order)),
    };
    let outcome = match ordered {
        Err(outcome) => outcome,
        Ok(told) => {
            let mut gone = false;
            if !matches!(told, Ok(Order::Kill)) {
                let release = machine.release();
                let signal = release.config.kill_signal;
                machine.note(What::Told { signal: signal.as_str().to_owned() });
                process::signal(pid, signal);
                let killed = order.wait_for(|order| *order == Order::Kill);
                tokio::select! {
                    _ = child.wait() => gone = true,
                    _ = tokio::time::timeout(release.kill_timeout, killed) => {}
                }
            }
            if !gone {
                machine.note(What::Killed);
            }
            process::signal_all(pid, Signal::SIGKILL);
            child.wait().await
        }
    };
    process::signal_all(pid, Signal::SIGKILL); // what it may have started itself
    match outcome {
        Ok(status) => process::ended(machine, status),
        Err(error) => process::note(machine, &error.to_string(), false),
    }
}
