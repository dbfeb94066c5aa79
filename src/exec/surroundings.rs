//! What a callback finds on its thread: what a fresh thread of the process's main thread would, and
//! nothing that an earlier callback left there (C-22).
//!
//! | what                      | as for                        | put right                         |
//! |---------------------------|-------------------------------|-----------------------------------|
//! | floating point, `errno`   | a program that begins         | before each callback              |
//! | cancellation              | a thread that begins          | around each callback, by `worker` |
//! | signals blocked           | the main thread               | after each callback               |
//! | processors, priority      | the main thread               | before another caller's callback, |
//! |                           |                               | and when idle                     |
//!
//! WHY: not all of it each time. A system call costs a sixth of a whole call that finds its worker
//! awake. The one that sets the signals is made while the caller is on its way already; what it
//! takes three for waits until it can be somebody else's.
//!
//! A worker that sleeps blocks what is sent to the process as well: its program takes that
//! itself. It blocks none of what a thread brings upon itself, and none by which runtimes speak to
//! their threads.

#![expect(unsafe_code, reason = "what a thread has of the system is asked of libc")]

use std::mem::{self, MaybeUninit};
use std::ops::RangeInclusive;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::thread;
use crate::clock::{Moment, Timeout};
use crate::process::PerProcess;

/// Signals that are meant for the process: those who sleep leave them to others.
const FOR_THE_PROCESS: [libc::c_int; 16] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGIO,
    libc::SIGWINCH,
    libc::SIGSTKFLT,
];

/// How old the mask of the main thread may be. WHY: reading it takes as long as a small call.
const FRESH: Timeout = Timeout::millis(100);

/// The surroundings of the callbacks on one thread, its own. Owns nothing.
pub(super) struct Surroundings {
    /// What the main thread blocks, as far as is known.
    blocked: u64,
    awake: libc::sigset_t,
    asleep: libc::sigset_t,
    /// Where it runs, as last seen; `None` where the system does not tell.
    place: Option<Place>,
    /// Whether a callback has run since `place` was looked at.
    is_stale: bool,
    /// Whether it is where the main thread is, as far as it could be seen to.
    is_settled: bool,
    /// Whose callback ran last.
    caller: usize,
}

impl Surroundings {
    /// Of a thread that begins, with everything blocked.
    pub(super) fn begin() -> Self {
        let blocked = main_thread_blocks();
        let mut new = Self {
            blocked,
            awake: mask(blocked),
            asleep: mask(blocked | for_the_process()),
            place: None,
            is_stale: true,
            is_settled: true,
            caller: 0,
        };
        thread::set_name();
        new.settle();
        set_signal_mask(&new.awake);
        new
    }

    /// A callback of this caller comes next.
    pub(super) fn before_callback(&mut self, caller: usize) {
        if self.caller != caller {
            self.settle();
            self.caller = caller;
        }
        self.is_stale = true;
        reset_floating_point();
        // SAFETY: a plain call.
        let error = unsafe { libc::__errno_location() };
        // SAFETY: the calling thread's own.
        unsafe { error.write(0) };
    }

    /// A callback has run, and its caller knows.
    pub(super) fn after_callback(&mut self) {
        self.follow_main_thread();
        set_signal_mask(&self.awake);
    }

    /// When idle. `false`: the thread could not be brought where it belongs, and should end.
    pub(super) fn settle(&mut self) -> bool {
        if !mem::take(&mut self.is_stale) {
            return self.is_settled;
        }
        let here = Place::of(0);
        if here.is_none() || here != self.place {
            let main = Place::of(process());
            if let Some(main) = main
                && here != Some(main)
            {
                main.impose();
            }
            self.place = Place::of(0);
            self.is_settled = main.is_none() || self.place == main;
        }
        self.is_settled
    }

    /// The thread is about to sleep.
    pub(super) fn before_sleep(&self) {
        set_signal_mask(&self.asleep);
    }

    /// The thread is awake.
    pub(super) fn after_sleep(&mut self) {
        self.follow_main_thread();
        set_signal_mask(&self.awake);
    }

    fn follow_main_thread(&mut self) {
        let blocked = main_thread_blocks();
        if blocked != self.blocked {
            self.blocked = blocked;
            self.awake = mask(blocked);
            self.asleep = mask(blocked | for_the_process());
        }
    }
}

/// The main thread, as the system numbers it.
fn process() -> libc::pid_t {
    // SAFETY: a plain call that cannot fail.
    unsafe { libc::getpid() }
}

const SIGNALS: RangeInclusive<libc::c_int> = 1..=u64::BITS as libc::c_int;

fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

fn for_the_process() -> u64 {
    FOR_THE_PROCESS.into_iter().map(bit).sum()
}

/// As libc writes it. What libc keeps for itself is left out.
fn mask(blocked: u64) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: fills a valid place.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in SIGNALS.filter(|signal| blocked & bit(*signal) != 0) {
        // SAFETY: filled above; a signal that it refuses stays out.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: filled above.
    unsafe { set.assume_init() }
}

fn set_signal_mask(mask: &libc::sigset_t) {
    // SAFETY: a filled set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

/// What is known of the main thread.
#[derive(Default)]
struct Known {
    /// What it blocks.
    blocked: AtomicU64,
    /// What it blocked when it was last looked at. WHY: a change is believed when it is seen twice.
    /// Threads block everything for a moment, to start another, say.
    seen: AtomicU64,
    /// When to look again; 0: never looked.
    until: AtomicU64,
}

fn known() -> &'static Known {
    static KNOWN: PerProcess<Known> = PerProcess::new();
    KNOWN.get(Known::default)
}

// ORDERING of all that follow: who sees one word without the other knows what was the case a moment
// ago.

/// The signals that the main thread blocks, or blocked a moment ago.
fn main_thread_blocks() -> u64 {
    let (known, now) = (known(), Moment::now());
    if known.until.load(Relaxed) <= now.as_bits() {
        known.until.store(now.after(FRESH).as_bits(), Relaxed);
        if let Some(seen) = read_blocked()
            && known.seen.swap(seen, Relaxed) == seen
        {
            known.blocked.store(seen, Relaxed);
        }
    }
    known.blocked.load(Relaxed)
}

/// Before a worker's thread starts.
pub(super) fn look_at_main_thread() {
    const TRIES: u32 = 5;
    let known = known();
    // SAFETY: a plain system call that cannot fail.
    let is_main_thread = unsafe { libc::syscall(libc::SYS_gettid) } == process().into();
    let blocked = if is_main_thread {
        Some(own_blocked())
    } else if known.until.load(Relaxed) == 0 {
        (0..TRIES).find_map(|_| {
            let seen = read_blocked();
            std::thread::yield_now();
            seen.filter(|_| read_blocked() == seen)
        })
    } else {
        None
    };
    if let Some(blocked) = blocked {
        known.seen.store(blocked, Relaxed);
        known.blocked.store(blocked, Relaxed);
        known.until.store(Moment::now().after(FRESH).as_bits(), Relaxed);
    }
}

/// What the calling thread blocks.
fn own_blocked() -> u64 {
    let mut set = MaybeUninit::uninit();
    // SAFETY: a valid place; nothing is changed.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), set.as_mut_ptr()) };
    // SAFETY: written by the call above, which cannot fail with these arguments.
    let set = unsafe { set.assume_init() };
    let is_member = |signal: &libc::c_int| {
        // SAFETY: a filled set.
        unsafe { libc::sigismember(&set, *signal) == 1 }
    };
    SIGNALS.filter(is_member).map(bit).sum()
}

/// What the system says that the main thread blocks; `None` where it does not tell, or while the
/// main thread blocks what libc keeps for itself: no program asks for that, and it lasts a moment.
fn read_blocked() -> Option<u64> {
    /// Those by which libc cancels threads, and speaks to all of them.
    const OF_LIBC: [libc::c_int; 2] = [32, 33];
    let of_libc: u64 = OF_LIBC.into_iter().map(bit).sum();
    read_signals_blocked().filter(|blocked| blocked & of_libc == 0)
}

fn read_signals_blocked() -> Option<u64> {
    struct File(libc::c_int);
    impl Drop for File {
        fn drop(&mut self) {
            // SAFETY: opened below, and used by nobody else.
            unsafe { libc::close(self.0) };
        }
    }
    // WHY: not std's files, whose paths and errors need memory.
    let mut path = [0; 64];
    let name = c"/proc/self/task/%d/status".as_ptr();
    // SAFETY: a place of that size, and what the format names.
    unsafe { libc::snprintf(path.as_mut_ptr(), path.len(), name, process()) };
    // SAFETY: terminated by the call above.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    let file = File(file);
    let mut lines = Lines::new();
    let mut bytes = [0_u8; 2048];
    loop {
        // SAFETY: a place of that size.
        let read = unsafe { libc::read(file.0, bytes.as_mut_ptr().cast(), bytes.len()) };
        let read = usize::try_from(read).ok().filter(|read| *read > 0)?;
        if let Some(blocked) = bytes[..read].iter().find_map(|byte| lines.take(*byte)) {
            return Some(blocked);
        }
    }
}

/// Finds one line of a text that comes in pieces, and in which others may be long.
struct Lines {
    /// Where in its line the next byte stands; `None` in a line that is another.
    column: Option<usize>,
    value: u64,
}

impl Lines {
    const NAME: &[u8] = b"SigBlk:\t";

    fn new() -> Self {
        Self { column: Some(0), value: 0 }
    }

    /// The value, with the byte that ends its line.
    fn take(&mut self, byte: u8) -> Option<u64> {
        let column = self.column.take();
        let digit = (byte as char).to_digit(16);
        match (column, digit) {
            (Some(column), _) if Self::NAME.get(column) == Some(&byte) => {
                self.column = Some(column + 1);
            }
            (Some(column), Some(digit)) if column >= Self::NAME.len() => {
                self.value = self.value << 4 | u64::from(digit);
                self.column = Some(column);
            }
            (Some(column), _) if column >= Self::NAME.len() && byte == b'\n' => {
                return Some(self.value);
            }
            _ if byte == b'\n' => self.column = Some(0),
            _ => {}
        }
        None
    }
}

/// Where a thread runs, and before whom.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    processors: [u64; 16],
    scheduling: Scheduling,
}

/// As `sched_getattr` tells it, in the size that every kernel knows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of policies that no new thread is given.
    times: [u64; 3],
}

impl Place {
    /// Of a thread; 0 is the calling one.
    fn of(thread: libc::pid_t) -> Option<Self> {
        let mut processors = [0; 16];
        let room = size_of_val(&processors);
        // SAFETY: a place of that size, of which the kernel fills what it needs.
        let filled = unsafe {
            libc::syscall(libc::SYS_sched_getaffinity, thread, room, processors.as_mut_ptr())
        };
        let mut scheduling = MaybeUninit::<Scheduling>::zeroed();
        let room = size_of::<Scheduling>();
        // SAFETY: a place of that size.
        let refused = unsafe {
            libc::syscall(libc::SYS_sched_getattr, thread, scheduling.as_mut_ptr(), room, 0)
        };
        if filled <= 0 || refused != 0 {
            return None;
        }
        // SAFETY: zeroed, and any numbers are valid.
        let scheduling = unsafe { scheduling.assume_init() }.inherited();
        Some(Self { processors, scheduling })
    }

    /// Brings the calling thread here, as far as the system lets it.
    fn impose(&self) {
        let Self { processors, scheduling } = self;
        let size = size_of_val(processors);
        // SAFETY: a set of that size.
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, processors.as_ptr()) };
        // SAFETY: a struct of the size that it says.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *scheduling, 0) };
    }
}

impl Scheduling {
    /// What a new thread of the thread that has this one would have.
    fn inherited(self) -> Self {
        const RESET_ON_FORK: u64 = 1;
        let mut new = Self { times: [0; 3], ..self };
        if self.flags & RESET_ON_FORK != 0 {
            let real_time = self.priority > 0 || self.policy == libc::SCHED_DEADLINE as u32;
            new.nice = if real_time { 0 } else { self.nice.max(0) };
            new.policy = if real_time { libc::SCHED_OTHER as u32 } else { self.policy };
            new.priority = 0;
            new.flags = 0;
        }
        new
    }
}

/// Rounds, masks and reports as when a program begins.
#[cfg(target_arch = "x86_64")]
fn reset_floating_point() {
    use std::arch::asm;

    const VECTOR: u32 = 0x1f80;
    const STACK: u16 = 0x037f;
    /// What was reported, and where the register stack stands.
    const REPORTS: u16 = 0x387f;

    let mut vector = 0_u32;
    // SAFETY: writes the word.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut vector, options(nostack, preserves_flags)) };
    if vector != VECTOR {
        // SAFETY: reads the word, whose reserved bits are 0.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &VECTOR, options(nostack, preserves_flags)) };
    }
    let (mut control, reports) = (0_u16, &mut 0_u16);
    // SAFETY: writes the words.
    unsafe {
        asm!("fnstcw [{}]", "fnstsw [{}]", in(reg) &mut control, in(reg) &mut *reports,
             options(nostack, preserves_flags));
    }
    if control != STACK || *reports & REPORTS != 0 {
        // SAFETY: between functions nothing is on the register stack.
        unsafe { asm!("fninit", clobber_abi("C"), options(nomem, nostack, preserves_flags)) };
    }
}

/// Rounds, masks and reports as when a program begins.
#[cfg(target_arch = "aarch64")]
fn reset_floating_point() {
    use std::arch::asm;

    // SAFETY: 0 is what both registers hold when a program begins.
    unsafe {
        asm!("msr fpcr, {0}", "msr fpsr, {0}", in(reg) 0_u64, options(nostack, preserves_flags));
    }
}

/// Rounds, masks and reports as the thread that started this one did, or as a callback left it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn reset_floating_point() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<u64> {
        let mut lines = Lines::new();
        text.bytes().find_map(|byte| lines.take(byte))
    }

    #[test]
    fn the_blocked_signals_are_found_in_the_text() {
        let line = "SigBlk:\t8000000000004201\n";
        let mask = 0x8000_0000_0000_4201;
        assert_eq!(found(line), Some(mask));
        assert_eq!(
            found(&format!("Name:\tx\nSigPnd:\t1\nShdPnd:\t0\n{line}SigIgn:\t0\n")),
            Some(mask)
        );
        assert_eq!(found(&format!("Name:\tSigBlk:\t1\nS\nSig\n\n{line}")), Some(mask));
        assert_eq!(found("SigBlk:\t0"), None, "cut off");
        assert_eq!(found("SigBlk\t1\nSigBlk: 1\nSigblk:\t1\n"), None);
    }

    #[test]
    fn masks_hold_what_they_are_made_of() {
        let signals = [libc::SIGTERM, libc::SIGHUP, 64];
        let set = mask(signals.into_iter().map(bit).sum());
        for signal in 1..=64 {
            // SAFETY: a filled set.
            let is_member = unsafe { libc::sigismember(&set, signal) } == 1;
            assert_eq!(is_member, signals.contains(&signal), "{signal}");
        }
    }

    #[test]
    fn a_thread_that_may_not_inherit_its_scheduling_does_not() {
        let plain =
            Scheduling { size: 48, policy: 0, flags: 0, nice: 3, priority: 0, times: [9; 3] };
        assert_eq!(plain.inherited(), Scheduling { times: [0; 3], ..plain });
        let real_time = Scheduling { policy: 1, flags: 1, nice: 0, priority: 5, ..plain };
        let ordinary = Scheduling { nice: 0, times: [0; 3], ..plain };
        assert_eq!(real_time.inherited(), ordinary);
        let favoured = Scheduling { flags: 1, nice: -5, ..plain };
        assert_eq!(favoured.inherited(), ordinary);
    }

    #[test]
    fn this_thread_has_a_place() {
        let here = Place::of(0).unwrap();
        assert!(here.processors.iter().any(|processors| *processors != 0));
        here.impose();
        assert_eq!(Place::of(0), Some(here));
    }
}
