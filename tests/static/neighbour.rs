//! Another library out of Rust with a static archive of its own, as a program may link beside
//! ours: it panics and catches it, starts a thread, and has a thread-local with a destructor.

use std::cell::RefCell;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicI32, Ordering};

static DROPPED: AtomicI32 = AtomicI32::new(0);

struct Counted(i32);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(self.0, Ordering::SeqCst);
    }
}

thread_local! {
    static OWN: RefCell<Option<Counted>> = const { RefCell::new(None) };
}

/// `number` if everything of Rust works here.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_echo(number: i32) -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    DROPPED.store(0, Ordering::SeqCst);
    let thread = std::thread::spawn(move || {
        OWN.with(|own| *own.borrow_mut() = Some(Counted(1)));
        let caught = catch_unwind(|| {
            let _unwound = Counted(10);
            std::panic::panic_any(number)
        });
        caught.map_or_else(|payload| *payload.downcast::<i32>().expect("what was thrown"), |()| -1)
    });
    let echo = thread.join().expect("the panic was caught");
    if DROPPED.load(Ordering::SeqCst) == 11 { echo } else { -2 }
}
