//! Guards: staged writes, commit, the end of acquired ones.

use std::ptr;

use crate::api::{self, Status};
use crate::locks::{LONG, Named, is_left};
use crate::model::{HoldId, Kind, TableId, Write};
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
            return self.acquire(Named::One);
        };
        let status = self.model.holds[hold].status();
        let choice = self.input.byte();
        match choice % 16 {
            what @ 0..=8 => self.guard_key_step(OpenGuard { guard, hold }, what, choice >= 128),
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

    /// A read or a write of one key, by a function that names the table or by one that does not.
    fn guard_key_step(&mut self, OpenGuard { guard, hold }: OpenGuard, what: u8, names: bool) {
        let status = self.model.holds[hold].status();
        let named = names.then(|| self.some_table());
        let (table, of) = match named {
            Some(open) => (open.table, Some(open.id)),
            None => (ptr::null_mut(), self.model.holds[hold].table()),
        };
        let key = self.input.key();
        let value = if matches!(what, 4 | 6..=8) { Vec::new() } else { self.input.value() };
        let (k, len, v, v_len) = (at(&key), key.len(), at(&value), value.len());
        let (shown, shown_value) = (key.escape_ascii(), value.escape_ascii());
        let tables = format!("{:?}", named.map(|open| open.id));
        if (6..=8).contains(&what) {
            let values = of.map_or(Vec::new(), |of| self.model.seen_by(hold, of, &key));
            let live = if status == api::OK { or_not_found(&values) } else { status };
            let allowed = self.if_covered(hold, of, &key, live);
            let mut tuples = unset();
            let lookup = || match names {
                true => api::etslock_guard_lookup_in(guard, table, k, len, &mut tuples),
                false => api::etslock_guard_lookup(guard, k, len, &mut tuples),
            };
            let said = format_args!("guard_lookup({hold}, in {tables}, {shown})");
            let wanted = match self.call(said, lookup, &allowed) {
                api::OK => tuples_of(&key, &values),
                _ => Vec::new(),
            };
            return self.keep(tuples, wanted);
        }
        let allowed = self.if_covered(hold, of, &key, status);
        let (noun, write) = match what {
            4 => ("delete", Write::Delete),
            5 => ("delete_tuple", Write::DeleteTuple(value.clone())),
            _ => ("insert", Write::Insert(value.clone())),
        };
        let make = || match (&write, names) {
            (Write::Insert(_), true) => {
                api::etslock_guard_insert_in(guard, table, k, len, v, v_len)
            }
            (Write::Insert(_), false) => api::etslock_guard_insert(guard, k, len, v, v_len),
            (Write::Delete, true) => api::etslock_guard_delete_in(guard, table, k, len),
            (Write::Delete, false) => api::etslock_guard_delete(guard, k, len),
            (Write::DeleteTuple(_), true) => {
                api::etslock_guard_delete_tuple_in(guard, table, k, len, v, v_len)
            }
            (Write::DeleteTuple(_), false) => {
                api::etslock_guard_delete_tuple(guard, k, len, v, v_len)
            }
        };
        let said = format_args!("guard_{noun}({hold}, in {tables}, {shown}, {shown_value})");
        if self.call(said, make, &allowed) == api::OK {
            let of = of.expect("it is covered");
            self.model.stage(hold, of, &key, write);
        }
    }

    /// `table`: the one that is named, or that of the guard; `None` if it has several.
    fn if_covered(
        &self,
        hold: HoldId,
        table: Option<TableId>,
        key: &[u8],
        status: Status,
    ) -> Vec<Status> {
        let hold = &self.model.holds[hold];
        match table {
            Some(table) if hold.covers(table, key) => vec![status],
            Some(_) => either(api::ERR_NOT_COVERED, status),
            None => either(api::ERR_INVALID, status),
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
