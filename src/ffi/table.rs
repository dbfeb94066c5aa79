//! Tables: rows in memory, of type set, bag or duplicate bag.

use std::ffi::{CStr, c_char, c_void};

use super::boundary::{boundary, boundary_or};
use super::handle::{Handle, Live, Out, borrow, bytes, free};
use super::sized::{SizedStruct, read_sized, write_defaults};
use super::status::etslock_status;
use super::tuples::etslock_tuples;
use crate::error::{Error, Result};
use crate::memory;
use crate::registry::{self, OpenTable};
use crate::table::{Access, Snapshot, TableOptions, TableType};

/// How many tuples a key may have, and which: for etslock_table_options.type.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum etslock_table_type {
    /// One tuple per key; an insert replaces it.
    ETSLOCK_SET = 0,
    /// Several tuples per key, all different, in order of insertion; inserting an equal one again
    /// changes nothing, its position included (C-9).
    ETSLOCK_BAG = 1,
    /// Several tuples per key, equal ones too, in order of insertion (C-9).
    ETSLOCK_DUPLICATE_BAG = 2,
}

/// Who may write: for etslock_table_options.access. Reading needs no lock in either.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum etslock_access {
    /// As in ETS: anyone may write without a lock.
    ETSLOCK_PUBLIC = 0,
    /// Writes only through a guard; every other write, clear included, gives ETSLOCK_ERR_GUARDED.
    ETSLOCK_GUARDED = 1,
}

/// Options of a table.
///
/// Make it with etslock_table_options_init, then change what you need. It is read during
/// etslock_table_new only.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_table_options {
    /// `sizeof(etslock_table_options)`, written by init.
    pub struct_size: u32,
    /// One of etslock_table_type. Default ETSLOCK_SET (0).
    pub r#type: i32,
    /// One of etslock_access. Default ETSLOCK_PUBLIC (0).
    pub access: i32,
    /// Must be 0.
    pub reserved: u32,
    /// NULL, the default: the table has no name. Else a name under which etslock_table_open finds
    /// it again in this process: UTF-8, 1 to 255 bytes, NUL-terminated. Copied.
    pub name: *const c_char,
}

/// A handle to a table: tuples in memory.
///
/// A program has a few of them, and keeps them for long. Each comes from etslock_table_new or etslock_table_open, and
/// lives until etslock_table_free. Several handles to one named table are the same table, also for
/// locks (C-1). The tuples live until the last handle is closed and the last guard and cursor of
/// the table has ended. Any number of threads may use a handle at once.
///
/// Methods:   etslock_table_new - makes a table.
///            etslock_table_open - one more handle to a named table.
///            etslock_table_free - closes the handle.
///            etslock_table_insert - inserts a tuple.
///            etslock_table_insert_new - inserts a tuple if the key has none.
///            etslock_table_lookup - all tuples of a key.
///            etslock_table_member - whether a key has a tuple.
///            etslock_table_take - removes all tuples of a key and returns them.
///            etslock_table_delete - removes all tuples of a key.
///            etslock_table_delete_tuple - removes every instance of one tuple.
///            etslock_table_clear - removes all tuples.
///            etslock_table_update_counter - adds to a number.
///            etslock_table_count - how many tuples there are.
///            etslock_table_cursor - starts an iteration.
///            etslock_with_lock, etslock_with_locks - run a callback with keys locked.
///            etslock_acquire, etslock_acquire_locks - return a guard for locked keys.
/// Since:     0.1
#[derive(Debug)]
pub struct etslock_table(Live<OpenTable>);

impl Handle for etslock_table {
    type Inner = OpenTable;
    fn enter(&self) -> Result<&OpenTable> {
        self.0.enter()
    }
}

impl Default for etslock_table_options {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            r#type: etslock_table_type::ETSLOCK_SET as i32,
            access: etslock_access::ETSLOCK_PUBLIC as i32,
            reserved: 0,
            name: std::ptr::null(),
        }
    }
}

// SAFETY: plain old data that begins with `struct_size`; no field was added since 0.1.
unsafe impl SizedStruct for etslock_table_options {
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl etslock_table_options {
    /// # Safety
    /// `name` is NULL or a C string that stays readable during the call.
    unsafe fn validate(&self) -> Result<TableOptions> {
        let r#type = match self.r#type {
            t if t == etslock_table_type::ETSLOCK_SET as i32 => TableType::Set,
            t if t == etslock_table_type::ETSLOCK_BAG as i32 => TableType::Bag,
            t if t == etslock_table_type::ETSLOCK_DUPLICATE_BAG as i32 => TableType::DuplicateBag,
            _ => return Err(Error::Invalid),
        };
        let access = match self.access {
            a if a == etslock_access::ETSLOCK_PUBLIC as i32 => Access::Public,
            a if a == etslock_access::ETSLOCK_GUARDED as i32 => Access::Guarded,
            _ => return Err(Error::Invalid),
        };
        if self.reserved != 0 {
            return Err(Error::Invalid);
        }
        // SAFETY: the contract above.
        let name = match unsafe { name(self.name) } {
            Ok(name) => Some(name),
            Err(Error::Null) => None,
            Err(error) => return Err(error),
        };
        Ok(TableOptions { r#type, access, name })
    }
}

/// A table's name.
///
/// # Safety
/// `name` is NULL or a C string that stays readable during the call.
unsafe fn name(name: *const c_char) -> Result<String> {
    const LONGEST: usize = 255;
    if name.is_null() {
        return Err(Error::Null);
    }
    // SAFETY: not NULL, and the contract above.
    let text = unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Error::Invalid)?;
    if text.is_empty() || text.len() > LONGEST { Err(Error::Invalid) } else { registry::copy(text) }
}

/// Writes the defaults of etslock_table_options.
///
/// Call it as `etslock_table_options_init(&options, sizeof options)`. With NULL, or a size without
/// room for struct_size, it does nothing.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `options` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_options_init(
    options: *mut etslock_table_options,
    size: usize,
) {
    // SAFETY: contract `options`: NULL, or writable for `size` bytes.
    unsafe { write_defaults(options, size) }
}

/// Makes a table.
///
/// NULL for `options` means the defaults: a set, public, without a name.
///
/// Ownership: `*out_table` is yours until etslock_table_free; NULL on failure. The name is copied.
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXISTS - another table of this process has the name.
///            ETSLOCK_ERR_NULL - `out_table` is NULL.
///            ETSLOCK_ERR_INVALID - type, access or name is out of range, or reserved is not 0.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a handle that forks can find.
/// Since:     0.1
///
/// # Safety
/// The contracts `options` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_new(
    options: *const etslock_table_options,
    out_table: *mut *mut etslock_table,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_table) }?;
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        // SAFETY: contract `options`: `name` is NULL or a C string.
        let options = unsafe { options.validate() }?;
        out.give(memory::boxed(etslock_table(Live::new(OpenTable::create(options)?)?))?);
        Ok(())
    })
}

/// One more handle to a named table.
///
/// The new handle is the same table as every other of that name: same tuples, same locks (C-1). A
/// name is free once its last handle is closed, even if guards remain; a table made under it then
/// is another table (C-14).
///
/// Ownership: `*out_table` is yours until etslock_table_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_NOT_FOUND - no table of this process has the name.
///            ETSLOCK_ERR_NULL - `name` or `out_table` is NULL.
///            ETSLOCK_ERR_INVALID - the name is empty, past 255 bytes, or not UTF-8.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a handle that forks can find.
/// Since:     0.1
///
/// # Safety
/// The contracts `name` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_open(
    name: *const c_char,
    out_table: *mut *mut etslock_table,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_table) }?;
        // SAFETY: contract `name`.
        let name = unsafe { self::name(name) }?;
        out.give(memory::boxed(etslock_table(Live::new(OpenTable::open(&name)?)?))?);
        Ok(())
    })
}

/// Closes a handle to a table.
///
/// Calls that wait for a lock through this handle return ETSLOCK_CLOSED. Running callbacks,
/// acquired guards, snapshots and cursors live on, and so does the table while they or other
/// handles need it (C-14).
///
/// Ownership: the handle is gone; NULL is fine.
/// Threads:   any thread, also while calls through the handle are under way, but none may begin.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_free(table: *mut etslock_table) {
    // SAFETY: contract `free`.
    boundary_or((), || unsafe { free(table) })
}

/// Inserts a tuple at once, without a lock.
///
/// In a set it replaces the tuple of the key. In a bag an equal tuple keeps its position; otherwise
/// the tuple comes last. The write is visible at once, and neither fenced by a lock nor undone,
/// also when a callback makes it (C-9): etslock_guard_insert is the write that belongs to a lock.
///
/// Ownership: key and value are copied.
/// Threads:   any thread.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_ERR_NULL - `table` is NULL, or `key` or `value` with a length above 0.
///            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
///            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the copies.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_insert(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `value`.
        let value = unsafe { bytes(value, value_len) }?;
        table.insert(key, value)
    })
}

/// Inserts a tuple at once, without a lock, if its key has none.
///
/// Of several callers at the same time exactly one succeeds. As etslock_table_insert, it knows
/// nothing of locks (C-9).
///
/// Ownership: key and value are copied.
/// Threads:   any thread.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_EXISTS - the key has a tuple; nothing changed.
///            ETSLOCK_ERR_NULL - `table` is NULL, or `key` or `value` with a length above 0.
///            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
///            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the copies.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_insert_new(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `value`.
        let value = unsafe { bytes(value, value_len) }?;
        table.insert_new(key, value)
    })
}

/// All tuples of a key, as they are now.
///
/// Needs no lock and waits for none: while somebody holds the key, it gives what was last
/// committed. The bytes are shared with the table, not copied; later writes do not change the
/// snapshot.
///
/// Ownership: `*out_tuples` is yours until etslock_tuples_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_NOT_FOUND - the key has no tuple.
///            ETSLOCK_ERR_NULL - `table` or `out_tuples` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_lookup(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    out_tuples: *mut *mut etslock_tuples,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_tuples) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        out.give(etslock_tuples::new(Snapshot::One(table.lookup(key)?))?);
        Ok(())
    })
}

/// Whether a key has a tuple now: ETSLOCK_OK or ETSLOCK_NOT_FOUND.
///
/// Needs no lock and waits for none.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_NOT_FOUND - the key has no tuple.
///            ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `table` and `key` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_member(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        if table.member(key)? { Ok(()) } else { Err(Error::NotFound) }
    })
}

/// Removes all tuples of a key at once, without a lock, and returns them.
///
/// One step: of several callers at the same time one gets the tuples. It knows nothing of locks
/// (C-9).
///
/// Ownership: `*out_tuples` is yours until etslock_tuples_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_NOT_FOUND - the key has no tuple.
///            ETSLOCK_ERR_NULL - `table` or `out_tuples` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_take(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    out_tuples: *mut *mut etslock_tuples,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_tuples) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        out.give(table.take_as(key, |tuples| etslock_tuples::new(Snapshot::One(tuples)))?);
        Ok(())
    })
}

/// Removes all tuples of a key at once, without a lock.
///
/// A key without a tuple is fine, as in ETS: ETSLOCK_OK. It knows nothing of locks (C-9).
///
/// Threads:   any thread.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `table` and `key` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_delete(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        table.delete(key)
    })
}

/// Removes every instance of one tuple at once, without a lock.
///
/// Other tuples of the key stay, in their order. No such tuple is fine: ETSLOCK_OK. It knows
/// nothing of locks (C-9).
///
/// Threads:   any thread.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_ERR_NULL - `table` is NULL, or `key` or `value` with a length above 0.
///            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
///            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
///            ETSLOCK_ERR_NO_MEMORY - no memory for copies of key and value.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_delete_tuple(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `value`.
        let value = unsafe { bytes(value, value_len) }?;
        table.delete_tuple(key, value)
    })
}

/// Removes all tuples of all keys, without a lock.
///
/// Each key goes in one step, not the table in one: a key that is inserted meanwhile may stay. It
/// knows nothing of locks (C-9).
///
/// Threads:   any thread.
/// Blocks:    as etslock_table_delete; takes time in proportion to the number of keys.
/// Errors:    ETSLOCK_ERR_NULL - `table` is NULL.
///            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the list of keys; nothing is removed.
/// Since:     0.1
///
/// # Safety
/// The contract `table` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_clear(table: *mut etslock_table) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        table.clear()
    })
}

/// Adds to the number that a key of a set holds, in one step, without a lock.
///
/// The value is the 8 bytes of an int64_t in the byte order of the machine. A key without a tuple
/// gets `initial + add`. On failure nothing changes. It knows nothing of locks (C-9).
///
/// Threads:   any thread.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_ERR_NULL - `table` or `out_value` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - the sum overflows, or `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_TYPE - the table is not a set, or the value is not 8 bytes long.
///            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_update_counter(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    add: i64,
    initial: i64,
    out_value: *mut i64,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::new(out_value) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        out.set(table.update_counter(key, add, initial)?);
        Ok(())
    })
}

/// How many tuples a table has.
///
/// Exact when nothing writes; otherwise a number that was nearly right a moment ago.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `table` or `out_tuples` is NULL.
/// Since:     0.1
///
/// # Safety
/// The contracts `table` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_table_count(
    table: *mut etslock_table,
    out_tuples: *mut usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::new(out_tuples) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        out.set(table.count());
        Ok(())
    })
}
