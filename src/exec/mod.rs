//! Running work by a deadline on threads of our own. Has never heard of locks.
//!
//! | file     | concept                                                             |
//! |----------|---------------------------------------------------------------------|
//! | `job`    | one piece of work, seen by worker and caller (state machine)        |
//! | `worker` | the threads: started, posted to, kept warm, retired, cancelled      |
//!
//! A caller takes an idle worker, or starts one, and posts its work to that worker alone: there is
//! no shared queue, so no work ever waits behind another. A worker whose work was abandoned is
//! nobody's until the work returns; then it is idle again.

mod job;
mod worker;

pub(crate) use job::Ending;
pub(crate) use worker::{Running, prepare, start, threads};

/// What a worker runs.
pub(crate) trait Work: Send + Sync {
    /// Runs. May be unwound by cancellation or `pthread_exit`: it must own nothing on the stack.
    fn run(&self) -> i32;

    /// The work has ended, on the same thread and before anyone is told.
    fn ended(&self, ending: Ending);
}
