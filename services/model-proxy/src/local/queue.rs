//! Jobs for a thread that computes: bounded, the urgent ones first.
//!
//! Invariants:
//! - A full queue refuses at once; nobody waits to be allowed to wait.
//! - A question's embedding overtakes the bulk of an ingestion.

use crate::error::Error;
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

pub struct Queue<T> {
    jobs: Mutex<Jobs<T>>,
    wake: Condvar,
    limit: usize,
}

struct Jobs<T> {
    urgent: VecDeque<T>,
    plain: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub fn new(limit: usize) -> Self {
        let jobs = Jobs { urgent: VecDeque::new(), plain: VecDeque::new(), closed: false };
        Self { jobs: Mutex::new(jobs), wake: Condvar::new(), limit }
    }

    pub fn push(&self, job: T, urgent: bool) -> Result<(), Error> {
        let mut jobs = self.lock();
        let waiting = jobs.urgent.len() + jobs.plain.len();
        if waiting >= self.limit {
            return Err(Error::Busy(waiting));
        }
        if urgent {
            jobs.urgent.push_back(job);
        } else {
            jobs.plain.push_back(job);
        }
        drop(jobs);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits for the next job; `None` once the queue is closed.
    pub fn pop(&self) -> Option<T> {
        let mut jobs = self.lock();
        loop {
            if jobs.closed {
                return None;
            }
            if let Some(job) = jobs.urgent.pop_front().or_else(|| jobs.plain.pop_front()) {
                return Some(job);
            }
            jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An urgent job that may go between two steps of a long one.
    pub fn pop_urgent(&self) -> Option<T> {
        self.lock().urgent.pop_front()
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Jobs<T>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_jobs_overtake_and_a_full_queue_refuses() {
        let queue = Queue::new(3);
        queue.push("bulk 1", false).unwrap();
        queue.push("bulk 2", false).unwrap();
        queue.push("question", true).unwrap();
        assert!(matches!(queue.push("more", true), Err(Error::Busy(3))));
        assert_eq!(queue.pop(), Some("question"));
        assert_eq!(queue.pop_urgent(), None);
        assert_eq!(queue.pop(), Some("bulk 1"));
        queue.close();
        assert_eq!(queue.pop(), None);
    }
}
