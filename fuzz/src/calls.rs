//! Calls that run a callback. The callback goes on with the script where its caller left it.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::{ptr, slice};

use crate::api::{self, Status};
use crate::input::Bytes;
use crate::locks::{Ask, Named};
use crate::model::{Attempt, HoldId, Kind, Place};
use crate::tables::{copied, tuples_of};
use crate::world::{OpenGuard, Outcome, Shared, World, say, stats_of};

/// A call, prepared while nobody else has the world, and made while anybody may.
#[derive(Debug)]
pub struct Call {
    ask: Ask,
    /// Whether `user_data_free` is set.
    frees: bool,
    with_result: bool,
    allowed: Vec<Status>,
    attempt: Attempt,
    /// What the callback will hold, if it is to run.
    hold: Option<HoldId>,
    data: *mut UserData,
    freed: Arc<AtomicUsize>,
    status: Status,
    result: api::CallResult,
}

#[derive(Debug)]
struct UserData {
    shared: Arc<Shared>,
    hold: Option<HoldId>,
    /// How many callbacks are under way outside this one.
    level: usize,
    short: bool,
    /// The script goes on in the callback.
    runs_script: bool,
    freed: Arc<AtomicUsize>,
}

impl World {
    /// A call, unless so many callbacks are under way that it became an acquisition.
    pub fn prepare_call(&mut self) -> Option<Box<Call>> {
        let style = self.input.byte();
        let kind = if style & 1 == 0 { Kind::OnWorker } else { Kind::OnCaller };
        let named = match style & 34 {
            34 => Named::Across,
            2 => Named::Several,
            _ => Named::One,
        };
        if self.frames.len() >= 3 {
            self.acquire(named);
            return None;
        }
        let mut ask = self.ask(kind, named);
        let (mut allowed, attempt) = self.forecast(&mut ask);
        let hold = match attempt {
            Attempt::Granted => Some(self.model.grant(ask.request.clone())),
            Attempt::Busy { .. } => None,
        };
        // No time to run anything: got, and given back.
        let nothing_runs = hold.filter(|_| ask.request.exec == Some(0));
        if let Some(hold) = nothing_runs {
            allowed = vec![self.model.callback_returned(hold, 0)];
        }
        Some(Box::new(Call {
            frees: style & 4 == 0 && !ask.defaults,
            with_result: style & 8 == 0,
            allowed,
            attempt,
            hold: hold.filter(|_| nothing_runs.is_none()),
            data: ptr::null_mut(),
            freed: Arc::new(AtomicUsize::new(0)),
            status: api::OK,
            result: api::CallResult {
                code: 77,
                reserved: 77,
                data: ptr::dangling_mut(),
                data_len: 77,
            },
            ask,
        }))
    }
}

impl Call {
    pub fn make(mut self: Box<Self>, shared: &Arc<Shared>, level: usize) -> Box<Self> {
        self.data = Box::into_raw(Box::new(UserData {
            shared: Arc::clone(shared),
            hold: self.hold,
            level,
            short: self.ask.short,
            runs_script: !self.ask.defaults,
            freed: Arc::clone(&self.freed),
        }));
        if self.frees {
            self.ask.options.known.user_data_free = Some(free_data);
        }
        let keys = self.ask.c_keys();
        let table_keys = self.ask.c_table_keys();
        let (table, data, options) = (self.ask.table(), self.data.cast(), self.ask.options());
        let out = if self.with_result { &raw mut self.result } else { ptr::null_mut() };
        let indent = 2 * level;
        say(format_args!("{:indent$}etslock_with_lock({})", "", self.ask));
        let run = Some(callback as extern "C-unwind" fn(_, _, _, _) -> _);
        self.status = match self.ask.named {
            Named::One => {
                let api::Key { key, key_len } = keys[0];
                api::etslock_with_lock(table, key, key_len, run, data, options, out)
            }
            Named::Several => {
                let (keys, count) = (keys.as_ptr(), keys.len());
                api::etslock_with_locks(table, keys, count, run, data, options, out)
            }
            Named::Across => {
                let (keys, count) = (table_keys.as_ptr(), table_keys.len());
                api::etslock_with_locks_across(keys, count, run, data, options, out)
            }
        };
        say(format_args!("{:indent$}  {}", "", api::name(self.status)));
        self
    }
}

impl World {
    pub fn check_call(&mut self, mut call: Box<Call>) {
        let status = call.status;
        let mut wanted = Outcome { status, code: 0, data: Bytes::new() };
        let mut in_time = true;
        match call.hold {
            None => {
                assert!(
                    call.allowed.contains(&status),
                    "{}, wanted {:?}",
                    api::name(status),
                    call.allowed
                );
                self.refused(&call.ask, call.attempt, status);
            }
            Some(hold) => {
                match self.outcomes.iter().position(|(of, _)| *of == hold) {
                    Some(outcome) => (_, wanted) = self.outcomes.swap_remove(outcome),
                    None => {
                        assert!(
                            call.ask.short,
                            "{}, and the callback never ran",
                            api::name(status)
                        );
                        self.model.is_late(hold);
                        wanted.status = self.model.callback_returned(hold, 0);
                    }
                }
                in_time = self.model.holds[hold].request.kind == Kind::OnCaller
                    || matches!(wanted.status, api::OK | api::CALLBACK_FAILED);
                assert_eq!(api::name(status), api::name(wanted.status));
            }
        }
        if call.with_result {
            let result = &mut call.result;
            // SAFETY: the library says so.
            let data = (!result.data.is_null())
                .then(|| unsafe { slice::from_raw_parts(result.data, result.data_len) });
            assert_eq!((result.code, result.reserved), (wanted.code, 0));
            assert_eq!(
                (data.unwrap_or_default(), result.data_len),
                (&*wanted.data, wanted.data.len())
            );
            api::etslock_result_free(result);
            api::etslock_result_free(result);
            assert!(result.code == 0 && result.data.is_null() && result.data_len == 0);
        }
        if !call.frees || status == api::ERR_STRUCT_SIZE {
            assert_eq!(call.freed.load(SeqCst), 0, "data was freed that is the caller's");
            // SAFETY: it is still the caller's, and the callback has returned.
            drop(unsafe { Box::from_raw(call.data) });
        } else if in_time {
            assert_eq!(call.freed.load(SeqCst), 1);
        } else {
            self.freed.push(call.freed);
        }
    }

    /// The callback begins.
    fn begin(
        &mut self,
        data: &UserData,
        guard: *mut api::Guard,
        tuples: *const api::Tuple,
        count: usize,
    ) {
        let hold = data.hold.expect("a callback ran that must not");
        let held = &self.model.holds[hold];
        let tables = &self.model.tables;
        let of = |(table, key): &Place| tuples_of(key, tables[*table].values(key));
        let wanted: Vec<_> = held.keys.iter().flat_map(of).collect();
        assert_eq!(copied(tuples, count), wanted);
        self.model.saw_token(hold, api::etslock_guard_token(guard));
        self.frames.push(OpenGuard { guard, hold });
        if data.short {
            self.outlive(guard, hold);
        }
    }

    /// The callback ends: what it returns.
    fn end(&mut self) -> i32 {
        let code = self.input.of(&[0, 0, 0, 1, -1, i32::MIN]);
        let hold = self.frames.pop().expect("of this callback").hold;
        let status = self.model.callback_returned(hold, code);
        let seen = matches!(status, api::OK | api::CALLBACK_FAILED);
        let data = std::mem::take(&mut self.model.holds[hold].result);
        let outcome = Outcome {
            status,
            code: if seen { code } else { 0 },
            data: if status == api::OK { data } else { Bytes::new() },
        };
        self.outcomes.push((hold, outcome));
        code
    }
}

extern "C-unwind" fn callback(
    guard: *mut api::Guard,
    tuples: *const api::Tuple,
    count: usize,
    data: *mut c_void,
) -> i32 {
    // SAFETY: alive until this callback has returned.
    let data = unsafe { &*data.cast::<UserData>() };
    // From its end on, the data may be freed.
    let (shared, level) = (Arc::clone(&data.shared), data.level);
    shared.enter(level).begin(data, guard, tuples, count);
    if data.runs_script {
        (shared.go_on)(&shared, level + 1);
    }
    let code = shared.enter(level + 1).end();
    shared.pass_on();
    code
}

extern "C-unwind" fn free_data(data: *mut c_void) {
    // SAFETY: passed to one call, which frees it once.
    let data = unsafe { Box::from_raw(data.cast::<UserData>()) };
    // No lock of the library is held.
    stats_of(ptr::null_mut());
    assert_eq!(data.freed.fetch_add(1, SeqCst), 0, "data was freed twice");
}
