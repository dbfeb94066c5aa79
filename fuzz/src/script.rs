//! A single-threaded script: what the next byte chooses, until there is none, and what must be true
//! in the end.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::api;
use crate::calls::Call;
use crate::input::Input;
use crate::locks::Named;
use crate::world::{
    CURSORS, GUARDS, LOCK_TABLES, SNAPSHOTS, Shared, TABLES, World, stats_of, until,
};

/// What comes after a step.
#[derive(Debug)]
enum Step {
    Next,
    /// A call that runs a callback, to be made while nobody holds the world.
    Call(Box<Call>),
    /// The callback returns, or the script is over.
    End,
}

/// Runs a script.
pub fn run(input: Input) {
    let mut world = World::new(input);
    world.lock_tables[0] = Some((ptr::null_mut(), 0));
    world.model.counts.push(Default::default());
    let cleanup = world.input.below(6);
    world.new_table(0);

    let shared = Shared::new(world, go_on);
    go_on(&shared, 0);
    let mut world = shared.enter(0);
    world.compare();
    world.clean_up(cleanup);
    world.check_end();
}

/// Runs the script until it ends, or the callback at this level.
fn go_on(shared: &Arc<Shared>, level: usize) {
    loop {
        let step = shared.enter(level).step();
        match step {
            Step::Next => {}
            Step::Call(call) => {
                let call = call.make(shared, level);
                shared.enter(level).check_call(call);
            }
            Step::End => return,
        }
    }
}

impl World {
    /// What the next byte chooses. Every choice is possible at any time: where something is
    /// missing, it is made.
    fn step(&mut self) -> Step {
        if self.input.is_empty() {
            return Step::End;
        }
        match self.input.below(64) {
            0..=9 => self.table_step(),
            10 => self.cursor_step(),
            11 => self.let_go_step(),
            12..=13 => self.life_step(),
            14..=21 => self.acquire(Named::One),
            22..=23 => self.acquire(Named::Several),
            24 => self.acquire(Named::Across),
            25..=28 => self.end_guard(),
            29..=40 => self.guard_step(),
            41..=42 => self.force_release(),
            43 => self.look_at_locks(),
            44 => self.check_stats(),
            45..=51 => return self.prepare_call().map_or(Step::Next, Step::Call),
            52..=53 => self.lonely_step(),
            54 => self.wrong_call(),
            55 => self.compare(),
            56..=57 => self.scene(),
            58 => self.stop_step(),
            59 if self.input.below(4) == 0 => self.raise_tokens(),
            59..=60 => self.begin_step(),
            _ if self.frames.is_empty() => self.table_step(),
            _ => return Step::End,
        }
        Step::Next
    }

    /// The whole content of every table, each way it can be seen.
    fn compare(&mut self) {
        for open in self.tables.into_iter().flatten() {
            let mut count = usize::MAX;
            assert_eq!(api::etslock_table_count(open.table, &mut count), api::OK);
            assert_eq!(count, self.model.tables[open.id].count());
            let cursor = self.model.new_cursor(open.id);
            let mut handle = ptr::null_mut();
            assert_eq!(api::etslock_table_cursor(open.table, &mut handle), api::OK);
            while self.next_of_cursor(handle, cursor) {}
            api::etslock_cursor_free(handle);
        }
        self.check_locks(None);
    }

    /// Lets go of everything, in one of several orders.
    fn clean_up(&mut self, order: usize) {
        for turn in 0..6 {
            match (turn + order) % 6 {
                0 => {
                    for slot in 0..GUARDS {
                        self.end_guard_at(slot, slot % 2 == 0);
                    }
                }
                1 => (0..TABLES).for_each(|slot| self.free_table(slot)),
                2 => (1..=LOCK_TABLES).for_each(|slot| self.free_lock_table(slot)),
                3 => (0..SNAPSHOTS).for_each(|slot| self.free_snapshot(slot)),
                4 => (0..CURSORS).for_each(|slot| self.free_cursor(slot)),
                _ => {
                    self.free_locks();
                    self.free_stop();
                    self.free_completions();
                }
            }
        }
    }

    /// Nothing is left behind.
    fn check_end(&self) {
        for (id, _) in self.model.counts.iter().enumerate() {
            assert_eq!(self.model.held(id).count(), 0, "the model holds a lock");
        }
        until("abandoned callbacks end", || {
            let stats = stats_of(ptr::null_mut());
            assert_eq!((stats.held, stats.waiting), (0, 0));
            stats.abandoned == 0
        });
        until("the user's data is freed", || {
            self.freed.iter().all(|freed| freed.load(SeqCst) == 1)
        });
    }
}
