//! Whom the running thread stands in for: itself, or the callback that it runs.

#![expect(
    unsafe_code,
    reason = "a thread knows the call whose callback it runs by a pointer, and \
              what the system calls it by libc"
)]

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::lock::hold::Hold;
use crate::lock::hold_ref::HoldRef;
use crate::lock::owner::{Owner, OwnerId};
use crate::process::Remembered;

/// Whom a thread stands in for.
struct Here {
    /// A number that no other thread of this process ever has; 0 before it is drawn. WHY: not the
    /// system's, which are used again.
    thread: Cell<u64>,
    /// The thread, as the system numbers it.
    system_id: Remembered<u64>,
    /// The hold of the call whose callback runs here, or null.
    call: Cell<*const Hold>,
}

thread_local! {
    /// Never destroyed, so that a thread keeps its number to its very end.
    static HERE: Here = const {
        Here {
            thread: Cell::new(0),
            system_id: Remembered::nothing(),
            call: Cell::new(ptr::null()),
        }
    };
}

/// The number of this thread.
pub(crate) fn thread_number() -> u64 {
    HERE.with(Here::number)
}

/// Whom a thread stands in for, to be handed to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    thread: u64,
    system_id: u64,
    call: *const Hold,
}

/// Whom this thread stands in for.
pub(crate) fn identity() -> Identity {
    HERE.with(|here| Identity {
        thread: here.number(),
        system_id: here.system_id(),
        call: here.call.get(),
    })
}

/// From here on this thread waits and holds in the name of another.
///
/// # Safety
/// The other thread does nothing else until this one ends: the call whose callback it runs, if any,
/// runs as long.
pub(crate) unsafe fn assume_identity(identity: Identity) {
    HERE.with(|here| {
        here.thread.set(identity.thread);
        here.system_id.set(identity.system_id);
        here.call.set(identity.call);
    });
}

/// Runs `body` as the callback of the call that has `hold`.
pub(crate) fn inside_call<R>(hold: &HoldRef, body: impl FnOnce() -> R) -> R {
    struct Inside<'a> {
        here: &'a Here,
        before: *const Hold,
    }
    impl Drop for Inside<'_> {
        fn drop(&mut self) {
            self.here.call.set(self.before);
        }
    }
    HERE.with(|here| {
        let before = here.call.replace(hold.as_ptr());
        let _inside = Inside { here, before };
        body()
    })
}

/// From here on this thread runs the callback of the call that has `hold`, until `leave_call`.
pub(crate) fn enter_call(hold: HoldRef) {
    HERE.with(|here| here.call.set(hold.into_raw()));
}

/// Ends what `enter_call` began.
pub(crate) fn leave_call() {
    let hold = HERE.with(|here| here.call.replace(ptr::null()));
    if !hold.is_null() {
        // SAFETY: from `into_raw` in `enter_call`: on a worker every `inside_call` has ended by now.
        drop(unsafe { HoldRef::from_raw(hold.cast_mut()) });
    }
}

impl Here {
    #[inline]
    fn number(&self) -> u64 {
        if self.thread.get() == 0 {
            self.draw_number();
        }
        self.thread.get()
    }

    #[cold]
    fn draw_number(&self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.thread.set(NEXT.fetch_add(1, Relaxed));
    }

    #[inline]
    fn system_id(&self) -> u64 {
        self.system_id.get(Self::ask_system_id)
    }

    #[cold]
    fn ask_system_id() -> u64 {
        // SAFETY: a plain system call that cannot fail.
        unsafe { libc::syscall(libc::SYS_gettid) as u64 }
    }

    #[inline(always)] // See `with_lock::empty_handed`.
    fn owner(&self) -> OwnerId {
        if self.call.get().is_null() { OwnerId::Thread(self.number()) } else { self.callback() }
    }

    /// The callback that runs here; in a child that it forked, the thread alone.
    #[cold]
    fn callback(&self) -> OwnerId {
        // SAFETY: `inside_call` borrows it, and `enter_call` owns a reference, until they end.
        let call = unsafe { self.call.get().as_ref() };
        match call.filter(|call| call.enter().is_ok()) {
            Some(call) => OwnerId::Call(call.as_owner()),
            // WHY: a thread of the parent may have been about to make it an owner (C-16).
            None => OwnerId::Thread(self.number()),
        }
    }
}

impl Owner {
    /// Who it is, and the thread that says so, as the system numbers it.
    #[inline(always)]
    pub(crate) fn resolve(self) -> (OwnerId, u64) {
        HERE.with(|here| {
            let owner = match self {
                Owner::None => OwnerId::None,
                Owner::Logical(id) => OwnerId::Logical(id),
                Owner::Current => here.owner(),
            };
            (owner, here.system_id())
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::clock::Timeout;
    use crate::lock::owner::Call;
    use crate::process;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    /// Runs `body` in a forked child, which ends with its answer. `None`: it hung.
    #[expect(unsafe_code, reason = "a fork, and what can be done about the child")]
    fn in_child(body: impl FnOnce() -> bool) -> Option<bool> {
        // SAFETY: the child runs `body` and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            process::after_fork_in_child();
            let code = if body() { 0 } else { 1 };
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) };
        }
        let mut state = 0;
        for _ in 0..1_000 {
            // SAFETY: a child of this process, and a valid place.
            if unsafe { libc::waitpid(child, &mut state, libc::WNOHANG) } == child {
                return Some(libc::WIFEXITED(state) && libc::WEXITSTATUS(state) == 0);
            }
            thread::sleep(Duration::from_millis(10));
        }
        // SAFETY: a child of this process.
        unsafe { libc::kill(child, libc::SIGKILL) };
        None
    }

    /// A callback forks while another thread makes it an owner: the child does not wait for a thread
    /// that it does not have (C-16).
    #[test]
    fn a_child_does_not_wait_for_what_a_thread_of_its_parent_was_about_to_do() {
        let (exec, fail) = (Timeout::INFINITE, Timeout::INFINITE);
        let hold = HoldRef::new(|| Hold::new(exec, fail, OwnerId::Logical(1), true, 0));
        enter_call(hold.clone());
        thread::scope(|scope| {
            let (say_begun, has_begun) = channel();
            let (say_forked, has_forked) = channel();
            let hold = &hold;
            scope.spawn(move || {
                hold.become_owner(|| {
                    say_begun.send(()).unwrap();
                    has_forked.recv().unwrap();
                    Call::of(OwnerId::None)
                });
            });
            has_begun.recv().unwrap();
            let answer = in_child(|| {
                let (owner, _) = Owner::Current.resolve();
                hold.detach();
                matches!(owner, OwnerId::Thread(_))
            });
            say_forked.send(()).unwrap();
            assert_eq!(answer, Some(true));
        });
        leave_call();
    }
}
