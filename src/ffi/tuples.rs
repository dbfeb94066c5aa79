//! Tuples: an immutable snapshot of the tuples of a key, as C sees it.

use std::mem;

use super::boundary::brief_or;
use super::handle::read;
use crate::error::Result;
use crate::memory;
use crate::sync::{Mutex, OnceLock};
use crate::table::{Snapshot, Tuples};

/// One {key, value}. Never grows.
///
/// The bytes are immutable, not aligned and not NUL-terminated. They live as long as the snapshot
/// that shows them, or until the callback returns that was given them.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_tuple {
    /// The key; readable for key_len bytes.
    pub key: *const u8,
    /// Bytes in the key; may be 0.
    pub key_len: usize,
    /// The value; readable for value_len bytes.
    pub value: *const u8,
    /// Bytes in the value; may be 0.
    pub value_len: usize,
}

/// A snapshot of the tuples of a key.
///
/// Made by each lookup, and short-lived: it keeps the bytes it shows in memory after the table has
/// let go of them. It comes from etslock_table_lookup, etslock_table_take, etslock_cursor_next or
/// etslock_guard_lookup, and lives until etslock_tuples_free, whatever happens to the table, the
/// cursor or the guard (C-14). It never changes: any number of threads may read it at once. It
/// stays readable in a forked child (C-16).
///
/// Methods:   etslock_tuples_data - its tuples, as an array.
///            etslock_tuples_free - frees it.
/// Since:     0.1
#[derive(Debug)]
pub struct etslock_tuples {
    /// Owns the bytes that the view points to. Neither changed nor moved once the view is made.
    groups: Snapshot,
    /// The view of one tuple.
    one: etslock_tuple,
    /// The view of several.
    many: Many,
}

/// WHY: a long one is made when it is looked at. Who looks up a hundred thousand tuples for one of
/// them, or to count them, or to see whether they have changed, makes the list anyway; who takes them
/// over to another language does not.
#[derive(Debug, Default)]
struct Many {
    count: usize,
    /// Room for it, so that a look cannot fail (C-24).
    room: Mutex<Vec<etslock_tuple>>,
    view: OnceLock<Vec<etslock_tuple>>,
}

// SAFETY: the view points into `groups`, which is immutable and itself Send and Sync.
unsafe impl Send for etslock_tuples {}
// SAFETY: as above; the view is made once, by whoever looks first.
unsafe impl Sync for etslock_tuples {}

impl etslock_tuples {
    pub(super) fn new(groups: Snapshot) -> Result<Box<Self>> {
        /// Up to here the view is made at once.
        const SHORT: usize = 64;
        let one = etslock_tuple::NONE;
        let mut tuples = memory::boxed(Self { groups, one, many: Many::default() })?;
        // Only now the bytes have come to rest.
        match tuples.groups.groups() {
            [only] if only.len() == 1 => tuples.one = etslock_tuple::first_of(only),
            groups => {
                let count = groups.iter().map(Tuples::len).sum();
                tuples.many =
                    Many { count, room: Mutex::new(memory::list(count)?), ..Many::default() };
                if count <= SHORT {
                    tuples.view();
                }
            }
        }
        Ok(tuples)
    }

    fn view(&self) -> &[etslock_tuple] {
        self.many.view.get_or_init(|| {
            let mut view = mem::take(&mut *self.many.room.lock());
            view.extend(self.groups.groups().iter().flat_map(etslock_tuple::all_of));
            view
        })
    }

    /// The tuples; NULL if there are none.
    pub(super) fn as_ptr(&self) -> *const etslock_tuple {
        match self.len() {
            0 => std::ptr::null(),
            1 if self.many.count == 0 => &raw const self.one,
            _ => self.view().as_ptr(),
        }
    }

    pub(super) fn len(&self) -> usize {
        if self.one.key.is_null() { self.many.count } else { 1 }
    }
}

impl etslock_tuple {
    const NONE: Self =
        Self { key: std::ptr::null(), key_len: 0, value: std::ptr::null(), value_len: 0 };

    fn new(key: &[u8], value: &[u8]) -> Self {
        Self {
            key: key.as_ptr(),
            key_len: key.len(),
            value: value.as_ptr(),
            value_len: value.len(),
        }
    }

    /// Valid as long as `tuples` neither moves nor ends.
    pub(super) fn first_of(tuples: &Tuples) -> Self {
        tuples.values().next().map_or(Self::NONE, |value| Self::new(tuples.key(), value))
    }

    fn all_of(tuples: &Tuples) -> impl Iterator<Item = Self> + '_ {
        tuples.values().map(|value| Self::new(tuples.key(), value))
    }
}

/// The tuples of a snapshot, as an array.
///
/// In a bag they stand in order of insertion. NULL for `tuples` gives NULL and a count of 0, so
/// that the answer to an ETSLOCK_NOT_FOUND needs no branch. `out_count` may be NULL.
///
/// Ownership: the array and its bytes belong to the snapshot, and live until etslock_tuples_free.
/// Threads:   any thread, any number at once.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contracts `tuples` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_tuples_data(
    tuples: *const etslock_tuples,
    out_count: *mut usize,
) -> *const etslock_tuple {
    brief_or(std::ptr::null(), || {
        // SAFETY: contract `tuples`: NULL or a live snapshot, immutable.
        let (data, count) = match unsafe { read(tuples) } {
            Ok(tuples) => (tuples.as_ptr(), tuples.len()),
            Err(_) => (std::ptr::null(), 0),
        };
        // SAFETY: contract `out`: NULL, or writable by this thread alone.
        if let Some(out) = unsafe { out_count.as_mut() } {
            *out = count;
        }
        data
    })
}

/// Frees a snapshot of tuples.
///
/// Ownership: the snapshot and every pointer into it are gone; NULL is fine.
/// Threads:   any thread, not while another reads the snapshot.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_tuples_free(tuples: *mut etslock_tuples) {
    brief_or((), || {
        if !tuples.is_null() {
            // SAFETY: contract `free`: it came from this library and nobody uses it afterwards.
            drop(unsafe { Box::from_raw(tuples) });
        }
    })
}
