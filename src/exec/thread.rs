//! The threads of workers, as libc has them: started, asked to end, and their end told.

#![expect(unsafe_code, reason = "threads that can be cancelled come from libc")]

use std::ffi::{CStr, c_void};
use std::mem::{self, MaybeUninit};
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use crate::error::{Error, Result};

/// What a thread runs. Cancellation and `pthread_exit` unwind it.
pub(super) type Routine = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// Starts a detached thread that blocks every signal. `Error::NoThread` if there is none to be had.
pub(super) fn start(routine: Routine, argument: *mut c_void) -> Result<()> {
    // SAFETY: the two differ in what may happen on unwinding, not in how they are called. WHY: libc
    // says `extern "C"`, through which nothing may unwind; through the platform's start routine
    // cancellation must.
    let routine =
        unsafe { mem::transmute::<Routine, extern "C" fn(*mut c_void) -> *mut c_void>(routine) };
    let attributes = Attributes::new()?;
    let _blocked = AllBlocked::begin();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: valid places; `routine` takes `argument`.
    let refusal = unsafe {
        libc::pthread_create(thread.as_mut_ptr(), attributes.0.as_ptr(), routine, argument)
    };
    if refusal == 0 { Ok(()) } else { Err(Error::NoThread) }
}

/// What threads are started with.
struct Attributes(MaybeUninit<libc::pthread_attr_t>);

impl Attributes {
    fn new() -> Result<Self> {
        let mut place = MaybeUninit::uninit();
        // SAFETY: a valid place.
        if unsafe { libc::pthread_attr_init(place.as_mut_ptr()) } != 0 {
            return Err(Error::NoThread);
        }
        let mut new = Self(place);
        let detached = libc::PTHREAD_CREATE_DETACHED;
        // SAFETY: initialized above.
        if unsafe { libc::pthread_attr_setdetachstate(new.0.as_mut_ptr(), detached) } != 0 {
            return Err(Error::NoThread);
        }
        if let Some(size) = stack_size() {
            // SAFETY: initialized above. What the system refuses leaves its default.
            unsafe { libc::pthread_attr_setstacksize(new.0.as_mut_ptr(), size) };
        }
        Ok(new)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized by `new`.
        unsafe { libc::pthread_attr_destroy(self.0.as_mut_ptr()) };
    }
}

/// What the user wants for the stacks of workers; `None`: the system's default.
fn stack_size() -> Option<usize> {
    const NAME: &CStr = c"ETSLOCK_WORKER_STACK_KIB";
    const DEFAULT: usize = 1;
    /// 0 before it was read. WHY: no lock, which a fork could copy half-way.
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    // ORDERING of both: a number.
    let mut size = SIZE.load(Relaxed);
    if size == 0 {
        // SAFETY: a terminated name.
        let value = unsafe { libc::getenv(NAME.as_ptr()) };
        // SAFETY: not NULL, so it is terminated, and the program changes no variable meanwhile.
        let value = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) });
        size = value.and_then(|value| parse_stack_size(value.to_bytes())).unwrap_or(DEFAULT);
        SIZE.store(size, Relaxed);
    }
    (size != DEFAULT).then_some(size)
}

/// Bytes, if it is a number of KiB that a stack can have.
fn parse_stack_size(kib: &[u8]) -> Option<usize> {
    /// Less does not carry what the library does before and after a callback.
    const LEAST_KIB: usize = 64;
    const MOST_KIB: usize = 4 * 1024 * 1024;
    if !kib.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let kib: usize = std::str::from_utf8(kib).ok()?.parse().ok()?;
    (LEAST_KIB..=MOST_KIB).contains(&kib).then(|| kib.saturating_mul(1024))
}

/// While it lives, the calling thread blocks every signal.
///
/// WHY: by the system's own call, and those too that libc keeps for itself. So it is told from what
/// a program blocks by who looks at this thread from outside.
struct AllBlocked {
    before: u64,
}

impl AllBlocked {
    fn begin() -> Self {
        Self { before: set_kernel_mask(u64::MAX) }
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        set_kernel_mask(self.before);
    }
}

/// Returns the mask before.
fn set_kernel_mask(mask: u64) -> u64 {
    let (set, how, mut before) = (&raw const mask, libc::SIG_SETMASK, 0_u64);
    let size = size_of::<u64>();
    // SAFETY: a live set of that size, and a place for the old one.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, set, &raw mut before, size) };
    before
}

/// How libc tells the end of a thread, however it ends: a thread-specific key with a destructor.
pub(super) struct EndKey {
    /// The key plus 1; 0: none yet. WHY: no lock, which a fork could copy half-way, and no memory of
    /// failure: keys that have run out come back.
    key: AtomicU64,
    destructor: unsafe extern "C" fn(*mut c_void),
}

impl EndKey {
    pub(super) const fn new(destructor: unsafe extern "C" fn(*mut c_void)) -> Self {
        Self { key: AtomicU64::new(0), destructor }
    }

    /// Sees to it that there is a key. `Error::NoThread` if none is left.
    pub(super) fn make(&self) -> Result<()> {
        self.key().map(drop).ok_or(Error::NoThread)
    }

    /// From here on the end of this thread calls the destructor with `value`, once.
    /// `Error::NoThread` if the thread has no place for it.
    pub(super) fn set(&self, value: *const c_void) -> Result<()> {
        let key = self.key().ok_or(Error::NoThread)?;
        // SAFETY: a live key; the value is what its destructor expects.
        let refusal = unsafe { libc::pthread_setspecific(key, value) };
        if refusal == 0 { Ok(()) } else { Err(Error::NoThread) }
    }

    fn key(&self) -> Option<libc::pthread_key_t> {
        let known = |word: u64| (word - 1) as libc::pthread_key_t;
        // ORDERING of all: a number; libc orders what lies behind it.
        let word = self.key.load(Acquire);
        if word != 0 {
            return Some(known(word));
        }
        let mut key = 0;
        // SAFETY: a valid place for the key, and a destructor that takes what `set` is given.
        if unsafe { libc::pthread_key_create(&mut key, Some(self.destructor)) } != 0 {
            return None;
        }
        match self.key.compare_exchange(0, u64::from(key) + 1, AcqRel, Acquire) {
            Ok(_) => Some(key),
            Err(word) => {
                // SAFETY: made above, and known to nobody.
                unsafe { libc::pthread_key_delete(key) };
                Some(known(word))
            }
        }
    }
}

/// The calling thread, for `cancel`.
pub(super) fn own() -> libc::pthread_t {
    // SAFETY: a plain call about the calling thread.
    unsafe { libc::pthread_self() }
}

/// Gives the calling thread its name, as monitors show it.
pub(super) fn set_name() {
    // SAFETY: the calling thread, and a name of less than 16 bytes.
    unsafe { libc::pthread_setname_np(own(), c"etslock-worker".as_ptr()) };
}

/// Asks a thread to end at its next cancellation point.
///
/// # Safety
/// The thread has not ended.
pub(super) unsafe fn cancel(thread: libc::pthread_t) {
    // SAFETY: the contract above.
    unsafe { libc::pthread_cancel(thread) };
}

// `libc` does not declare these for Linux.
unsafe extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
    fn pthread_setcanceltype(r#type: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
}
unsafe extern "C-unwind" {
    fn pthread_testcancel();
}

#[derive(Clone, Copy)]
pub(super) enum Cancellable {
    Yes,
    No,
}

/// Owns nothing, and can be unwound.
pub(super) fn set_cancellable(cancellable: Cancellable) {
    const ENABLE: libc::c_int = 0;
    const DISABLE: libc::c_int = 1;
    let state = match cancellable {
        Cancellable::Yes => ENABLE,
        Cancellable::No => DISABLE,
    };
    let mut before = 0;
    // SAFETY: a plain call with a valid place for the old state. Not a cancellation point.
    unsafe { pthread_setcancelstate(state, &mut before) };
}

/// Ends the thread if the callback that has returned, or somebody meanwhile, asked for it: a
/// request that stays behind would end another's callback. Owns nothing, and can be unwound.
pub(super) fn test_cancel() {
    const DEFERRED: libc::c_int = 0;
    let mut before = 0;
    // SAFETY: a plain call with a valid place for the old type, which a callback may have changed.
    unsafe { pthread_setcanceltype(DEFERRED, &mut before) };
    // A callback may have turned cancellation off.
    set_cancellable(Cancellable::Yes);
    // SAFETY: unwinds at most the frames of a worker, which own nothing.
    unsafe { pthread_testcancel() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_sizes() {
        let kib = 1024;
        for (text, size) in [("64", 64 * kib), ("0256", 256 * kib), ("8192", 8192 * kib)] {
            assert_eq!(parse_stack_size(text.as_bytes()), Some(size), "{text}");
        }
        for text in ["", "0", "63", "-64", "+64", " 64", "64k", "1e3", "99999999999999999999999"] {
            assert_eq!(parse_stack_size(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_stack_size(&[0xff; 3]), None);
    }

    #[test]
    fn one_key_whoever_makes_it() {
        unsafe extern "C" fn nothing(_: *mut c_void) {}
        static KEY: EndKey = EndKey::new(nothing);
        std::thread::scope(|threads| {
            let made: Vec<_> = (0..8).map(|_| threads.spawn(|| KEY.key().unwrap())).collect();
            for thread in made {
                assert_eq!(Some(thread.join().unwrap()), KEY.key());
            }
        });
    }
}
