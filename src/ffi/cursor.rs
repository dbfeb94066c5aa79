//! Cursors: pull iteration over the keys of a table.

use std::sync::Mutex;

use super::boundary::{boundary, boundary_or};
use super::handle::{Handle, Live, Out, borrow, free};
use super::status::etslock_status;
use super::table::etslock_table;
use super::tuples::etslock_tuples;
use crate::error::{Error, Result};
use crate::memory;
use crate::table::{Cursor, Snapshot};

/// An iteration over the keys of a table.
///
/// Made for each iteration. It comes from etslock_table_cursor and lives until
/// etslock_cursor_free; it outlives the table's handle (C-14). Between calls it holds no lock and
/// keeps no writer from anything, so that it may be left alone for as long as you like. Any thread
/// may use it, one at a time.
///
/// Methods:   etslock_cursor_next - the tuples of the next key.
///            etslock_cursor_free - ends the iteration.
/// Since:     0.1
#[derive(Debug)]
pub struct etslock_cursor(Live<Mutex<Cursor>>);

impl Handle for etslock_cursor {
    type Inner = Mutex<Cursor>;
    fn enter(&self) -> Result<&Self::Inner> {
        self.0.enter()
    }
}

/// Starts an iteration over the keys of a table.
///
/// A key that is present throughout comes exactly once; one that comes or goes meanwhile, at most
/// once. The order is any.
///
/// Ownership: `*out_cursor` is yours until etslock_cursor_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `table` or `out_cursor` is NULL.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the list of keys.
/// Since:     0.1
///
/// # Safety
/// The contracts `table` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_cursor(
    table: *mut etslock_table,
    out_cursor: *mut *mut etslock_cursor,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_cursor) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        let cursor = Live::new(Mutex::new(table.cursor()?))?;
        out.give(memory::boxed(etslock_cursor(cursor))?);
        Ok(())
    })
}

/// All tuples of the next key, as they are now.
///
/// After the last key it answers ETSLOCK_NOT_FOUND, and so does every later call.
///
/// Ownership: `*out_tuples` is yours until etslock_tuples_free, and outlives the cursor; NULL on
///            failure.
/// Threads:   one thread at a time per `cursor`.
/// Blocks:    no.
/// Errors:    ETSLOCK_NOT_FOUND - there is no further key.
///            ETSLOCK_ERR_NULL - `cursor` or `out_tuples` is NULL.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the tuples; the next call has them.
/// Since:     0.1
///
/// # Safety
/// The contracts `cursor` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_cursor_next(
    cursor: *mut etslock_cursor,
    out_tuples: *mut *mut etslock_tuples,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_tuples) }?;
        // SAFETY: contract `cursor`.
        let cursor = unsafe { borrow(cursor) }?;
        let mut cursor = cursor.lock().unwrap_or_else(|poison| poison.into_inner());
        let view = cursor.next_as(|tuples| etslock_tuples::new(Snapshot::One(tuples)))?;
        out.give(view.ok_or(Error::NotFound)?);
        Ok(())
    })
}

/// Ends an iteration, at any point of it.
///
/// Ownership: the cursor is gone, its snapshots live on; NULL is fine.
/// Threads:   any thread, not while another uses the cursor.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_cursor_free(cursor: *mut etslock_cursor) {
    // SAFETY: contract `free`.
    boundary_or((), || unsafe { free(cursor) })
}
