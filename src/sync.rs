//! The only import of std or loom primitives.
//!
//! Atomics and parking come from loom when a model runs. Mutexes, `Arc` and `OnceLock` are always
//! std's: the state machines that the models check are made of atomics alone.

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

pub(crate) use std::sync::{Arc, MutexGuard, OnceLock};
pub(crate) use std::thread::{Thread, current, park, park_timeout};

/// A mutex whose critical sections leave its data valid at every step.
///
/// WHY: no poison. A panic is answered with `ETSLOCK_ERR_PANIC` where it happens; the key that
/// was being touched must stay usable for everybody else.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(|poison| poison.into_inner())
    }
}
