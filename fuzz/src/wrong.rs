//! Calls with one wrong argument: each has its status, and nothing changes, which the next
//! comparison with the model shows.

use std::ffi::{CStr, c_void};
use std::ptr;

use crate::api::{self, *};
use crate::locks::default_options;
use crate::world::{World, at, stats_of, unset};

extern "C-unwind" fn must_not_run(_: *mut Guard, _: *const Tuple, _: usize, _: *mut c_void) -> i32 {
    panic!("a callback ran that must not");
}

/// A length that no object has.
const TOO_LONG: usize = isize::MAX as usize + 1;

/// A completion that nothing was written to.
const UNFETCHED: Completion = Completion {
    ticket: 0,
    user_data: ptr::null_mut(),
    guard: ptr::null_mut(),
    status: 77,
    reserved: 0,
};

impl World {
    pub fn wrong_call(&mut self) {
        let open = self.some_table();
        let choice = self.input.byte();
        match self.input.below(4) {
            1 if choice >= 192 => self.wrong_begin(open.table, choice),
            2 if choice >= 192 => self.wrong_call_in(open.table, choice),
            0 => self.wrong_table_call(open.table, choice),
            1 => self.wrong_lock_call(open.table, choice),
            2 => self.wrong_guard_call(choice),
            _ => self.wrong_look(choice),
        }
    }

    fn wrong_table_call(&self, table: *mut Table, choice: u8) {
        let (null, key, value) = (ptr::null::<u8>(), b"a".as_ptr(), b"x".as_ptr());
        let none = ptr::null_mut::<Table>();
        let mut tuples = unset::<Tuples>();
        let out = &raw mut tuples;
        let no_out = ptr::null_mut();
        let (mut number, mut count) = (77, 77);
        let (status, wanted) = match choice % 32 {
            0 => (etslock_table_insert(none, key, 1, value, 1), ERR_NULL),
            1 => (etslock_table_insert(table, null, 1, value, 1), ERR_NULL),
            2 => (etslock_table_insert(table, key, 1, null, 1), ERR_NULL),
            3 => (etslock_table_insert(table, key, TOO_LONG, value, 1), ERR_INVALID),
            4 => (etslock_table_insert(table, key, 1, value, usize::MAX), ERR_INVALID),
            5 => (etslock_table_insert_new(none, key, 1, value, 1), ERR_NULL),
            6 => (etslock_table_insert_new(table, null, 1, value, 1), ERR_NULL),
            7 => (etslock_table_insert_new(table, key, 1, null, 1), ERR_NULL),
            8 => (etslock_table_lookup(none, key, 1, out), ERR_NULL),
            9 => (etslock_table_lookup(table, null, 1, out), ERR_NULL),
            10 => (etslock_table_lookup(table, key, 1, no_out), ERR_NULL),
            11 => (etslock_table_lookup(table, key, TOO_LONG, out), ERR_INVALID),
            12 => (etslock_table_member(none, key, 1), ERR_NULL),
            13 => (etslock_table_member(table, null, 1), ERR_NULL),
            14 => (etslock_table_take(none, key, 1, out), ERR_NULL),
            15 => (etslock_table_take(table, null, 1, out), ERR_NULL),
            16 => (etslock_table_take(table, key, 1, no_out), ERR_NULL),
            17 => (etslock_table_delete(none, key, 1), ERR_NULL),
            18 => (etslock_table_delete(table, null, 1), ERR_NULL),
            19 => (etslock_table_delete_tuple(none, key, 1, value, 1), ERR_NULL),
            20 => (etslock_table_delete_tuple(table, null, 1, value, 1), ERR_NULL),
            21 => (etslock_table_delete_tuple(table, key, 1, null, 1), ERR_NULL),
            22 => (etslock_table_clear(none), ERR_NULL),
            23 => (etslock_table_update_counter(none, key, 1, 1, 0, &mut number), ERR_NULL),
            24 => (etslock_table_update_counter(table, null, 1, 1, 0, &mut number), ERR_NULL),
            25 => (etslock_table_update_counter(table, key, 1, 1, 0, no_out.cast()), ERR_NULL),
            26 => (etslock_table_count(none, &mut count), ERR_NULL),
            27 => (etslock_table_count(table, ptr::null_mut()), ERR_NULL),
            28 => (etslock_table_cursor(none, out.cast()), ERR_NULL),
            29 => (etslock_table_cursor(table, ptr::null_mut()), ERR_NULL),
            30 => (etslock_cursor_next(ptr::null_mut(), out), ERR_NULL),
            _ => return self.wrong_table(choice / 32),
        };
        self.check_wrong("table", choice, status, &[wanted, ERR_GUARDED, ERR_TYPE]);
        assert_eq!((number, count), (77, 77));
        assert!(tuples.is_null() || tuples == unset());
    }

    fn wrong_table(&self, choice: u8) {
        // SAFETY: numbers, and a pointer that may be NULL.
        let mut options: TableOptions = unsafe { std::mem::zeroed() };
        etslock_table_options_init(&mut options, size_of::<TableOptions>());
        let long = [b"n".as_slice(); 256].concat();
        let name = |name: &[u8]| [name, b"\0"].concat();
        let names = [name(b""), name(&long), name(b"\xff"), name(b"\xc3")];
        let mut table = unset();
        let wanted = match choice {
            0 => {
                options.struct_size -= 1;
                ERR_STRUCT_SIZE
            }
            1 => {
                options.r#type = 3;
                ERR_INVALID
            }
            2 => {
                options.access = -1;
                ERR_INVALID
            }
            3 => {
                options.reserved = 1;
                ERR_INVALID
            }
            bad => {
                let name = names[usize::from(bad - 4)].as_ptr().cast();
                assert_eq!(etslock_table_open(name, &mut table), ERR_INVALID);
                options.name = name;
                ERR_INVALID
            }
        };
        self.check_wrong("table_new", choice, etslock_table_new(&options, &mut table), &[wanted]);
        assert!(table.is_null());
        assert_eq!(etslock_table_new(&options, ptr::null_mut()), ERR_NULL);
        assert_eq!(etslock_table_open(ptr::null(), &mut table), ERR_NULL);
        assert_eq!(etslock_table_open(c"t".as_ptr(), ptr::null_mut()), ERR_NULL);
    }

    fn wrong_lock_call(&self, table: *mut Table, choice: u8) {
        let (null, key) = (ptr::null::<u8>(), b"a".as_ptr());
        let none = ptr::null_mut::<Table>();
        let options = default_options();
        let mut guard = unset::<Guard>();
        let out = &raw mut guard;
        let keys = [Key { key, key_len: 1 }, Key { key: null, key_len: 1 }];
        let long = [Key { key, key_len: TOO_LONG }];
        let many = || vec![keys[0]; MAX_KEYS + 1];
        let acquire_all = |table, keys: &[Key], count| {
            etslock_acquire_locks(table, keys.as_ptr(), count, &options, out)
        };
        let call_all = |table, keys: &[Key], count, callback| {
            let (data, result) = (ptr::null_mut(), ptr::null_mut());
            etslock_with_locks(table, keys.as_ptr(), count, callback, data, &options, result)
        };
        let call = |table, key, len, callback| {
            let (data, result) = (ptr::null_mut(), ptr::null_mut());
            etslock_with_lock(table, key, len, callback, data, &options, result)
        };
        let run = Some(must_not_run as extern "C-unwind" fn(_, _, _, _) -> _);
        let (status, wanted) = match choice % 19 {
            0 => (etslock_acquire(none, key, 1, &options, out), ERR_NULL),
            1 => (etslock_acquire(table, null, 1, &options, out), ERR_NULL),
            2 => (etslock_acquire(table, key, 1, &options, ptr::null_mut()), ERR_NULL),
            3 => (etslock_acquire(table, key, TOO_LONG, &options, out), ERR_INVALID),
            4 => (acquire_all(none, &keys, 1), ERR_NULL),
            5 => (acquire_all(table, &keys, 2), ERR_NULL),
            6 => (etslock_acquire_locks(table, ptr::null(), 1, &options, out), ERR_NULL),
            7 => (acquire_all(table, &keys, 0), ERR_INVALID),
            8 => (acquire_all(table, &many(), MAX_KEYS + 1), ERR_INVALID),
            9 => (acquire_all(table, &long, 1), ERR_INVALID),
            10 => (call(none, key, 1, run), ERR_NULL),
            11 => (call(table, null, 1, run), ERR_NULL),
            12 => (call(table, key, 1, None), ERR_NULL),
            13 => (call(table, key, usize::MAX, run), ERR_INVALID),
            14 => (call_all(none, &keys, 1, run), ERR_NULL),
            15 => (call_all(table, &keys, 2, run), ERR_NULL),
            16 => (call_all(table, &keys, 1, None), ERR_NULL),
            17 => (call_all(table, &many(), MAX_KEYS + 1, run), ERR_INVALID),
            _ => (call_all(table, &keys, 0, run), ERR_INVALID),
        };
        self.check_wrong("lock", choice, status, &[wanted]);
        assert!(guard.is_null() || guard == unset());
    }

    fn wrong_guard_call(&self, choice: u8) {
        let (null, key) = (ptr::null::<u8>(), b"a".as_ptr());
        let none = ptr::null_mut::<Guard>();
        // Where a guard is needed and there is none, NULL is one thing more that is wrong.
        let any = self.frames.iter().chain(self.guards.iter().flatten()).next();
        let guard = any.map_or(none, |open| open.guard);
        let status = any.map_or(ERR_NULL, |open| self.model.holds[open.hold].status());
        let mut tuples = unset();
        let (got, wanted) = match choice % 24 {
            0 => (etslock_guard_lookup(none, key, 1, &mut tuples), ERR_NULL),
            1 => (etslock_guard_insert(none, key, 1, key, 1), ERR_NULL),
            2 => (etslock_guard_delete(none, key, 1), ERR_NULL),
            3 => (etslock_guard_delete_tuple(none, key, 1, key, 1), ERR_NULL),
            4 => (etslock_guard_commit(none), ERR_NULL),
            5 => (etslock_guard_rollback(none), ERR_NULL),
            6 => (etslock_guard_release(none), ERR_NULL),
            7 => (etslock_guard_cancel(none), ERR_NULL),
            8 => (etslock_guard_set_result(none, key, 1), ERR_NULL),
            9 => (etslock_guard_extend(none, 0), ERR_NULL),
            10 => (etslock_guard_sleep(none, 0), ERR_NULL),
            11 => (etslock_guard_status(none), ERR_NULL),
            12 => (etslock_guard_lookup(guard, key, 1, ptr::null_mut()), ERR_NULL),
            13 => (etslock_guard_lookup(guard, null, 1, &mut tuples), ERR_NULL),
            14 => (etslock_guard_insert(guard, null, 1, key, 1), ERR_NULL),
            15 => (etslock_guard_insert(guard, key, 1, null, 1), ERR_NULL),
            16 => (etslock_guard_insert(guard, key, 1, key, TOO_LONG), ERR_INVALID),
            17 => (etslock_guard_delete(guard, null, 1), ERR_NULL),
            18 => (etslock_guard_delete_tuple(guard, null, 1, key, 1), ERR_NULL),
            19 => (etslock_guard_delete_tuple(guard, key, 1, null, 1), ERR_NULL),
            20 => (etslock_guard_delete_tuple(guard, key, usize::MAX, key, 1), ERR_INVALID),
            21 => (etslock_guard_set_result(guard, null, 1), ERR_NULL),
            22 => (etslock_guard_set_result(guard, key, TOO_LONG), ERR_INVALID),
            _ => {
                assert_eq!(etslock_guard_remaining_ms(none), 0);
                assert_eq!(etslock_guard_token(none), 0);
                return;
            }
        };
        let status = if status == OK { wanted } else { status };
        let allowed = [wanted, status, ERR_NOT_COVERED, ERR_INVALID];
        self.check_wrong("guard", choice, got, &allowed);
        assert!(tuples.is_null() || tuples == unset());
    }

    /// Guards of several tables, and the ways to end what was begun.
    fn wrong_call_in(&self, table: *mut Table, choice: u8) {
        let (null, key) = (ptr::null::<u8>(), b"a".as_ptr());
        let no_table = ptr::null_mut::<Table>();
        let none = ptr::null_mut::<Guard>();
        // As in `wrong_guard_call`.
        let any = self.frames.iter().chain(self.guards.iter().flatten()).next();
        let guard = any.map_or(none, |open| open.guard);
        let status = any.map_or(ERR_NULL, |open| self.model.holds[open.hold].status());
        let mut tuples = unset();
        let (mut fetched, mut count) = (UNFETCHED, 77);
        let mut wait = |completions, out: Option<&mut Completion>, capacity| {
            let out = out.map_or(ptr::null_mut(), ptr::from_mut);
            etslock_completions_wait(completions, out, capacity, 0, &mut count)
        };
        let no_queue = ptr::null_mut::<Completions>();
        let (got, wanted) = match choice % 20 {
            0 => (etslock_guard_lookup_in(none, table, key, 1, &mut tuples), ERR_NULL),
            1 => (etslock_guard_lookup_in(guard, no_table, key, 1, &mut tuples), ERR_NULL),
            2 => (etslock_guard_lookup_in(guard, table, null, 1, &mut tuples), ERR_NULL),
            3 => (etslock_guard_lookup_in(guard, table, key, 1, ptr::null_mut()), ERR_NULL),
            4 => (etslock_guard_insert_in(none, table, key, 1, key, 1), ERR_NULL),
            5 => (etslock_guard_insert_in(guard, no_table, key, 1, key, 1), ERR_NULL),
            6 => (etslock_guard_insert_in(guard, table, key, 1, null, 1), ERR_NULL),
            7 => (etslock_guard_insert_in(guard, table, key, 1, key, TOO_LONG), ERR_INVALID),
            8 => (etslock_guard_delete_in(none, table, key, 1), ERR_NULL),
            9 => (etslock_guard_delete_in(guard, no_table, key, 1), ERR_NULL),
            10 => (etslock_guard_delete_in(guard, table, null, 1), ERR_NULL),
            11 => (etslock_guard_delete_tuple_in(none, table, key, 1, key, 1), ERR_NULL),
            12 => (etslock_guard_delete_tuple_in(guard, no_table, key, 1, key, 1), ERR_NULL),
            13 => (etslock_guard_delete_tuple_in(guard, table, key, 1, null, 1), ERR_NULL),
            14 => (etslock_completions_new(ptr::null_mut()), ERR_NULL),
            15 => (wait(no_queue, Some(&mut fetched), 1), ERR_NULL),
            16 => (etslock_completions_withdraw(no_queue, 1), ERR_NULL),
            17 => (etslock_stop_new(ptr::null_mut()), ERR_NULL),
            18 => (etslock_stop_request(ptr::null_mut()), ERR_NULL),
            _ => (etslock_token_raise(u64::MAX - (1 << 60) + 1), ERR_INVALID),
        };
        let status = if status == OK { wanted } else { status };
        self.check_wrong("_in", choice, got, &[wanted, status, ERR_NOT_COVERED]);
        assert!(tuples.is_null() || tuples == unset());
        assert_eq!((fetched.status, count), (UNFETCHED.status, 77));
    }

    /// Acquires that begin, and locks of several tables.
    fn wrong_begin(&self, table: *mut Table, choice: u8) {
        let (null, key) = (ptr::null::<u8>(), b"a".as_ptr());
        let none = ptr::null_mut::<Table>();
        let options = default_options();
        let polling = Options { queue: QUEUE_POLLING, ..options };
        let mut queue = unset();
        assert_eq!(etslock_completions_new(&mut queue), OK);
        let no_queue = ptr::null_mut::<Completions>();
        let (mut guard, mut ticket) = (unset::<Guard>(), 77);
        let (out, number) = (&raw mut guard, &raw mut ticket);
        let data = ptr::null_mut();
        let bad = [Key { key, key_len: 1 }, Key { key: null, key_len: 1 }];
        let pair = |table, key| [TableKey { table, key, key_len: 1 }; 2];
        let begin_all = |keys: &[Key], options, queue| {
            let (keys, count) = (keys.as_ptr(), keys.len());
            etslock_acquire_locks_begin(table, keys, count, options, queue, data, number, out)
        };
        let begin_across = |keys: &[TableKey], options, queue| {
            let (keys, count) = (keys.as_ptr(), keys.len());
            etslock_acquire_locks_across_begin(keys, count, options, queue, data, number, out)
        };
        let across = |keys: &[TableKey]| {
            etslock_acquire_locks_across(keys.as_ptr(), keys.len(), &options, out)
        };
        let call_across = |keys: &[TableKey], callback| {
            let (keys, count, result) = (keys.as_ptr(), keys.len(), ptr::null_mut());
            etslock_with_locks_across(keys, count, callback, data, &options, result)
        };
        let begin = |table, key, len, options, queue, number, out| {
            etslock_acquire_begin(table, key, len, options, queue, data, number, out)
        };
        let run = Some(must_not_run as extern "C-unwind" fn(_, _, _, _) -> _);
        let no_out = ptr::null_mut();
        let (status, wanted) = match choice % 22 {
            0 => (begin(none, key, 1, &options, queue, number, out), ERR_NULL),
            1 => (begin(table, null, 1, &options, queue, number, out), ERR_NULL),
            2 => (begin(table, key, 1, &options, no_queue, number, out), ERR_NULL),
            3 => (begin(table, key, 1, &options, queue, ptr::null_mut(), out), ERR_NULL),
            4 => (begin(table, key, 1, &options, queue, number, no_out), ERR_NULL),
            5 => (begin(table, key, TOO_LONG, &options, queue, number, out), ERR_INVALID),
            6 => (begin(table, key, 1, &polling, queue, number, out), ERR_INVALID),
            7 => (begin_all(&bad, &options, queue), ERR_NULL),
            8 => (begin_all(&bad[..1], &options, no_queue), ERR_NULL),
            9 => (begin_all(&[], &options, queue), ERR_INVALID),
            10 => (begin_all(&bad[..1], &polling, queue), ERR_INVALID),
            11 => (begin_across(&pair(none, key), &options, queue), ERR_NULL),
            12 => (begin_across(&pair(table, null), &options, queue), ERR_NULL),
            13 => (begin_across(&pair(table, key), &options, no_queue), ERR_NULL),
            14 => (begin_across(&pair(table, key), &polling, queue), ERR_INVALID),
            15 => (across(&pair(none, key)), ERR_NULL),
            16 => (across(&pair(table, null)), ERR_NULL),
            17 => (across(&[]), ERR_INVALID),
            18 => (call_across(&pair(none, key), run), ERR_NULL),
            19 => (call_across(&pair(table, null), run), ERR_NULL),
            20 => (call_across(&pair(table, key), None), ERR_NULL),
            _ => (call_across(&[], run), ERR_INVALID),
        };
        self.check_wrong("begin", choice, status, &[wanted]);
        assert!(guard.is_null() || guard == unset());
        assert_eq!(ticket, 77);
        let (mut fetched, mut count) = (UNFETCHED, 77);
        let nothing = etslock_completions_wait(queue, &mut fetched, 1, 0, &mut count);
        self.check_wrong("completions_wait", 0, nothing, &[WAIT_TIMEOUT]);
        self.check_wrong("withdraw", 1, etslock_completions_withdraw(queue, 1), &[NOT_FOUND]);
        for (capacity, timeout) in [(0, 0), (1, -2)] {
            let wait = etslock_completions_wait(queue, &mut fetched, capacity, timeout, &mut count);
            self.check_wrong("completions_wait", 2, wait, &[ERR_INVALID]);
        }
        assert_eq!((fetched.status, count), (UNFETCHED.status, 77));
        etslock_completions_free(queue);
    }

    /// Lock tables, snapshots, and what takes everything.
    fn wrong_look(&mut self, choice: u8) {
        let key = b"a".as_ptr();
        let (default, none) = (ptr::null_mut::<LockTable>(), ptr::null_mut::<Table>());
        let mut stats = stats_of(default);
        let (status, wanted) = match choice % 10 {
            0 => (etslock_lock_table_new(ptr::null_mut()), ERR_NULL),
            1 => (etslock_lock_table_locks(default, none, ptr::null_mut()), ERR_NULL),
            2 => (etslock_lock_table_stats(default, ptr::null_mut()), ERR_NULL),
            3 => {
                stats.struct_size -= 1;
                (etslock_lock_table_stats(default, &mut stats), ERR_STRUCT_SIZE)
            }
            4 => (etslock_lock_table_force_release(default, none, key, 1), ERR_NULL),
            5 => (etslock_locks_get(ptr::null(), 0, ptr::null_mut()), ERR_NULL),
            6 => return self.wrong_info(),
            7 => return check_texts(i32::from(self.input.byte()) - 100),
            8 => return free_nulls(),
            _ => {
                let open = self.some_table();
                let null = at(&[]);
                let wanted = ERR_NULL;
                let status = etslock_lock_table_force_release_token(default, none, key, 1, 1);
                self.check_wrong("force_release_token", choice, status, &[wanted]);
                (etslock_lock_table_force_release(default, open.table, null, 1), wanted)
            }
        };
        self.check_wrong("look", choice, status, &[wanted]);
    }

    fn wrong_info(&self) {
        let mut locks = unset();
        assert_eq!(etslock_lock_table_locks(ptr::null_mut(), ptr::null_mut(), &mut locks), OK);
        // SAFETY: numbers, and pointers that may be NULL.
        let mut info: LockInfo = unsafe { std::mem::zeroed() };
        info.struct_size = size_of::<LockInfo>() as u32 - 1;
        let status = etslock_locks_get(locks, 0, &mut info);
        self.check_wrong("locks_get", 0, status, &[ERR_STRUCT_SIZE, NOT_FOUND]);
        let status = etslock_locks_get(locks, 0, ptr::null_mut());
        self.check_wrong("locks_get", 1, status, &[ERR_NULL, NOT_FOUND]);
        etslock_locks_free(locks);
    }

    fn check_wrong(&self, noun: &str, choice: u8, status: Status, allowed: &[Status]) {
        self.call(format_args!("{noun}, wrong in way {choice}"), || status, allowed);
    }
}

fn check_texts(status: Status) {
    assert!(api::name(status).starts_with("ETSLOCK_"));
    assert!(!text(etslock_status_text(status)).is_empty());
    // SAFETY: a static string.
    let version = unsafe { CStr::from_ptr(etslock_version()) };
    assert!(!version.is_empty());
}

fn free_nulls() {
    etslock_table_free(ptr::null_mut());
    etslock_tuples_free(ptr::null_mut());
    etslock_cursor_free(ptr::null_mut());
    etslock_result_free(ptr::null_mut());
    etslock_lock_table_free(ptr::null_mut());
    etslock_locks_free(ptr::null_mut());
    etslock_stop_free(ptr::null_mut());
    etslock_completions_free(ptr::null_mut());
    assert_eq!(etslock_completions_fd(ptr::null_mut()), -1);
    assert_eq!(etslock_owner_none(), OWNER_NONE);
    assert!(etslock_tuples_data(ptr::null(), ptr::null_mut()).is_null());
    assert_eq!(etslock_locks_count(ptr::null()), 0);
    etslock_options_init(ptr::null_mut(), 8);
    etslock_table_options_init(ptr::null_mut(), 8);
    etslock_stats_init(ptr::null_mut(), 8);
    let mut size = 77u32;
    etslock_options_init((&raw mut size).cast(), 3);
    assert_eq!(size, 77, "no room for struct_size");
    etslock_options_init((&raw mut size).cast(), 4);
    assert_eq!(size, 4);
}
