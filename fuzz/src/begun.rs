//! Acquires that begin, and what becomes of those that are pending. Each is seen to its end in its
//! step: until then its place in a queue would be part of what the others see.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::ptr;

use crate::api::{self, Status};
use crate::locks::{Ask, Named};
use crate::model::{Attempt, HoldId, Kind, Party};
use crate::world::{OpenGuard, World, say, unset};

/// How a pending acquire ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Withdrawn,
    /// By its stop, if it has one.
    Stopped,
    /// Its one holder gives the locks back, or loses them.
    Granted,
    TimedOut,
    TableFreed,
    LockTableFreed,
    QueueFreed,
}

/// What `poll` looks at.
#[repr(C)]
struct Polled {
    fd: i32,
    events: i16,
    seen: i16,
}

const READABLE: i16 = 1;

/// A ticket that nobody gets.
const UNSET: u64 = u64::MAX;

unsafe extern "C" {
    safe fn poll(polled: &mut Polled, count: u64, timeout_ms: i32) -> i32;
}

fn is_readable(fd: i32) -> bool {
    let mut polled = Polled { fd, events: READABLE, seen: 0 };
    poll(&mut polled, 1, 0) == 1 && polled.seen == READABLE
}

impl World {
    pub fn begin_step(&mut self) {
        let Some(slot) = self.guards.iter().position(Option::is_none) else {
            return self.end_guard();
        };
        let named = self.input.of(&[Named::One, Named::One, Named::Several, Named::Across]);
        let mut ask = self.ask(Kind::Acquired, named);
        let choice = self.input.byte();
        let mut ending = [
            Ending::Granted,
            Ending::Withdrawn,
            Ending::Granted,
            Ending::Stopped,
            Ending::TimedOut,
            Ending::TableFreed,
            Ending::LockTableFreed,
            Ending::QueueFreed,
        ][usize::from(choice % 8)];
        // Tasks share a thread: who gives no number is nobody.
        if ask.request.owner == 0 {
            (ask.request.owner, ask.request.party) = (api::OWNER_NONE, Party::None);
        }
        let known = &mut ask.options.known;
        if !ask.defaults && known.queue == api::QUEUE_POLLING {
            ask.flaw = ask.flaw.or(Some(api::ERR_INVALID));
        }
        let may_wait = !ask.defaults && ask.flaw.is_none() && known.wait_timeout_ms != 0;
        if ending == Ending::TimedOut {
            if may_wait && self.wait_a_moment() {
                ask.options.known.wait_timeout_ms = 1;
            } else {
                ending = Ending::Withdrawn;
            }
        }
        let (allowed, attempt) = self.forecast_begin(&ask, ending);

        let queue = self.some_completions();
        let fd = if choice & 8 == 0 { -1 } else { api::etslock_completions_fd(queue) };
        assert!(choice & 8 == 0 || fd >= 0 && !is_readable(fd));
        let data = ptr::without_provenance_mut(usize::from(choice));
        let (mut ticket, mut guard) = (UNSET, unset());
        let make = || begin(&ask, queue, data, &mut ticket, &mut guard);
        match self.call(format_args!("acquire_begin({ask})"), make, &allowed) {
            api::OK => return self.begun(slot, ask, guard),
            api::PENDING => {}
            status => return self.refused(&ask, attempt, status),
        }
        assert!(fd < 0 || ending == Ending::TimedOut || !is_readable(fd), "nothing is to be done");

        let Some(wanted) = self.end_pending(&ask, queue, ticket, ending) else {
            return self.refused(&ask, attempt, api::STOPPED);
        };
        if wanted != api::WAIT_TIMEOUT {
            assert!(
                fd < 0 || is_readable(fd),
                "a completion is there, and the descriptor is not readable"
            );
        }
        let done = self.fetch(queue);
        assert_eq!((done.ticket, done.user_data, done.reserved), (ticket, data, 0));
        say(format_args!("  the completion: {}", api::name(done.status)));
        assert_eq!(api::name(done.status), api::name(wanted));
        assert_eq!(done.guard.is_null(), wanted != api::OK);
        let withdraw = || api::etslock_completions_withdraw(queue, ticket);
        self.call(format_args!("completions_withdraw()"), withdraw, &[api::NOT_FOUND]);
        assert!(fd < 0 || !is_readable(fd), "nothing is left");
        match wanted {
            api::OK => self.begun(slot, ask, done.guard),
            _ => self.refused(&ask, attempt, wanted),
        }
    }

    /// As `forecast`, for a call that never blocks.
    fn forecast_begin(&self, ask: &Ask, ending: Ending) -> (Vec<Status>, Attempt) {
        if let Some(status) = ask.flaw {
            let overdue = Vec::new();
            let nothing = Attempt::Busy { deadlock: false, only_deadlock: false, overdue };
            return (vec![status], nothing);
        }
        let attempt = self.model.attempt(&ask.request);
        let Attempt::Busy { deadlock, only_deadlock, .. } = attempt else {
            return (vec![api::OK], attempt);
        };
        let detached = self.frames.iter().any(|frame| !self.model.holds[frame.hold].in_force());
        let may_deadlock = deadlock || detached;
        let wait = ask.options.known.wait_timeout_ms;
        let mut allowed = match (wait, ask.request.stopped) {
            (0, _) if !ask.defaults => return (vec![api::WAIT_TIMEOUT], attempt),
            (_, true) => vec![api::STOPPED],
            _ if only_deadlock && !detached => Vec::new(),
            _ => vec![api::PENDING],
        };
        allowed.extend(may_deadlock.then_some(api::DEADLOCK));
        allowed.extend((ending == Ending::TimedOut).then_some(api::WAIT_TIMEOUT));
        (allowed, attempt)
    }

    /// The script has the lock.
    fn begun(&mut self, slot: usize, ask: Ask, guard: *mut api::Guard) {
        let hold = self.model.grant(ask.request);
        self.model.saw_token(hold, api::etslock_guard_token(guard));
        self.guards[slot] = Some(OpenGuard { guard, hold });
        if ask.short {
            self.outlive(guard, hold);
        }
        if ask.defaults {
            self.end_guard_at(slot, true);
        }
    }

    /// What the completion will say; `None` if nobody will ever fetch it.
    fn end_pending(
        &mut self,
        ask: &Ask,
        queue: *mut api::Completions,
        ticket: u64,
        ending: Ending,
    ) -> Option<Status> {
        match ending {
            Ending::TimedOut => return Some(api::WAIT_TIMEOUT),
            Ending::Stopped if !ask.defaults && !ask.options.known.stop.is_null() => {
                let stop = ask.options.known.stop;
                let request = || api::etslock_stop_request(stop);
                self.call(format_args!("stop_request()"), request, &[api::OK]);
                self.stop = Some((stop, true));
                return Some(api::STOPPED);
            }
            Ending::Granted if self.let_go_of(ask) => return Some(api::OK),
            Ending::TableFreed => {
                let table = ask.table();
                let of_it = |slot: &usize| self.tables[*slot].is_some_and(|o| o.table == table);
                let slot = (0..self.tables.len()).find(of_it).expect("it is open");
                self.free_table(slot);
                return Some(api::CLOSED);
            }
            Ending::LockTableFreed if ask.request.lock_table != 0 => {
                let id = ask.request.lock_table;
                let of_it = |slot: &usize| self.lock_tables[*slot].is_some_and(|(_, i)| i == id);
                let slot = (0..self.lock_tables.len()).find(of_it).expect("it is open");
                self.free_lock_table(slot);
                return Some(api::CLOSED);
            }
            Ending::QueueFreed => {
                self.free_completions();
                return None;
            }
            _ => {}
        }
        let withdraw = || api::etslock_completions_withdraw(queue, ticket);
        self.call(format_args!("completions_withdraw()"), withdraw, &[api::OK]);
        Some(api::STOPPED)
    }

    /// Ends what is in the way, if that is one hold.
    fn let_go_of(&mut self, ask: &Ask) -> bool {
        let lock_table = ask.request.lock_table;
        let in_the_way = |(table, key): &(usize, Vec<u8>)| {
            let hold = self.model.holder(lock_table, *table, key)?;
            (!self.model.holds[hold].overdue()).then_some(hold)
        };
        let holds: BTreeSet<HoldId> = ask.request.keys.iter().filter_map(in_the_way).collect();
        let [hold] = *Vec::from_iter(holds) else {
            return false;
        };
        let held = |slot: &usize| self.guards[*slot].is_some_and(|open| open.hold == hold);
        if let Some(slot) = (0..self.guards.len()).find(held) {
            let release = self.input.below(2) == 0;
            self.end_guard_at(slot, release);
            return true;
        }
        let at_hold = |place: &(usize, Vec<u8>)| in_the_way(place) == Some(hold);
        let which = ask.request.keys.iter().position(at_hold).expect("it holds one");
        let (id, key) = &ask.request.keys[which];
        let table = ask.tables[which].table;
        let handle = if ask.defaults { ptr::null_mut() } else { ask.options.known.lock_table };
        let token = self.model.holds[hold].token;
        let wanted = self.model.force_release(lock_table, *id, key);
        let force = || {
            let (key, len) = (crate::world::at(key), key.len());
            api::etslock_lock_table_force_release_token(handle, table, key, len, token)
        };
        self.call(format_args!("lock_table_force_release_token({token})"), force, &[wanted]);
        true
    }

    /// The one completion that is there, or will be.
    fn fetch(&self, queue: *mut api::Completions) -> api::Completion {
        let none = api::Completion {
            ticket: 0,
            user_data: ptr::null_mut(),
            guard: ptr::null_mut(),
            status: 77,
            reserved: 77,
        };
        let (mut done, mut count) = ([none; 2], 77);
        let (out, room) = (done.as_mut_ptr(), done.len());
        let wait = || api::etslock_completions_wait(queue, out, room, api::INFINITE, &mut count);
        self.call(format_args!("completions_wait()"), wait, &[api::OK]);
        assert_eq!(count, 1);
        let more = || api::etslock_completions_wait(queue, out, room, 0, &mut count);
        self.call(format_args!("completions_wait(0)"), more, &[api::WAIT_TIMEOUT]);
        done[0]
    }

    fn some_completions(&mut self) -> *mut api::Completions {
        if let Some(there) = self.completions {
            return there;
        }
        let mut queue = unset();
        let new = || api::etslock_completions_new(&mut queue);
        self.call(format_args!("completions_new()"), new, &[api::OK]);
        self.completions = Some(queue);
        queue
    }

    pub fn free_completions(&mut self) {
        let Some(queue) = self.completions.take() else { return };
        say(format_args!("etslock_completions_free()"));
        api::etslock_completions_free(queue);
    }
}

fn begin(
    ask: &Ask,
    queue: *mut api::Completions,
    data: *mut c_void,
    ticket: &mut u64,
    guard: &mut *mut api::Guard,
) -> Status {
    let (table, options) = (ask.table(), ask.options());
    let (keys, table_keys) = (ask.c_keys(), ask.c_table_keys());
    let count = keys.len();
    let status = match ask.named {
        Named::One => {
            let api::Key { key, key_len } = keys[0];
            api::etslock_acquire_begin(table, key, key_len, options, queue, data, ticket, guard)
        }
        Named::Several => {
            let keys = keys.as_ptr();
            api::etslock_acquire_locks_begin(
                table, keys, count, options, queue, data, ticket, guard,
            )
        }
        Named::Across => {
            let keys = table_keys.as_ptr();
            api::etslock_acquire_locks_across_begin(
                keys, count, options, queue, data, ticket, guard,
            )
        }
    };
    assert_eq!(*ticket == UNSET, status != api::PENDING);
    assert_eq!(guard.is_null(), status != api::OK);
    status
}
