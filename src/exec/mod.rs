//! Running work by a deadline on threads of our own. Has never heard of locks.
//!
//! Arrows run downward only:
//!
//! | file           | concept                                                           |
//! |----------------|-------------------------------------------------------------------|
//! | `running`      | work on a worker, as its caller sees it                           |
//! | `worker`       | a thread that runs work: told, kept warm, retired                 |
//! | `surroundings` | what a callback finds on its thread: signals, processors, modes   |
//! | `thread`       | threads as libc has them: started, asked to end, their end told   |
//! | `pool`         | the idle workers, and how many there are                          |
//! | `spin`         | adaptive spinning                                                 |
//! | `job`          | one piece of work, seen by worker and caller (state machine)      |
//!
//! A caller takes an idle worker, or starts one, and posts its work to that worker alone: there is
//! no shared queue, so no work ever waits behind another. A worker whose work was abandoned is
//! nobody's until the work returns; then it is idle again.

mod job;
mod pool;
mod running;
mod spin;
#[cfg_attr(any(loom, shuttle), expect(dead_code, reason = "models know nothing of the system"))]
mod surroundings;
#[cfg_attr(any(loom, shuttle), allow(dead_code, reason = "models know little of the system"))]
mod thread;
mod worker;

pub(crate) use job::Ending;
pub(crate) use running::{Running, start, threads};

/// What a worker runs.
pub(crate) trait Work: Send + Sync {
    /// Runs. May be unwound by cancellation or `pthread_exit`: it must own nothing on the stack.
    fn run(&self) -> i32;

    /// The work has ended, on the same thread and before anyone is told.
    fn ended(&self, ending: Ending);
}
