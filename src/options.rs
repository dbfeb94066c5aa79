//! The options of a lock call, and every default.

use std::time::Duration;

use crate::clock::Timeout;
use crate::lock::{LockTable, Owner, Stop, WaitMode};

/// Where a callback runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOn {
    /// On an internal thread.
    Worker,
    /// On the calling thread.
    Caller,
}

/// What happens to a callback that outlived its time (C-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExecTimeout {
    /// It runs out, fenced.
    Abandon,
    /// It is waited for.
    Join,
    /// Its thread is cancelled.
    Kill,
}

/// The options of a lock call.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long to wait for the lock, counted from the call.
    pub wait: Timeout,
    /// How long to hold it, counted from the acquisition.
    pub exec: Timeout,
    /// How long after the exec deadline a waiter may delete the lock.
    pub fail: Timeout,
    /// The pause between the attempts of a polling waiter.
    pub spin_delay: Duration,
    /// `None`: the process's default one.
    pub lock_table: Option<LockTable>,
    /// Where a callback runs.
    pub run_on: RunOn,
    /// How to wait.
    pub queue: WaitMode,
    /// What a callback returns to have its writes published.
    pub commit_code: i32,
    /// What happens to a late callback.
    pub on_exec_timeout: OnExecTimeout,
    /// Who holds and waits.
    pub owner: Owner,
    /// `None`, or what ends the wait early.
    pub stop: Option<Stop>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wait: Timeout::millis(5000),
            exec: Timeout::millis(5000),
            fail: Timeout::millis(1000),
            spin_delay: Duration::from_millis(2),
            lock_table: None,
            run_on: RunOn::Worker,
            queue: WaitMode::Fair,
            commit_code: 0,
            on_exec_timeout: OnExecTimeout::Abandon,
            owner: Owner::Current,
            stop: None,
        }
    }
}
