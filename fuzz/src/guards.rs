//! Guards: staged writes, commit, the end of acquired ones.

use crate::api::{self, Status};
use crate::locks::{LONG, is_left};
use crate::model::{Kind, Write};
use crate::tables::{or_not_found, tuples_of};
use crate::world::{OpenGuard, World, at, unset};

impl World {
    /// Of a callback under way, or acquired.
    fn some_guard(&mut self) -> Option<OpenGuard> {
        let guards: Vec<OpenGuard> =
            self.frames.iter().rev().chain(self.guards.iter().flatten()).copied().collect();
        (!guards.is_empty()).then(|| self.input.of(&guards))
    }

    pub fn guard_step(&mut self) {
        let Some(OpenGuard { guard, hold }) = self.some_guard() else {
            return self.acquire(false);
        };
        let status = self.model.holds[hold].status();
        match self.input.below(16) {
            0..=3 => {
                let (key, value) = (self.input.key(), self.input.value());
                let (k, v) = (key.escape_ascii(), value.escape_ascii());
                let what = format_args!("guard_insert({hold}, {k}, {v})");
                let insert = || {
                    let (value, value_len) = (at(&value), value.len());
                    api::etslock_guard_insert(guard, at(&key), key.len(), value, value_len)
                };
                let allowed = self.if_covered(hold, &key, status);
                if self.call(what, insert, &allowed) == api::OK {
                    self.model.stage(hold, &key, Write::Insert(value));
                }
            }
            4 => {
                let key = self.input.key();
                let what = format_args!("guard_delete({hold}, {})", key.escape_ascii());
                let delete = || api::etslock_guard_delete(guard, at(&key), key.len());
                let allowed = self.if_covered(hold, &key, status);
                if self.call(what, delete, &allowed) == api::OK {
                    self.model.stage(hold, &key, Write::Delete);
                }
            }
            5 => {
                let (key, value) = (self.input.key(), self.input.value());
                let (k, v) = (key.escape_ascii(), value.escape_ascii());
                let what = format_args!("guard_delete_tuple({hold}, {k}, {v})");
                let delete = || {
                    let (value, value_len) = (at(&value), value.len());
                    api::etslock_guard_delete_tuple(guard, at(&key), key.len(), value, value_len)
                };
                let allowed = self.if_covered(hold, &key, status);
                if self.call(what, delete, &allowed) == api::OK {
                    self.model.stage(hold, &key, Write::DeleteTuple(value));
                }
            }
            6..=8 => {
                let key = self.input.key();
                let mut tuples = unset();
                let what = format_args!("guard_lookup({hold}, {})", key.escape_ascii());
                let lookup = || api::etslock_guard_lookup(guard, at(&key), key.len(), &mut tuples);
                let values = self.model.seen_by(hold, &key);
                let live = if status == api::OK { or_not_found(&values) } else { status };
                let allowed = self.if_covered(hold, &key, live);
                let wanted = match self.call(what, lookup, &allowed) {
                    api::OK => tuples_of(&key, &values),
                    _ => Vec::new(),
                };
                self.keep(tuples, wanted);
            }
            9 | 10 => {
                let commit = || api::etslock_guard_commit(guard);
                if self.call(format_args!("guard_commit({hold})"), commit, &[status]) == api::OK {
                    self.model.commit(hold);
                }
            }
            11 => {
                let rollback = || api::etslock_guard_rollback(guard);
                let what = format_args!("guard_rollback({hold})");
                if self.call(what, rollback, &[status]) == api::OK {
                    self.model.rollback(hold);
                }
            }
            12 => {
                let data = self.input.value();
                let what = format_args!("guard_set_result({hold}, {})", data.escape_ascii());
                let set = || api::etslock_guard_set_result(guard, at(&data), data.len());
                let acquired = self.model.holds[hold].request.kind == Kind::Acquired;
                let allowed =
                    if acquired { either(api::ERR_INVALID, status) } else { vec![status] };
                if self.call(what, set, &allowed) == api::OK {
                    self.model.holds[hold].result = data;
                }
            }
            13 => {
                let exec = self.input.of(&[0, LONG, api::INFINITE, i64::MAX, -2]);
                let what = format_args!("guard_extend({hold}, {exec})");
                let extend = || api::etslock_guard_extend(guard, exec);
                let allowed =
                    if exec < -1 { either(api::ERR_INVALID, status) } else { vec![status] };
                if self.call(what, extend, &allowed) == api::OK {
                    self.model.extend(hold, (0..i64::MAX).contains(&exec).then_some(exec));
                }
            }
            14 => {
                let lost = status != api::OK;
                let ms = match self.input.below(4) {
                    0 if self.wait_a_moment() => 1,
                    1 => -2,
                    2 if lost => api::INFINITE,
                    _ => 0,
                };
                let allowed = if ms < -1 { either(api::ERR_INVALID, status) } else { vec![status] };
                let sleep = || api::etslock_guard_sleep(guard, ms);
                self.call(format_args!("guard_sleep({hold}, {ms})"), sleep, &allowed);
            }
            _ => self.look_at_guard(OpenGuard { guard, hold }),
        }
    }

    fn if_covered(&self, hold: usize, key: &[u8], status: Status) -> Vec<Status> {
        match self.model.holds[hold].covers(key) {
            true => vec![status],
            false => either(api::ERR_NOT_COVERED, status),
        }
    }

    pub fn look_at_guard(&self, OpenGuard { guard, hold }: OpenGuard) {
        let status = || api::etslock_guard_status(guard);
        let hold = &self.model.holds[hold];
        self.call(format_args!("guard_status()"), status, &[hold.status()]);
        assert_eq!(api::etslock_guard_token(guard), hold.token);
        let remaining = api::etslock_guard_remaining_ms(guard);
        assert!(is_left(remaining, hold.state, hold.limit), "{remaining} of {:?}", hold.limit);
    }

    /// Releases or cancels one.
    pub fn end_guard(&mut self) {
        let choice = self.input.below(2 * self.guards.len());
        match self.frames.last() {
            // A callback's guard is not its to end.
            Some(OpenGuard { guard, .. }) if self.guards.iter().all(Option::is_none) => {
                let guard = *guard;
                let end = || match choice % 2 {
                    0 => api::etslock_guard_release(guard),
                    _ => api::etslock_guard_cancel(guard),
                };
                self.call(format_args!("guard_release or cancel()"), end, &[api::ERR_INVALID]);
            }
            _ => self.end_guard_at(choice / 2, choice & 1 == 0),
        }
    }

    pub fn end_guard_at(&mut self, slot: usize, release: bool) {
        let Some(OpenGuard { guard, hold }) = self.guards[slot].take() else { return };
        if release {
            let release = || api::etslock_guard_release(guard);
            let wanted = self.model.release(hold);
            self.call(format_args!("guard_release({hold})"), release, &[wanted]);
        } else {
            let cancel = || api::etslock_guard_cancel(guard);
            self.model.cancel(hold);
            self.call(format_args!("guard_cancel({hold})"), cancel, &[api::OK]);
        }
    }
}

/// When two things are wrong, which of them is answered is not said.
fn either(wrong: Status, status: Status) -> Vec<Status> {
    match status {
        api::OK | api::NOT_FOUND => vec![wrong],
        status => vec![wrong, status],
    }
}
