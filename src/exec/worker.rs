//! Workers: internal threads that run callbacks, as they see themselves.
//!
//! Invariants
//! I1. Between a worker's start routine and the user's callback no frame owns anything, and no
//!     unwind is caught: cancellation and `pthread_exit` unwind these frames (C-17).
//! I2. A worker in the pool is idle; who takes it out is the only one to post to it.
//! I3. A worker's thread can be cancelled only while it runs a callback; elsewhere cancellation is
//!     off. One that was asked to end never runs another callback.
//! I4. The mutexes here are held over no callback and no wait.

#![expect(unsafe_code, reason = "a thread and its work know each other by pointers")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Weak;
use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use super::Work;
use super::job::{Ended, Ending, Found, Job};
use super::pool::Pool;
use super::spin::Patience;
#[cfg(not(any(loom, shuttle)))]
use super::surroundings::{self, Surroundings};
use super::thread::{self, Cancellable, EndKey, set_cancellable, test_cancel};
use crate::clock::{Moment, Timeout};
use crate::error::Result;
use crate::process::{Generation, PerProcess};
use crate::sync::{self, Arc, Mutex, OnceLock, Thread, current, machine, park_timeout};
#[cfg(any(loom, shuttle))]
use unmodelled::Surroundings;

/// How long a worker stays warm without work; in a model it never does for sure.
const IDLE_TIME: Timeout = Timeout::millis(if cfg!(loom) { 0 } else { 2_000 });

/// How long it sleeps with the signals of a callback. WHY: most work comes sooner, and not one more
/// system call stands in its way.
const DROWSY_TIME: Timeout = Timeout::millis(if cfg!(loom) { 0 } else { 5 });

/// What caller and worker hand to each other, on a cache line of its own.
#[repr(align(64))]
pub(super) struct Slot {
    pub(super) job: Job,
    /// How long either side may spin for the other, at most.
    pub(super) most_spins: AtomicU32,
    /// How long the caller spins for the end of the work.
    pub(super) caller_patience: Patience,
    /// How long the worker spins for more work.
    worker_patience: Patience,
    /// The work, and the caller to wake when it has ended.
    pub(super) work: Mutex<Option<(Arc<dyn Work>, Thread)>>,
}

impl Slot {
    /// Looks for a moment. Whether `done` came true.
    pub(super) fn spin_until(&self, patience: &Patience, done: impl FnMut() -> bool) -> bool {
        patience.spin_until(self.most_spins.load(Relaxed), done) // ORDERING: a hint.
    }
}

/// One worker, shared by its thread and by the caller whose work it runs.
pub(super) struct Worker {
    pub(super) slot: Slot,
    me: Weak<Worker>,
    born: Generation,
    /// The worker's own thread, for those who wake it. Set before it first comes to the pool.
    thread: OnceLock<Thread>,
    /// The thread to cancel; `None` before it has begun and after it has ended.
    pub(super) cancellable: machine::Mutex<Option<libc::pthread_t>>,
    /// It runs no more callbacks (I3).
    pub(super) ends: sync::atomic::AtomicBool,
    /// Its thread is ending, with work in its place; its own.
    is_ending: AtomicBool,
}

pub(super) fn pool() -> &'static Pool<Worker> {
    static POOL: PerProcess<Pool<Worker>> = PerProcess::new();
    POOL.get(Pool::default)
}

/// Tells that a worker's thread ends, however it ends.
static END: EndKey = EndKey::new(thread_ended);

impl Worker {
    /// A worker without a thread.
    pub(super) fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            slot: Slot {
                job: Job::new(),
                most_spins: AtomicU32::new(0),
                caller_patience: Patience::default(),
                worker_patience: Patience::default(),
                work: Mutex::new(None),
            },
            me: me.clone(),
            born: Generation::current(),
            thread: OnceLock::new(),
            cancellable: machine::Mutex::new(None),
            ends: sync::atomic::AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        })
    }

    /// Starts the worker's thread.
    pub(super) fn spawn(worker: &Arc<Self>) -> Result<()> {
        END.make()?;
        pool().worker_begins()?;
        // The thread's own count, given up by `end_thread`.
        let own = Arc::into_raw(Arc::clone(worker));
        let started = start_thread(own.cast_mut().cast());
        if started.is_err() {
            pool().worker_ends();
            // SAFETY: the count made above, which no thread has taken over.
            drop(unsafe { Arc::from_raw(own) });
        }
        started
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Waits for work; `None`: there was none for so long that the worker retires.
    fn next(&self, surroundings: &mut Surroundings) -> Option<*const dyn Work> {
        let mut idle_since = None;
        loop {
            let Slot { job, work, .. } = &self.slot;
            match job.begin() {
                Found::Work => {
                    // The place keeps it until the job has ended (I2 of `job`).
                    return work.lock().as_ref().map(|(work, caller)| {
                        surroundings.before_callback(caller.id());
                        Arc::as_ptr(work)
                    });
                }
                Found::Cancelled => self.rest(),
                Found::Nothing => {}
            }
            if self.slot.spin_until(&self.slot.worker_patience, || job.is_posted()) {
                continue;
            }
            let now = Moment::now();
            let since = *idle_since.get_or_insert(now);
            let retires = since.after(IDLE_TIME);
            let drowses = since.after(DROWSY_TIME);
            let sleeps = drowses.is_past(now);
            if sleeps && !surroundings.settle() && self.retire() {
                return None;
            }
            if job.worker_sleeps() {
                if sleeps {
                    surroundings.before_sleep();
                    park_for(retires.remaining(now));
                    surroundings.after_sleep();
                } else {
                    park_for(drowses.remaining(now));
                }
                job.worker_awake();
            }
            if !job.is_posted() && retires.is_past(Moment::now()) {
                if self.retire() {
                    return None;
                }
                // A caller has it: its next idle time has not begun.
                idle_since = None;
            }
        }
    }

    /// Goes back to the pool.
    fn rest(&self) {
        if let Some(me) = self.me.upgrade() {
            pool().put(me);
        }
    }

    /// Leaves the pool; `false` if a caller has taken it out, whose work is on its way.
    fn retire(&self) -> bool {
        pool().remove(self)
    }

    /// The work has ended. Whether the worker may take more.
    fn end(&self, work: &dyn Work, ending: Ending) -> bool {
        // A callback forked, and this is the child: nobody waits for it here (C-16).
        if !self.born.is_current() {
            return false;
        }
        // A bug of ours must not end the process: the caller finds that there is no answer.
        let _ = catch_unwind(AssertUnwindSafe(|| work.ended(ending)));
        loop {
            match self.slot.job.end() {
                Ended::Finished | Ended::Idle => return true,
                Ended::CallerSleeps => {
                    let caller = self.slot.work.lock().as_ref().map(|(_, caller)| caller.clone());
                    if self.slot.job.end_and_wake().is_some() {
                        caller.inspect(Thread::unpark);
                        return true;
                    }
                }
                Ended::Abandoned => {
                    let work = self.slot.work.lock().take();
                    drop(work);
                    pool().is_not_abandoned();
                    if self.must_end() {
                        return false;
                    }
                    self.rest();
                    return true;
                }
            }
        }
    }

    /// Whether a request to end may be pending (I3). Settled by the mutex that `abandon` holds.
    fn must_end(&self) -> bool {
        let _settled = self.cancellable.lock();
        self.ends.load(Acquire) // ORDERING: under the mutex.
    }

    /// Its thread runs no more callbacks.
    fn stop(&self) {
        *self.cancellable.lock() = None;
        self.ends.store(true, Release); // ORDERING: pairs with `collect`, after the job's end.
    }

    /// Work whose caller has not taken it back.
    fn work(&self) -> Option<*const dyn Work> {
        self.slot.work.lock().as_ref().map(|(work, _)| Arc::as_ptr(work))
    }
}

fn park_for(left: Option<Duration>) {
    if let Some(left) = left {
        park_timeout(left);
    }
}

/// The start routine of a worker's thread. Owns nothing while a callback runs (I1).
extern "C-unwind" fn worker_main(worker: *mut c_void) -> *mut c_void {
    set_cancellable(Cancellable::No);
    let own = worker.cast_const().cast::<Worker>();
    // SAFETY: the thread's own count lives until `end_thread`, which runs after this.
    let worker = unsafe { &*own };
    // The threads of a model say themselves that they end.
    if !cfg!(loom) && END.set(own.cast()).is_err() {
        // SAFETY: the thread's own count, which nobody else gives up.
        unsafe { refuse(own) };
        return ptr::null_mut();
    }
    *worker.cancellable.lock() = Some(thread::own());
    let _first = worker.thread.set(current());
    let mut surroundings = Surroundings::begin();
    while let Some(work) = worker.next(&mut surroundings) {
        // SAFETY: the worker's place keeps the work until `end`.
        let work = unsafe { &*work };
        set_cancellable(Cancellable::Yes);
        let code = work.run();
        test_cancel();
        set_cancellable(Cancellable::No);
        if !worker.end(work, Ending::Returned(code)) {
            break;
        }
        surroundings.after_callback();
    }
    ptr::null_mut()
}

/// A thread whose end nobody would be told runs nothing.
///
/// # Safety
/// `own` is the thread's own count, which is given up here.
#[cold]
unsafe fn refuse(own: *const Worker) {
    // SAFETY: the contract above.
    let worker = unsafe { &*own };
    worker.stop();
    // Posted before the thread began, and perhaps taken back since.
    if worker.slot.job.begin() == Found::Work
        && let Some(work) = worker.work()
    {
        // SAFETY: the worker's place keeps the work until `end`.
        worker.end(unsafe { &*work }, Ending::NeverBegan);
    }
    // SAFETY: the contract above.
    unsafe { end_thread(own) };
}

/// Called when a worker's thread ends, however it ends. Rust's thread-locals are gone by now.
unsafe extern "C" fn thread_ended(own: *mut c_void) {
    let own = own.cast_const().cast::<Worker>();
    // SAFETY: the thread's own count, made by `spawn` and given up by `end_thread`.
    let worker = unsafe { &*own };
    if !worker.born.is_current() {
        return;
    }
    // Work that is still in its place ended its own thread.
    let work = worker.work();
    // WHY: not at once. The callback has not ended before the destructors of its thread-specific
    // data have run. They are called in the order in which their keys were made, and in another
    // round those that were set anew.
    let waits = work.is_some() && !worker.is_ending.swap(true, Relaxed) && !cfg!(loom);
    if waits && END.set(own.cast()).is_ok() {
        return;
    }
    worker.stop();
    if let Some(work) = work {
        // SAFETY: the worker's place keeps the work until `end`.
        worker.end(unsafe { &*work }, Ending::ThreadEnded);
    }
    // SAFETY: the thread's own count, and nothing of it runs any more.
    unsafe { end_thread(own) };
}

/// # Safety
/// `own` is the thread's own count, which is given up here.
unsafe fn end_thread(own: *const Worker) {
    pool().worker_ends();
    // SAFETY: the contract above.
    drop(unsafe { Arc::from_raw(own) });
}

#[cfg(not(all(test, loom)))]
fn start_thread(worker: *mut c_void) -> Result<()> {
    #[cfg(not(any(loom, shuttle)))]
    surroundings::look_at_main_thread();
    thread::start(worker_main, worker)
}

/// A worker's thread in a model, which says itself that it ends.
#[cfg(all(test, loom))]
fn start_thread(worker: *mut c_void) -> Result<()> {
    struct Own(*mut c_void);
    // SAFETY: the thread's own count of its worker.
    unsafe impl Send for Own {}
    let own = Own(worker);
    loom::thread::spawn(move || {
        let Own(worker) = { own };
        worker_main(worker);
        // SAFETY: the count that `spawn` made, which nobody has given up.
        unsafe { thread_ended(worker) };
    });
    Ok(())
}

/// Models know nothing of the system.
#[cfg(any(loom, shuttle))]
mod unmodelled {
    pub(super) struct Surroundings;

    impl Surroundings {
        pub(super) fn begin() -> Self {
            Self
        }

        pub(super) fn before_callback<T>(&mut self, _: T) {}

        pub(super) fn after_callback(&mut self) {}

        pub(super) fn settle(&mut self) -> bool {
            true
        }

        pub(super) fn before_sleep(&self) {}

        pub(super) fn after_sleep(&mut self) {}
    }
}
