//! Where writers sleep until a row is free: places by hash, for rows are two words only.

use std::hint;
use std::sync::{Condvar, MutexGuard};

use super::row::Row;
use crate::process::PerProcess;
use crate::sync::Mutex;

#[derive(Debug, Default)]
struct Place {
    mutex: Mutex<()>,
    woken: Condvar,
}

const PLACES: usize = 64;

/// WHY: a child of a fork has its own: it would inherit mutexes of threads that it does not have.
fn place(hash: u64) -> &'static Place {
    static PLACES_OF_PROCESS: PerProcess<[Place; PLACES]> = PerProcess::new();
    let places = PLACES_OF_PROCESS.get(|| std::array::from_fn(|_| Place::default()));
    &places[hash as usize % PLACES]
}

/// A thread about to sleep.
pub(super) struct Sleep(MutexGuard<'static, ()>, &'static Place);

/// Prepares to sleep until the row of a key of this hash is unlocked; `None` if it is.
pub(super) fn sleep_until_free(hash: u64, row: &Row) -> Option<Sleep> {
    /// Most writers are done in a moment.
    const CLOSE_LOOKS: usize = 100;
    for _ in 0..CLOSE_LOOKS {
        if !row.is_locked() {
            return None;
        }
        hint::spin_loop();
    }
    let place = place(hash);
    let guard = place.mutex.lock();
    // Under the mutex: who unlocks it from here on finds the sleeper, or waits for it to sleep.
    row.wait_for().then_some(Sleep(guard, place))
}

impl Sleep {
    /// Sleeps. To be called unpinned: it may take as long as it takes to make a long list.
    pub(super) fn sleep(self) {
        drop(self.1.woken.wait(self.0));
    }
}

/// Wakes those who sleep for the row of a key of this hash.
#[cold]
pub(super) fn wake(hash: u64) {
    let place = place(hash);
    drop(place.mutex.lock());
    place.woken.notify_all();
}
