//! A model of the whole scenario: wait, lock, run, commit, release, with all who may come in between.
//!
//! Holds, entries and queues are the library's. What `lock_table`, `guard` and `with_lock` do with
//! them is told again, step by step, with an index and a clock that a schedule controls: so every
//! schedule that shuttle tries can be tried again.

#![expect(clippy::unwrap_used, reason = "a panic fails the model")]

use std::mem;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::{self, JoinHandle};

use crate::clock::{Deadline, Moment, Timeout};
use crate::key::{Key, LockId};
use crate::lock::entry::{Deferred, Entry, EntryRef, Turn, opened_ahead};
use crate::lock::hold::{Gate, Hold, Standing, Verdict};
use crate::lock::hold_ref::HoldRef;
use crate::lock::index::{Listed, Node};
use crate::lock::owner::OwnerId;
use crate::lock::queue::{Fate, Waiter, Waker};
use crate::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{Arc, Mutex, current, machine, park};

const CALLERS: usize = 3;
const SCHEDULES: usize = 400_000;
const EXEC: Timeout = Timeout::millis(10);
/// In nanoseconds: later than every deadline before.
const A_SECOND: u64 = 1_000_000_000;

/// What has become of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It waits for the lock, or holds it.
    Live,
    Publishing,
    /// It gave up waiting, or gave the lock back.
    Ended,
    TakenAway,
}

/// What is known of a call. Its number is the `thread_id` of its hold.
struct Record {
    row: usize,
    course: Course,
    /// 0 until it knows it.
    token: u64,
    /// The calls that had the lock before it, as far as known.
    earlier: Vec<usize>,
}

struct Row {
    id: LockId,
    /// The index.
    listed: machine::Mutex<Option<EntryRef>>,
    /// What the lock protects: nothing else orders a holder's read and its write.
    value: AtomicU64,
}

/// A call that got the lock.
struct Call {
    row: usize,
    entry: EntryRef,
    hold: HoldRef,
}

struct Scenario {
    rows: Vec<Row>,
    clock: AtomicU64,
    records: Mutex<Vec<Record>>,
    /// How many writes landed, by row.
    landed: Mutex<Vec<u64>>,
    /// Holders that went away without a word.
    gone: Mutex<Vec<Call>>,
    /// Workers whose caller stopped waiting.
    abandoned: Mutex<Vec<JoinHandle<()>>>,
}

fn chance(one_in: u32) -> bool {
    thread_rng().gen_ratio(1, one_in)
}

impl Row {
    fn new(number: usize) -> Self {
        let id = LockId { table: 1, key: Key::new(&[number as u8]).unwrap() };
        Self { id, listed: machine::Mutex::new(None), value: AtomicU64::new(0) }
    }

    fn find(&self) -> Option<EntryRef> {
        self.listed.lock().clone().filter(|entry| entry.is(self.id.by_ref()))
    }

    fn list(&self, hold: &mut HoldRef, now: Moment) -> Option<EntryRef> {
        hold.open_ahead(now);
        let id = self.id.by_ref().to_id().unwrap();
        let entry = Node::try_new(Entry::held_by(id, hold.clone_mut())).unwrap();
        let mut listed = self.listed.lock();
        let comes_first = !listed.as_ref().is_some_and(|other| other.is(self.id.by_ref()));
        if comes_first {
            *listed = Some(entry.clone());
        }
        drop(listed);
        opened_ahead(entry.id().hash(), hold, comes_first);
        comes_first.then_some(entry)
    }

    fn unlist(&self, entry: &EntryRef) {
        let mut listed = self.listed.lock();
        if listed.as_ref().is_some_and(|other| other.ptr_eq(entry)) {
            *listed = None;
        }
    }
}

impl Scenario {
    /// Releases look at the real clock, which is long before the scenario whenever it plays. So a
    /// release hands the lock over in strict queues alone; what it opens then is late at once,
    /// unless it has no deadline.
    fn new() -> Arc<Self> {
        let rows = if chance(3) { 2 } else { 1 };
        Arc::new(Self {
            rows: (0..rows).map(Row::new).collect(),
            clock: AtomicU64::new(1 << 60),
            records: Mutex::default(),
            landed: Mutex::new(vec![0; rows]),
            gone: Mutex::default(),
            abandoned: Mutex::default(),
        })
    }

    fn now(&self) -> Moment {
        Moment::from_bits(self.clock.load(Relaxed))
    }

    /// Sleeps until `deadline`, a wake-up, or for no reason; without a deadline until a wake-up.
    fn sleep(&self, deadline: Deadline) {
        if deadline == Deadline::NEVER {
            park();
        } else if chance(2) {
            self.clock.fetch_max(deadline.as_bits(), Relaxed);
        } else {
            thread::yield_now();
        }
    }

    fn new_hold(&self, row: usize, exec: Timeout) -> HoldRef {
        let fail = if chance(2) { Timeout::millis(0) } else { Timeout::millis(5) };
        let mut records = self.records.lock();
        let number = records.len() as u64;
        records.push(Record { row, course: Course::Live, token: 0, earlier: Vec::new() });
        drop(records);
        HoldRef::new(|| Hold::new(exec, fail, OwnerId::None, true, number))
    }

    /// A call goes on. What it does is legal only if nobody has decided otherwise before.
    fn step(&self, hold: &Hold, from: Course, to: Course) {
        let course = &mut self.records.lock()[hold.thread_id as usize].course;
        assert_eq!(*course, from, "call {} is about to be {to:?}", hold.thread_id);
        *course = to;
    }

    /// As `LockTable::carry_out`. Idle entries are kept now and then.
    fn carry_out(&self, row: usize, entry: &EntryRef, mut deferred: Deferred) {
        deferred.wake();
        if deferred.idle && chance(2) {
            self.carry_out(row, entry, entry.evict());
        }
        if deferred.died {
            self.rows[row].unlist(entry);
        }
        if let Some(evicted) = deferred.expired.take() {
            self.step(&evicted, Course::Live, Course::TakenAway);
        }
    }

    /// As `LockTable::attempt`.
    fn attempt(&self, row: usize, hold: &mut HoldRef, strict: bool) -> Result<EntryRef, EntryRef> {
        loop {
            let now = self.now();
            let Some(entry) = self.rows[row].find() else {
                if let Some(entry) = self.rows[row].list(hold, now) {
                    return Ok(entry);
                }
                continue;
            };
            if entry.take(hold, true, now) {
                return Ok(entry);
            }
            let (turn, deferred) = entry.arrive(hold, true, strict, now);
            self.carry_out(row, &entry, deferred);
            match turn {
                Turn::Taken => return Ok(entry),
                Turn::Busy { .. } => return Err(entry),
                Turn::Dead => {}
            }
        }
    }

    /// As `LockTable::take` with a place in the queue. `None`: it gave up.
    fn acquire(&self, row: usize, hold: &mut HoldRef, by: Deadline) -> Option<EntryRef> {
        let strict = chance(4);
        loop {
            let entry = match self.attempt(row, hold, strict) {
                Ok(entry) => return Some(entry),
                Err(busy) => busy,
            };
            let waiter =
                Arc::new(Waiter::new(hold.clone(), true, strict, by, Waker::Thread(current())));
            let (turn, deferred) = entry.join(&waiter, self.now());
            self.carry_out(row, &entry, deferred);
            match turn {
                Turn::Taken => return Some(entry),
                Turn::Busy { .. } => return self.wait(row, &entry, &waiter, by).then_some(entry),
                Turn::Dead => {}
            }
        }
    }

    /// As `Claim::wait`. Whether it got the lock.
    fn wait(&self, row: usize, entry: &EntryRef, waiter: &Arc<Waiter>, by: Deadline) -> bool {
        loop {
            match waiter.fate() {
                Fate::Granted => return true,
                Fate::TimedOut => return false,
                _ => {}
            }
            let now = self.now();
            let (turn, deferred) = entry.look(waiter, now);
            self.carry_out(row, entry, deferred);
            let Turn::Busy { look_again } = turn else { return true };
            if !by.is_past(now) {
                self.sleep(by.min(look_again));
                continue;
            }
            let (left, deferred) = entry.leave(waiter, Fate::Left, now);
            self.carry_out(row, entry, deferred);
            if left {
                return false;
            }
        }
    }

    fn release(&self, call: &Call) {
        self.carry_out(call.row, &call.entry, call.entry.release(&call.hold));
    }

    /// As `Guard::publish_staged`: adds one to the row if nobody has since the call saw it.
    fn publish(&self, call: &Call, seen: &mut u64, last: bool) -> bool {
        if call.hold.commit_begin(self.now()) != Gate::Open {
            return false;
        }
        self.step(&call.hold, Course::Live, Course::Publishing);
        let before = self.rows[call.row].value.swap(*seen + 1, Relaxed);
        assert_eq!(before, *seen, "somebody else has published meanwhile");
        *seen += 1;
        self.landed.lock()[call.row] += 1;
        let then = if last { Course::Ended } else { Course::Live };
        self.step(&call.hold, Course::Publishing, then);
        call.hold.commit_end(last);
        true
    }

    /// As `Guard::expire`.
    fn expire(&self, call: &Call) -> Verdict {
        let verdict = call.hold.expire(self.now());
        if verdict == Verdict::Taken {
            self.step(&call.hold, Course::Live, Course::TakenAway);
            self.release(call);
        }
        verdict
    }

    /// As `Guard::let_go`.
    fn let_go(&self, call: &Call) {
        if !call.hold.is_in_force() {
            return;
        }
        if call.hold.standing(self.now()) == Standing::Late {
            self.expire(call);
        } else if call.hold.end().is_ok() {
            self.step(&call.hold, Course::Live, Course::Ended);
            self.release(call);
        }
    }

    /// As `Locked::release_for_good`.
    fn give_up(&self, mut call: Call) {
        if !call.entry.give_back(&mut call.hold) {
            self.release(&call);
        } else if chance(2) {
            self.carry_out(call.row, &call.entry, call.entry.evict());
        }
    }

    /// A callback, and its end as `Guard::finish` makes it. Whether it landed, and the lock is to be
    /// freed.
    fn run(&self, call: &Call) -> bool {
        let mut seen = self.rows[call.row].value.load(Relaxed);
        if chance(3) {
            call.hold.extend(self.now(), EXEC);
        }
        if chance(3) {
            self.publish(call, &mut seen, false);
        }
        if chance(3) && call.hold.deadline() != Deadline::NEVER {
            self.sleep(call.hold.deadline());
        }
        let landed = !chance(4) && self.publish(call, &mut seen, true);
        if !landed {
            self.let_go(call);
        }
        landed
    }

    /// As `with_lock::wait`.
    fn run_on_worker(self: &Arc<Self>, call: Call) {
        let (call, finished) = (Arc::new(call), Arc::new(AtomicBool::new(false)));
        call.hold.watch(current());
        let worker = {
            let (scenario, call, finished) =
                (Arc::clone(self), Arc::clone(&call), Arc::clone(&finished));
            let caller = current();
            thread::spawn(move || {
                if scenario.run(&call) {
                    scenario.release(&call);
                }
                finished.store(true, Release);
                caller.unpark();
            })
        };
        loop {
            if call.hold.is_in_force() && !finished.load(Acquire) {
                self.sleep(call.hold.deadline());
            }
            if finished.load(Acquire) {
                worker.join().unwrap();
                break;
            }
            match self.expire(&call) {
                Verdict::InTime => continue,
                Verdict::Committing | Verdict::Ended => {
                    thread::yield_now();
                    continue;
                }
                Verdict::Taken => {}
                Verdict::Lost(_) => self.release(&call),
            }
            self.abandoned.lock().push(worker);
            break;
        }
        call.hold.unwatch(&current());
    }

    /// A call got the lock: what is over by now had it before, unless it was lost since.
    fn note_order(&self, call: &Call) {
        let number = call.hold.thread_id as usize;
        let earlier = {
            let records = self.records.lock();
            let had_it =
                |other: &usize| records[*other].row == call.row && is_over(&records[*other]);
            (0..records.len()).filter(had_it).collect()
        };
        let (is_the_latest, token) = (call.hold.is_open(), call.hold.token());
        assert_ne!(token, 0);
        let record = &mut self.records.lock()[number];
        record.token = token;
        if is_the_latest {
            record.earlier = earlier;
        }
    }

    fn calls(self: &Arc<Self>) {
        for _ in 0..thread_rng().gen_range(1..=2) {
            self.call();
        }
    }

    fn call(self: &Arc<Self>) {
        let row = thread_rng().gen_range(0..self.rows.len());
        let exec = if chance(2) { Timeout::INFINITE } else { EXEC };
        let wait = if chance(3) { Timeout::millis(3) } else { Timeout::INFINITE };
        let mut hold = self.new_hold(row, exec);
        let Some(entry) = self.acquire(row, &mut hold, self.now().after(wait)) else {
            assert!(hold.give_up(), "granted after it gave up");
            self.step(&hold, Course::Live, Course::Ended);
            return;
        };
        if hold.token() == 0 {
            return;
        }
        let call = Call { row, entry, hold };
        self.note_order(&call);
        match thread_rng().gen_range(0..6) {
            0 | 1 => self.run_on_worker(call),
            // A waiter has to free it.
            2 if exec != Timeout::INFINITE => self.gone.lock().push(call),
            _ if self.run(&call) => self.give_up(call),
            _ => {}
        }
    }

    /// Looks, evicts, and takes locks away, as `LockTable::force_release` does.
    fn meddle(&self) {
        for _ in 0..2 {
            let row = thread_rng().gen_range(0..self.rows.len());
            let Some(entry) = self.rows[row].find() else { continue };
            let found = entry.holder();
            if chance(2) {
                self.carry_out(row, &entry, entry.evict());
                continue;
            }
            let Some((hold, _)) = found else { continue };
            if hold.revoke() == Verdict::Taken {
                self.step(&hold, Course::Live, Course::TakenAway);
                self.carry_out(row, &entry, entry.release(&hold));
            }
        }
    }

    /// Nobody holds a lock or waits for one any more; who went away is too late.
    fn assert_at_rest(&self) {
        self.clock.fetch_add(A_SECOND, Relaxed);
        for row in 0..self.rows.len() {
            let mut hold = self.new_hold(row, Timeout::INFINITE);
            let Ok(entry) = self.attempt(row, &mut hold, true) else {
                panic!("somebody still holds the lock of row {row}, or waits for it");
            };
            self.let_go(&Call { row, entry, hold });
            assert_eq!(self.rows[row].value.load(Relaxed), self.landed.lock()[row]);
        }
        let gone = mem::take(&mut *self.gone.lock());
        for call in gone {
            assert!(matches!(call.hold.commit_begin(Moment::START), Gate::Lost(_)));
        }
        let records = self.records.lock();
        for (number, record) in records.iter().enumerate() {
            assert!(is_over(record), "call {number}: {:?}", record.course);
            for other in &record.earlier {
                let (token, earlier) = (record.token, records[*other].token);
                assert!(earlier < token, "calls {other}, {number}: tokens {earlier}, {token}");
            }
        }
    }
}

fn is_over(record: &Record) -> bool {
    matches!(record.course, Course::Ended | Course::TakenAway)
}

fn scenario() {
    let scenario = Scenario::new();
    let spawn = |part: fn(&Arc<Scenario>)| {
        let scenario = Arc::clone(&scenario);
        thread::spawn(move || part(&scenario))
    };
    let mut threads: Vec<_> = (0..CALLERS).map(|_| spawn(Scenario::calls)).collect();
    if chance(2) {
        threads.push(spawn(|scenario| scenario.meddle()));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let abandoned = mem::take(&mut *scenario.abandoned.lock());
    for worker in abandoned {
        worker.join().unwrap();
    }
    scenario.assert_at_rest();
}

#[test]
fn random_schedules() {
    shuttle::check_random(scenario, SCHEDULES);
}

/// Few preemptions, and each where it hurts.
#[test]
fn schedules_by_priority() {
    shuttle::check_pct(scenario, SCHEDULES, 3);
}

/// Nothing but the schedule decides how a scenario goes on.
#[test]
fn schedules_can_be_played_again() {
    shuttle::check_uncontrolled_nondeterminism(scenario, 500);
}
