//! Workers: internal threads that run callbacks.
//!
//! Invariants
//! I1. Between a worker's start routine and the user's callback no frame owns anything, and no
//!     unwind is caught: cancellation and `pthread_exit` unwind these frames (C-17).
//! I2. A worker in the pool is idle; who takes it out is the only one to post to it.
//! I3. A worker's thread can be cancelled only while it runs a callback; elsewhere cancellation is
//!     off. One that was asked to end never runs another callback.
//! I4. A worker leaves the pool under the pool's mutex, so none retires with work posted to it.
//! I5. The mutexes here are held over no callback and no wait.

#![expect(unsafe_code, reason = "threads that can be cancelled come from libc")]

use std::ffi::c_void;
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Weak;
use std::sync::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use super::Work;
use super::job::{Ended, Ending, Found, GaveUp, Job};
use crate::clock::{Deadline, Moment, Timeout};
use crate::error::{Error, Result};
use crate::process::{Generation, PerProcess};
use crate::sync::{
    self, Arc, Mutex, OnceLock, Thread, current, machine, park, park_timeout, planted,
};
#[cfg(all(test, loom))]
use model::start_thread;
#[cfg(not(all(test, loom)))]
use start_system_thread as start_thread;

/// How long a worker stays warm without work; in a model it never does for sure.
const IDLE_TIME: Timeout = Timeout::millis(if cfg!(loom) { 0 } else { 2_000 });

/// What caller and worker hand to each other, on a cache line of its own.
#[repr(align(64))]
struct Slot {
    job: Job,
    /// How long either side may spin for the other, at most.
    most_spins: AtomicU32,
    /// How long the caller spins for the end of the work.
    caller_patience: Patience,
    /// How long the worker spins for more work.
    worker_patience: Patience,
    /// The work, and the caller to wake when it has ended.
    work: Mutex<Option<(Arc<dyn Work>, Thread)>>,
}

impl Slot {
    /// Looks for a moment. Whether `done` came true.
    fn spin_until(&self, patience: &Patience, done: impl Fn() -> bool) -> bool {
        // ORDERING: a hint.
        let spins = patience.begin().min(self.most_spins.load(Relaxed));
        let came = (0..spins).any(|_| {
            let came = done();
            if !came {
                std::hint::spin_loop();
            }
            came
        });
        patience.end(spins, came);
        came
    }
}

/// How long it has paid lately to spin before sleeping. Used by one side, one thread at a time.
///
/// WHY: a wake-up costs as much as `FULL` looks at most, so more never pays. Where the other side is
/// slow to come, or has no core to run on, spinning only burns its time: the patience halves with
/// each failure, and is tried again for `BRIEF` looks now and then.
///
/// WHY: not none in a crowd. One caller and one worker that are awake serve each other for a time
/// slice, while the rest sleep: with eight callers on two cores seven times as many calls as without
/// (`make bench`, B7), beside threads that take all cores as well. `BRIEF` looks are less than it
/// costs to sleep and be woken on a busy core.
#[derive(Default)]
struct Patience {
    spins: AtomicU32,
    waits: AtomicU32,
}

impl Patience {
    const FULL: u32 = 2_000;
    const BRIEF: u32 = 400;
    const TRIED_AGAIN: u32 = 16;

    // ORDERING of both: guesses, which nothing else depends on.
    fn begin(&self) -> u32 {
        let waits = self.waits.load(Relaxed);
        self.waits.store(waits.wrapping_add(1), Relaxed);
        let least = if waits.is_multiple_of(Self::TRIED_AGAIN) { Self::BRIEF } else { 0 };
        self.spins.load(Relaxed).max(least)
    }

    fn end(&self, spins: u32, came: bool) {
        let now = self.spins.load(Relaxed);
        let next = if came { (spins.max(now) * 2).min(Self::FULL) } else { now / 2 };
        self.spins.store(next, Relaxed);
    }
}

/// One worker, shared by its thread and by the caller whose work it runs.
struct Worker {
    slot: Slot,
    me: Weak<Worker>,
    born: Generation,
    /// The worker's own thread, for those who wake it. Set before it first comes to the pool.
    thread: OnceLock<Thread>,
    /// The thread to cancel; `None` before it has begun and after it has ended.
    cancellable: machine::Mutex<Option<libc::pthread_t>>,
    /// It runs no more callbacks (I3).
    ends: sync::atomic::AtomicBool,
}

/// The idle workers, the warmest last, and what there is besides.
#[derive(Default)]
struct Pool {
    idle: Mutex<Vec<Arc<Worker>>>,
    workers: AtomicU64,
    abandoned: AtomicU64,
    /// Calls under way, but for those that were abandoned.
    in_flight: AtomicUsize,
}

fn pool() -> &'static Pool {
    static POOL: PerProcess<Pool> = PerProcess::new();
    POOL.get(Pool::default)
}

/// How many threads there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads {
    /// Internal threads.
    pub(crate) workers: u64,
    /// Abandoned callbacks that still run.
    pub(crate) abandoned: u64,
}

/// How many threads there are at this moment.
pub(crate) fn threads() -> Threads {
    let pool = pool();
    Threads { workers: pool.workers.load(Relaxed), abandoned: pool.abandoned.load(Acquire) }
}

/// Work on a worker, as its caller sees it.
pub(crate) struct Running(Arc<Worker>);

/// Posts `work` to a worker of its own. `Error::NoThread` if there is none and none can be started.
pub(crate) fn start(work: Arc<dyn Work>) -> Result<Running> {
    let pool = pool();
    let warm = pool.idle.lock().pop();
    let worker = warm.clone().unwrap_or_else(Worker::new);
    *worker.slot.work.lock() = Some((work, current()));
    let in_flight = pool.in_flight.fetch_add(1, Relaxed) + 1;
    let most_spins = match cores() {
        1 => 0, // Nobody works while somebody spins.
        cores if in_flight > cores / 2 => Patience::BRIEF,
        _ => Patience::FULL,
    };
    worker.slot.most_spins.store(most_spins, Relaxed); // ORDERING: a hint.
    let sleeps = worker.slot.job.post();
    let running = Running(worker);
    match warm {
        Some(_) if sleeps => {
            running.0.wake();
            // WHY: the worker may have been woken on this core, where it would have to wait until the
            // caller has stopped spinning.
            std::thread::yield_now();
        }
        Some(_) => {}
        // Work that was posted before its thread began is seen by it without a wake-up.
        None => {
            if let Err(error) = Worker::spawn(&running.0) {
                running.abandon(false);
                return Err(error);
            }
        }
    }
    Ok(running)
}

impl Running {
    /// Waits until the work has ended, until `deadline`, or until this thread is woken. Whether
    /// the work has ended.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        let Slot { job, .. } = &self.0.slot;
        if self.0.slot.spin_until(&self.0.slot.caller_patience, || job.is_finished()) {
            return true;
        }
        let left = deadline.remaining(Moment::now());
        if !left.is_some_and(|left| left.is_zero()) && job.caller_sleeps() {
            left.map_or_else(park, park_timeout);
            job.caller_awake();
        }
        job.is_finished()
    }

    /// After `wait` said that the work has ended: lets it go, and the worker is idle again.
    pub(crate) fn collect(self) {
        let work = self.take_back();
        self.0.slot.job.collect();
        if !self.0.ends.load(Acquire) {
            pool().idle.lock().push(self.0);
        }
        drop(work);
    }

    /// Stops waiting: work that has not begun never runs, other work runs out on its own, with its
    /// thread asked to end if `cancel`.
    pub(crate) fn abandon(self, cancel: bool) {
        // Held over the step: whoever ends the abandoned work comes here afterwards (I3).
        let thread = cancel.then(|| self.0.cancellable.lock());
        // Counted before the step: the worker may end the work, and count it off, right after it.
        let pool = pool();
        pool.abandoned.fetch_add(1, Relaxed);
        let gave_up = self.0.slot.job.give_up();
        if gave_up != GaveUp::Abandoned {
            pool.abandoned.fetch_sub(1, Relaxed);
        }
        match gave_up {
            GaveUp::TooLate => {
                drop(thread);
                self.collect();
            }
            GaveUp::Cancelled => {
                drop(thread);
                drop(self.take_back());
            }
            GaveUp::Abandoned => {
                pool.in_flight.fetch_sub(1, Relaxed);
                if let Some(Some(thread)) = thread.as_deref() {
                    self.0.ends.store(true, Release); // ORDERING: under the mutex.
                    // The threads of a model are not the system's, and never act on it.
                    if !cfg!(loom) {
                        // SAFETY: it is alive: it clears its place under this mutex before it ends.
                        unsafe { libc::pthread_cancel(*thread) };
                    }
                }
            }
        }
    }

    /// Waits until the work has ended, however long it takes; work that has not begun never does.
    pub(crate) fn join(self) {
        if self.0.slot.job.cancel() {
            drop(self.take_back());
            return;
        }
        while !self.wait(Deadline::NEVER) {}
        self.collect();
    }

    /// The work is the caller's again.
    fn take_back(&self) -> Option<(Arc<dyn Work>, Thread)> {
        pool().in_flight.fetch_sub(1, Relaxed);
        self.0.slot.work.lock().take()
    }
}

/// Finds out what is found out once, before a fork can come in the middle (C-16).
pub(crate) fn prepare() {
    cores();
    end_key();
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    if cfg!(loom) {
        return 1; // Nobody spins in a model.
    }
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, |cores| cores.get()))
}

// `libc` does not declare these for Linux.
unsafe extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
    fn pthread_setcanceltype(r#type: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
}
unsafe extern "C-unwind" {
    fn pthread_testcancel();
}

const PTHREAD_CANCEL_ENABLE: libc::c_int = 0;
const PTHREAD_CANCEL_DISABLE: libc::c_int = 1;
const PTHREAD_CANCEL_DEFERRED: libc::c_int = 0;

/// Owns nothing, and can be unwound (I1).
fn set_cancellable(state: libc::c_int) {
    let mut before = 0;
    // SAFETY: a plain call with a valid place for the old state. Not a cancellation point.
    unsafe { pthread_setcancelstate(state, &mut before) };
}

/// Ends the thread if the callback that has returned, or somebody meanwhile, asked for it: a
/// request that stays behind would end another's callback. Owns nothing (I1).
fn test_cancel() {
    let mut before = 0;
    // SAFETY: a plain call with a valid place for the old type, which a callback may have changed.
    unsafe { pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &mut before) };
    // SAFETY: unwinds at most the frames of a worker, which own nothing.
    unsafe { pthread_testcancel() };
}

impl Worker {
    /// A worker without a thread.
    fn new() -> Arc<Self> {
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
        })
    }

    /// Starts the worker's thread.
    fn spawn(worker: &Arc<Self>) -> Result<()> {
        let pool = pool();
        pool.workers.fetch_add(1, Relaxed);
        // The thread's own count, given up by `thread_ended`.
        let own = Arc::into_raw(Arc::clone(worker));
        let started = end_key().is_some() && start_thread(own.cast_mut().cast());
        if !started {
            pool.workers.fetch_sub(1, Relaxed);
            // SAFETY: the count made above, which no thread has taken over.
            drop(unsafe { Arc::from_raw(own) });
            return Err(Error::NoThread);
        }
        Ok(())
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Waits for work; `None`: there was none for so long that the worker retires.
    fn next(&self) -> Option<*const dyn Work> {
        let mut idle_until = None;
        loop {
            let Slot { job, work, .. } = &self.slot;
            match job.begin() {
                // The place keeps it until the job has ended (I2 of `job`).
                Found::Work => return work.lock().as_ref().map(|(work, _)| Arc::as_ptr(work)),
                Found::Cancelled => self.rest(),
                Found::Nothing => {}
            }
            if self.slot.spin_until(&self.slot.worker_patience, || job.is_posted()) {
                continue;
            }
            let now = Moment::now();
            let retires = *idle_until.get_or_insert(now.after(IDLE_TIME));
            if job.worker_sleeps() {
                if let Some(left) = retires.remaining(now) {
                    park_timeout(left);
                }
                job.worker_awake();
            }
            if !job.is_posted() && retires.is_past(Moment::now()) {
                if self.retire() {
                    return None;
                }
                // A caller has it: its next idle time has not begun.
                idle_until = None;
            }
        }
    }

    /// Goes back to the pool.
    fn rest(&self) {
        if let Some(me) = self.me.upgrade() {
            pool().idle.lock().push(me);
        }
    }

    /// Leaves the pool; `false` if a caller has taken it out, whose work is on its way (I4).
    fn retire(&self) -> bool {
        let mut idle = pool().idle.lock();
        let place = idle.iter().position(|worker| ptr::eq(Arc::as_ptr(worker), self));
        place.map(|place| idle.remove(place)).is_some() || planted("retire without looking")
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
                    // ORDERING: pairs with `threads`. Who sees none left sees all they did.
                    pool().abandoned.fetch_sub(1, Release);
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
        let _settled = (!planted("go on without looking")).then(|| self.cancellable.lock());
        self.ends.load(Acquire) // ORDERING: under the mutex.
    }
}

/// The start routine of a worker's thread. Owns nothing while a callback runs (I1).
extern "C-unwind" fn worker_main(worker: *mut c_void) -> *mut c_void {
    set_cancellable(PTHREAD_CANCEL_DISABLE);
    let worker = worker.cast_const().cast::<Worker>();
    begin_thread(worker);
    // SAFETY: the thread's own count lives until `thread_ended`, which runs after this.
    let worker = unsafe { &*worker };
    while let Some(work) = worker.next() {
        // SAFETY: the worker's place keeps the work until `end`.
        let work = unsafe { &*work };
        set_cancellable(PTHREAD_CANCEL_ENABLE);
        let code = work.run();
        test_cancel();
        set_cancellable(PTHREAD_CANCEL_DISABLE);
        if !worker.end(work, Ending::Returned(code)) {
            break;
        }
    }
    ptr::null_mut()
}

/// Makes the thread known to those who wake and cancel it, and its end known to us.
fn begin_thread(worker: *const Worker) {
    // The threads of a model say themselves that they end.
    if let Some(key) = end_key().filter(|_| !cfg!(loom)) {
        // SAFETY: a live key; the value is what its destructor expects.
        unsafe { libc::pthread_setspecific(key, worker.cast()) };
    }
    // SAFETY: plain calls about the calling thread.
    let thread = unsafe { libc::pthread_self() };
    #[cfg(target_os = "linux")]
    // SAFETY: the calling thread, and a name of less than 16 bytes.
    unsafe {
        libc::pthread_setname_np(thread, c"etslock-worker".as_ptr())
    };
    // SAFETY: the thread's own count.
    let worker = unsafe { &*worker };
    *worker.cancellable.lock() = Some(thread);
    let _first = worker.thread.set(current());
}

/// The thread-specific key whose destructor tells that a worker's thread ends, however it ends.
fn end_key() -> Option<libc::pthread_key_t> {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: a valid place for the key; the destructor takes what `begin_thread` sets.
        let status = unsafe { libc::pthread_key_create(&mut key, Some(thread_ended)) };
        (status == 0).then_some(key)
    })
}

/// Called when a worker's thread ends, however it ends. Rust's thread-locals are gone by now.
unsafe extern "C" fn thread_ended(worker: *mut c_void) {
    // SAFETY: the thread's own count, made by `spawn` and given up here.
    let worker = unsafe { Arc::from_raw(worker.cast_const().cast::<Worker>()) };
    if !worker.born.is_current() {
        mem::forget(worker);
        return;
    }
    *worker.cancellable.lock() = None;
    worker.ends.store(true, Release); // ORDERING: pairs with `collect`, after the job's end.
    // Work that is still in its place ended its own thread.
    let work = worker.slot.work.lock().as_ref().map(|(work, _)| Arc::as_ptr(work));
    if let Some(work) = work {
        // SAFETY: the worker's place keeps the work until `end`.
        let work = unsafe { &*work };
        worker.end(work, Ending::ThreadEnded);
    }
    pool().workers.fetch_sub(1, Relaxed);
}

/// Starts a detached thread that no signal of the program's is delivered to.
#[cfg_attr(loom, expect(dead_code, reason = "the threads of a model are loom's"))]
fn start_system_thread(argument: *mut c_void) -> bool {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: a valid place for attributes.
    if unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: initialized above, and the constant is a valid state.
    unsafe {
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED)
    };
    let before = block_signals();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: valid places; `worker_main` takes `argument`.
    let status =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), START, argument) };
    restore_signals(&before);
    // SAFETY: initialized above, and not used afterwards.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    status == 0
}

/// `worker_main`, as `libc` declares start routines.
///
/// WHY: a transmute. `libc` says `extern "C"`, through which nothing may unwind; the platform's
/// start routine is one through which cancellation must.
const START: extern "C" fn(*mut c_void) -> *mut c_void = {
    // SAFETY: the two differ in what may happen on unwinding, not in how they are called.
    unsafe {
        mem::transmute::<
            extern "C-unwind" fn(*mut c_void) -> *mut c_void,
            extern "C" fn(*mut c_void) -> *mut c_void,
        >(worker_main)
    }
};

/// Blocks every signal that is not the thread's own fault. Returns the mask to restore.
fn block_signals() -> libc::sigset_t {
    const OWN_FAULTS: [libc::c_int; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT];
    let mut all = MaybeUninit::uninit();
    // SAFETY: fills a valid place.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    for signal in OWN_FAULTS {
        // SAFETY: filled above.
        unsafe { libc::sigdelset(all.as_mut_ptr(), signal) };
    }
    let mut before = MaybeUninit::uninit();
    // SAFETY: a filled set, and a valid place for the old one.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    // SAFETY: written by the call above, which cannot fail with these arguments.
    unsafe { before.assume_init() }
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: a mask that `block_signals` returned.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

/// Models: every interleaving of callers and the workers that they start, up to a few preemptions.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::thread;

    /// A worker's thread, which says itself that it ends.
    pub(super) fn start_thread(worker: *mut c_void) -> bool {
        struct Own(*mut c_void);
        // SAFETY: the thread's own count of its worker.
        unsafe impl Send for Own {}
        let own = Own(worker);
        thread::spawn(move || {
            let Own(worker) = { own };
            worker_main(worker);
            // SAFETY: the count that `spawn` made, which nobody has given up.
            unsafe { thread_ended(worker) };
        });
        true
    }

    /// Work that counts how often it ran and ended.
    #[derive(Default)]
    struct Task {
        runs: AtomicU32,
        ends: AtomicU32,
    }

    impl Work for Task {
        fn run(&self) -> i32 {
            self.runs.fetch_add(1, Relaxed) as i32
        }

        fn ended(&self, ending: Ending) {
            assert_eq!(ending, Ending::Returned(0), "it runs once");
            self.ends.fetch_add(1, Relaxed);
        }
    }

    fn post(task: &Arc<Task>) -> Running {
        let running = start(Arc::clone(task) as Arc<dyn Work>).unwrap();
        assert!(!running.0.ends.load(Relaxed), "posted to a worker that was asked to end (I3)");
        running
    }

    /// Posts a task and waits for its end.
    fn call() {
        let task = Arc::new(Task::default());
        let running = post(&task);
        while !running.wait(Deadline::NEVER) {}
        running.collect();
        assert_eq!(task.ends.load(Relaxed), 1);
        assert_eq!(Arc::strong_count(&task), 1, "somebody still has the work");
    }

    /// No worker is left, and nothing that one did not give back.
    fn assert_at_rest() {
        while threads().workers > 0 {
            thread::yield_now();
        }
        assert_eq!(threads().abandoned, 0);
        assert_eq!(pool().in_flight.load(Relaxed), 0);
        assert!(pool().idle.lock().is_empty());
    }

    fn check(model: impl Fn() + Send + Sync + 'static) {
        // All models have one pool.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            model();
            assert_at_rest();
        });
    }

    /// A worker retires while the next call may have taken it out of the pool already (I2, I4).
    #[test]
    fn retiring_races_with_the_next_call() {
        check(|| {
            call();
            call();
        });
    }

    /// A caller stops waiting and asks the thread to end: the work is let go once, by whoever has it,
    /// and the next call does not meet that worker (I3).
    #[test]
    fn the_next_call_does_not_meet_a_worker_that_ends() {
        check(|| {
            let task = Arc::new(Task::default());
            let running = post(&task);
            running.abandon(true);
            call();
            assert_at_rest();
            assert_eq!(task.runs.load(Relaxed), task.ends.load(Relaxed));
            assert_eq!(Arc::strong_count(&task), 1, "somebody still has the work");
        });
    }
}
