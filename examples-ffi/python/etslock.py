"""etslock for Python: per-key exclusive locks with deadlines on in-memory table data.

    import etslock

    accounts = etslock.Table()
    accounts.insert("ann", b"100")

    def withdraw(guard, values):
        left = int(values[0]) - 30
        guard.insert("ann", b"%d" % left)
        return left

    accounts.with_lock("ann", withdraw, exec_timeout=0.5)       # 70

    with accounts.acquire("ann") as guard:                      # released at the end,
        guard.insert("ann", b"0")                               # cancelled by an exception

Times are seconds. None and math.inf mean never, and nothing else does: what is below 0, as
`deadline - time.monotonic()` may be, is 0. Keys and values are bytes, bytearray or memoryview, or
str, which is encoded as UTF-8; what comes back is bytes. Other types are a TypeError, numbers that
the library cannot hold an OverflowError. A status other than ETSLOCK_OK is an exception (see
`Error`).

A signal handler that raises, as Ctrl-C does, ends a wait of the main thread at once: no lock is
left behind, and a function that `with_lock` had begun publishes nothing more. See "interruptions"
below for what remains of such a call.

The library is the file named by the environment variable ETSLOCK_LIBRARY, else
../../build/lib/libetslock.so beside this file, else what the system finds.

Needs Python 3.9 or later, and nothing else.
"""

import _thread
import collections
import ctypes
import ctypes.util
import enum
import itertools
import math
import numbers
import operator
import os
import pathlib
import queue
import threading
import time
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_uint64
from ctypes import c_void_p

OWNER_NONE = 2**64 - 1  # as `owner`: the call takes no part in deadlock detection
# Owners of your own are below 2**63: this file's, see "interruptions", are above.


class Kind(enum.IntEnum):
    """How many tuples a key may have."""

    SET = 0
    BAG = 1
    DUPLICATE_BAG = 2


class RunOn(enum.IntEnum):
    """Where the function of `with_lock` runs."""

    WORKER = 0
    CALLER = 1


class Queue(enum.IntEnum):
    """How to wait for a held lock."""

    FAIR = 0
    FIFO = 1
    POLLING = 2


class OnExecTimeout(enum.IntEnum):
    """What happens to a function that outlived its time.

    ETSLOCK_KILL is missing on purpose: it would end a thread in the middle of the interpreter.
    """

    ABANDON = 0
    JOIN = 1


# --- statuses are exceptions ---------------------------------------------------------------------


class Error(Exception):
    """A status other than ETSLOCK_OK. `status` is its number, `name` its name."""

    _by_status = {}

    def __init_subclass__(cls, status, **rest):
        super().__init_subclass__(**rest)
        cls.status = status
        cls._by_status[status] = cls

    def __init__(self, status):
        super().__init__(_c.etslock_status_text(status).decode())
        self.status = status
        self.name = _c.etslock_status_name(status).decode()

    @classmethod
    def _of(cls, status):
        # A later release may answer with a status that this file does not know.
        return cls._by_status.get(status, cls)(status)


class WaitTimeout(Error, TimeoutError, status=1):
    """The lock was not free in time; the function never ran."""


class ExecTimeout(Error, TimeoutError, status=2):
    """The function (or holder) outlived its time; nothing was written since its last commit."""


class CallbackFailed(Error, status=3):
    """The function ended its thread. (If it raises, the caller gets what it raised.)"""


class Revoked(Error, status=4):
    """The lock was taken away; nothing was written since the last commit."""


class Deadlock(Error, status=5):
    """The wait could end only by a timeout: the holder is yourself, or waits for you."""


class NotFound(Error, status=6):
    """No such name."""


class Exists(Error, status=7):
    """The name is taken."""


class Closed(Error, status=8):
    """The table was closed while the call waited."""


class NullPointer(Error, status=20):
    """The table is closed, or the guard has ended."""


class Invalid(Error, status=21):
    """An argument is outside its range."""


class StructSize(Error, status=22):
    """This file and the library do not fit each other."""


class NotCovered(Error, status=23):
    """The guard does not hold this key."""


class WrongType(Error, status=24):
    """The operation does not fit the table's type, or the value's."""


class Guarded(Error, status=25):
    """The table takes writes through a guard only."""


class NoMemory(Error, status=40):
    """Memory of the size asked for cannot be had."""


class NoThread(Error, status=41):
    """No thread could be started for the function; the lock was released."""


class Forked(Error, status=42):
    """The table or guard comes from before a fork."""


class Panic(Error, status=90):
    """A bug of the library."""


def _check(status, no=None):
    """Raises, except that the exception class `no` is an answer: True for OK, False for it."""
    if status == 0:
        return True
    if no is not None and status == no.status:
        return False
    raise Error._of(status)


# --- the C API -----------------------------------------------------------------------------------


class _TableOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("type", c_int32),
        ("access", c_int32),
        ("reserved", c_uint32),
        ("name", c_char_p),
    ]


class _Options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("wait_timeout_ms", c_int64),
        ("exec_timeout_ms", c_int64),
        ("fail_timeout_ms", c_int64),
        ("spin_delay_ms", c_int64),
        ("lock_table", c_void_p),
        ("run_on", c_int32),
        ("queue", c_int32),
        ("on_exec_timeout", c_int32),
        ("commit_code", c_int32),
        ("owner", c_uint64),
        ("user_data_free", c_void_p),
    ]


class _Tuple(ctypes.Structure):
    _fields_ = [
        ("key", c_void_p),
        ("key_len", c_size_t),
        ("value", c_void_p),
        ("value_len", c_size_t),
    ]


class _Key(ctypes.Structure):
    _fields_ = [("key", c_char_p), ("key_len", c_size_t)]


class _Stats(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32)] + [
        (name, c_uint64)
        for name in (
            "acquired", "contended", "wait_timeouts", "exec_timeouts", "forced_releases",
            "deadlocks", "held", "waiting", "workers", "abandoned",
        )
    ]


_Callback = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(_Tuple), c_size_t, c_void_p)


def _load():
    named = os.environ.get("ETSLOCK_LIBRARY")
    beside = pathlib.Path(__file__).resolve().parent / "../../build/lib/libetslock.so"
    path = named or (str(beside) if beside.exists() else ctypes.util.find_library("etslock"))
    if path is None:
        raise ImportError("libetslock.so was not found; ETSLOCK_LIBRARY can name it")
    library = ctypes.CDLL(path)

    def declare(name, *argtypes, restype=c_int32):
        function = getattr(library, name)
        function.argtypes, function.restype = argtypes, restype

    bytes_in = (c_char_p, c_size_t)
    out = POINTER(c_void_p)
    for name in ("name", "text"):
        declare(f"etslock_status_{name}", c_int32, restype=c_char_p)
    declare("etslock_version", restype=c_char_p)

    declare("etslock_table_options_init", POINTER(_TableOptions), c_size_t, restype=None)
    declare("etslock_table_new", POINTER(_TableOptions), out)
    declare("etslock_table_open", c_char_p, out)
    declare("etslock_table_free", c_void_p, restype=None)
    for name in ("insert", "insert_new", "delete_tuple"):
        declare(f"etslock_table_{name}", c_void_p, *bytes_in, *bytes_in)
    for name in ("lookup", "take"):
        declare(f"etslock_table_{name}", c_void_p, *bytes_in, out)
    for name in ("member", "delete"):
        declare(f"etslock_table_{name}", c_void_p, *bytes_in)
    declare("etslock_table_clear", c_void_p)
    declare(
        "etslock_table_update_counter", c_void_p, *bytes_in, c_int64, c_int64, POINTER(c_int64)
    )
    declare("etslock_table_count", c_void_p, POINTER(c_size_t))
    declare("etslock_tuples_data", c_void_p, POINTER(c_size_t), restype=POINTER(_Tuple))
    declare("etslock_tuples_free", c_void_p, restype=None)
    declare("etslock_table_cursor", c_void_p, out)
    declare("etslock_cursor_next", c_void_p, out)
    declare("etslock_cursor_free", c_void_p, restype=None)

    locking = (_Callback, c_void_p, POINTER(_Options), c_void_p)
    declare("etslock_options_init", POINTER(_Options), c_size_t, restype=None)
    declare("etslock_with_lock", c_void_p, *bytes_in, *locking)
    declare("etslock_with_locks", c_void_p, POINTER(_Key), c_size_t, *locking)
    declare("etslock_acquire", c_void_p, *bytes_in, POINTER(_Options), out)
    declare("etslock_acquire_locks", c_void_p, POINTER(_Key), c_size_t, POINTER(_Options), out)

    declare("etslock_guard_lookup", c_void_p, *bytes_in, out)
    for name in ("insert", "delete_tuple"):
        declare(f"etslock_guard_{name}", c_void_p, *bytes_in, *bytes_in)
    declare("etslock_guard_delete", c_void_p, *bytes_in)
    for name in ("commit", "rollback", "release", "cancel", "status"):
        declare(f"etslock_guard_{name}", c_void_p)
    for name in ("extend", "sleep"):
        declare(f"etslock_guard_{name}", c_void_p, c_int64)
    declare("etslock_lock_table_stats", c_void_p, POINTER(_Stats))
    declare("etslock_stats_init", POINTER(_Stats), c_size_t, restype=None)
    declare("etslock_guard_remaining_ms", c_void_p, restype=c_int64)
    declare("etslock_guard_token", c_void_p, restype=c_uint64)
    return library


_c = _load()


def version():
    """The version of the library, as in "0.1.0"."""
    return _c.etslock_version().decode()


def stats():
    """The counters of the process's lock table, by name: "held", "waiting", "abandoned", ..."""
    stats = _Stats()
    _c.etslock_stats_init(byref(stats), ctypes.sizeof(stats))
    _check(_c.etslock_lock_table_stats(None, byref(stats)))
    return {name: getattr(stats, name) for name, _ in _Stats._fields_[2:]}


# --- what goes in ---------------------------------------------------------------------------------
#
# ctypes cuts numbers to size and strings at their first NUL without a word. So everything is looked
# at before it gets there.


def _bytes(data):
    """The two arguments that stand for a byte string."""
    if isinstance(data, str):
        data = data.encode()
    elif isinstance(data, (bytes, bytearray, memoryview)):
        data = bytes(data)
    else:
        raise TypeError(f"a key or value is bytes or str, not {type(data).__name__}")
    return data, len(data)


def _name(name):
    if not isinstance(name, str):
        raise TypeError(f"a name is str, not {type(name).__name__}")
    if "\0" in name:
        raise ValueError("a name holds no NUL")
    return name.encode()


def _within(number, low, high):
    """An integer that the library can hold."""
    number = operator.index(number)  # TypeError for 1.9 and "1"
    if not low <= number <= high:
        raise OverflowError(f"{number} is not in {low} to {high}")
    return number


def _seconds_from_now(milliseconds):
    """On the monotonic clock."""
    return math.inf if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def _int64(number):
    return _within(number, -(2**63), 2**63 - 1)


def _milliseconds(seconds):
    if seconds is None:
        return -1
    if not isinstance(seconds, numbers.Number):
        raise TypeError(f"a time is a number of seconds or None, not {type(seconds).__name__}")
    if seconds != seconds:
        raise ValueError("a time is not NaN")
    if seconds == math.inf:
        return -1
    if seconds <= 0:
        return 0
    # Rounded up, so that a tiny time is not a time of 0.
    return _int64(math.ceil(seconds * 1000))


def _keys(keys):
    if isinstance(keys, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"several keys are a sequence of keys, not one {type(keys).__name__}")
    pairs = [_bytes(key) for key in keys]
    array = (_Key * len(pairs))(*pairs)
    array.pairs = pairs  # what the array points to
    return array, len(pairs)


# --- what comes out -------------------------------------------------------------------------------
#
# The handler of a signal may raise between any two steps of Python: first of all when a call of the
# library has returned, before what it gave is anywhere. A handle would get lost there, and one
# whose variable is cleared after its end would be ended twice. So a handle stays where the library
# wrote it. Who ends it draws it from an iterator, which has it once, and drawing and ending are one
# step of C.


_value_of = operator.attrgetter("value")


class _Owner(map):
    """Ends a handle that nobody has drawn when it is dropped itself."""

    __del__ = map.__next__


def _own(slot, end):
    """An iterator that yields the handle in `slot` once and None after that, and its owner."""
    handles = itertools.chain(map(_value_of, (slot,)), itertools.repeat(None))
    return handles, _Owner(end, handles)


def _draw(handles, end):
    """Ends the handle, with None if it has been drawn before."""
    return next(map(end, handles))


def _read(tuples, count):
    return [
        (ctypes.string_at(t.key, t.key_len), ctypes.string_at(t.value, t.value_len))
        for t in tuples[:count]
    ]


def _found(function, *arguments):
    """Calls a function that ends with `out_tuples`; [] for NOT_FOUND."""
    snapshot = c_void_p()
    handles, _owner = _own(snapshot, _c.etslock_tuples_free)
    try:
        if not _check(function(*arguments, byref(snapshot)), NotFound):
            return []
        count = c_size_t()
        return _read(_c.etslock_tuples_data(snapshot, byref(count)), count.value)
    finally:
        _draw(handles, _c.etslock_tuples_free)


def _values(tuples):
    return [value for _, value in tuples]


_TIMES = ("wait_timeout", "exec_timeout", "fail_timeout", "spin_delay")
_CHOICES = {
    "run_on": RunOn,
    "queue": Queue,
    "on_exec_timeout": OnExecTimeout,
    "owner": lambda owner: _within(owner, 0, OWNER_NONE),
}


def _options(given):
    options = _Options()
    _c.etslock_options_init(byref(options), ctypes.sizeof(options))
    for name, value in given.items():
        if name in _TIMES:
            setattr(options, name + "_ms", _milliseconds(value))
        elif name in _CHOICES:
            setattr(options, name, _CHOICES[name](value))
        else:
            raise TypeError(f"unknown option {name!r}")
    if options.owner == 0 and _is_main():
        options.owner = _main_owner
    return options


# --- interruptions --------------------------------------------------------------------------------
#
# Signal handlers run in the main thread, when it executes Python. While it waits inside the library
# none runs. Waiting in slices would lose the place in the queue with each of them. So where the
# main thread would have to wait, a helper thread waits in its stead, and the main thread waits for
# the helper, which handlers may interrupt. Calls of other threads are made directly.
#
# - The library takes a call that names no owner for its thread's. For the main thread, whose calls
#   are made on more than one, `_options` names one.
# - A wait that was interrupted goes on in its helper, keeps its place until its `wait_timeout`, and
#   gives back at once what it gets: nothing in the library can end it earlier. The main thread is
#   another owner from there on, so that it does not take what is left of its call for itself; a
#   wait for a lock that it has from before then ends by its timeout, not by Deadlock.
# - `_on_helper` is the only place to change once a wait can be told to stop.

_main_owner = OWNER_NONE - 1
_SLICE = 50  # milliseconds that a handler may have to wait


def _is_main():
    return threading.get_ident() == threading.main_thread().ident


class _Helpers:
    """Threads that make calls for the main one; each ends when it was idle for a second."""

    def __init__(self):
        self._idle = collections.deque()  # a queue for the next job of each

    def start(self, job):
        """False if there is no thread to be had."""
        try:
            # One step: a helper that is no longer idle gets its job.
            next(map(queue.SimpleQueue.put, iter(self._idle.pop, None), (job,)))
            return True
        except IndexError:
            pass
        try:
            # Not `threading.Thread`, whose `start` does not bear an exception in its middle.
            _thread.start_new_thread(self._work, (job,))
            return True
        except RuntimeError:
            return False

    def _work(self, job):
        jobs = queue.SimpleQueue()
        while True:
            job()
            job = None  # it may be the last to refer to what nobody waits for
            self._idle.append(jobs)
            try:
                job = jobs.get(timeout=1)
            except queue.Empty:
                try:
                    self._idle.remove(jobs)
                    return
                except ValueError:
                    job = jobs.get()  # it is there, or on its way


_helpers = _Helpers()


def _on_helper(call, give_up=lambda: None):
    """`call()`, made where it does not keep handlers from running.

    If a handler raises meanwhile, the exception passes on, and `give_up()` is called when `call`
    has returned.
    """
    ended = threading.Lock()
    ended.acquire()
    turn = iter((True,))  # whether the result is still wanted when it is there
    outcome = []

    def job():
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))
        if not next(turn, False):
            give_up()
        ended.release()

    try:
        if not _helpers.start(job):
            return call()
        # In slices, because the system may give the signal to another thread: that wakes nobody.
        while not ended.acquire(timeout=_SLICE / 1000):
            pass
    except BaseException:
        global _main_owner
        _main_owner -= 1
        if not next(turn, False):
            give_up()
        raise
    value, error = outcome.pop()
    if error is not None:
        raise error
    return value


# --- functions under a lock -----------------------------------------------------------------------
#
# A function may begin or run on after `with_lock` has returned, on a thread that still stands in
# the C thunk. So there is one thunk for the whole module, never freed, and `user_data` is a number
# under which the thread finds its call. A number needs no `user_data_free`; a Python one could run
# while the interpreter is being taken down, where a thread that asks for the interpreter is ended.
#
# The thunk runs on the library's threads only. On the main thread a handler could raise in it where
# no `except` stands yet; ctypes would answer 0 then, and the library publish what had been written.
# So what is to run on the caller's thread runs under an acquired guard.


class _Call:
    def __init__(self, function, shape):
        self.function, self.shape = function, shape
        self.value = self.error = None
        self.given_up = False
        self.number = next(_numbers)


_numbers = itertools.count(1)  # ctypes shows a user_data of 0 as None
_calls = {}  # the calls whose functions have not begun, by number; each access is one step


def _forget_the_parent():
    """In a forked child there are neither the helpers nor the calls."""
    global _helpers
    _calls.clear()
    _helpers = _Helpers()


os.register_at_fork(after_in_child=_forget_the_parent)


@_Callback
def _run(guard_pointer, tuples, count, number):
    call = _calls.pop(number, None)
    if call is None:  # abandoned while this thread was waiting for the interpreter
        return 1
    guard = Guard(guard_pointer)
    try:
        call.value = call.function(guard, call.shape(_read(tuples, count)))
        return 1 if call.given_up else 0
    except BaseException as error:  # also SystemExit and KeyboardInterrupt belong to the caller
        call.error = error
        return 1
    finally:
        guard._pointer = None


def _on_worker(start, target, shape, function, options):
    call = _Call(function, shape)

    def begin():
        return start(*target, _run, call.number, byref(options), None)

    try:
        _calls[call.number] = call
        status = _on_helper(begin) if _is_main() else begin()
    except BaseException:
        call.given_up = True
        raise
    finally:
        _calls.pop(call.number, None)
    # Taken out of `call`, which the error's traceback refers to.
    error, call.error = call.error, None
    if status == CallbackFailed.status and error is not None:
        raise error
    try:
        _check(status)
    except Error as failed:
        raise failed from error
    return call.value


def _on_caller(guard, keys, shape, function, options):
    """What ETSLOCK_RUN_ON_CALLER does, with an acquired guard."""
    lent = _LentGuard(guard._pointer, options.exec_timeout_ms)
    try:
        try:
            tuples = []
            for key in dict.fromkeys(data for data, _ in keys):
                tuples += _found(_c.etslock_guard_lookup, lent._pointer, key, len(key))
            value = function(lent, shape(tuples))
        except Exception as error:
            status = lent._status()
            # A function that is late has failed by that, whatever it raises.
            if status != 0 and getattr(error, "status", None) != status:
                raise Error._of(status) from error
            raise
        _check(lent._seen(guard._end(_c.etslock_guard_release)))
        return value
    finally:
        lent._pointer = None
        guard._end(_c.etslock_guard_cancel)  # unless it has been released


def _acquired(start, target, options):
    """An acquired guard."""
    guard = AcquiredGuard()

    def attempt():
        return start(*target, byref(options), byref(guard._slot))

    def give_up():
        guard._end(_c.etslock_guard_cancel)

    try:
        if options.wait_timeout_ms != 0 and _is_main():
            # Most locks are free. Whether it would be a deadlock, only one that waits is told.
            wait, options.wait_timeout_ms = options.wait_timeout_ms, 0
            status = attempt()
            if status == WaitTimeout.status:
                options.wait_timeout_ms = wait
                status = _on_helper(attempt, give_up)
        else:
            status = attempt()
        _check(status)
        guard._pointer = guard._slot.value
        return guard
    except BaseException:
        # Not while a helper may still write to the slot: there `give_up` sees to it.
        if guard._slot.value is not None:
            give_up()
        raise


# --- the surface ---------------------------------------------------------------------------------


class Guard:
    """A held lock: fenced access to its keys. The writes are staged until the end.

    The one that a function gets ends with the function. One thread at a time.
    """

    def __init__(self, pointer):
        self._pointer = pointer

    def lookup(self, key):
        """The current values of `key` with this guard's staged writes applied."""
        return _values(_found(_c.etslock_guard_lookup, self._pointer, *_bytes(key)))

    def insert(self, key, value):
        _check(_c.etslock_guard_insert(self._pointer, *_bytes(key), *_bytes(value)))

    def delete(self, key):
        _check(_c.etslock_guard_delete(self._pointer, *_bytes(key)))

    def delete_tuple(self, key, value):
        """Removes every instance of one tuple."""
        _check(_c.etslock_guard_delete_tuple(self._pointer, *_bytes(key), *_bytes(value)))

    def commit(self):
        """Publishes the staged writes and keeps the lock."""
        _check(_c.etslock_guard_commit(self._pointer))

    def rollback(self):
        """Forgets the staged writes and keeps the lock."""
        _check(_c.etslock_guard_rollback(self._pointer))

    def extend(self, exec_timeout):
        """Moves the exec deadline to `exec_timeout` from now, if that is later."""
        _check(_c.etslock_guard_extend(self._pointer, _milliseconds(exec_timeout)))

    def sleep(self, seconds):
        """Sleeps; raises as soon as the guard is late or revoked."""
        if not _is_main():
            _check(_c.etslock_guard_sleep(self._pointer, _milliseconds(seconds)))
            return
        left = _milliseconds(seconds)
        end = _seconds_from_now(left)
        while True:
            part = _SLICE if left < 0 else min(left, _SLICE)
            _check(_c.etslock_guard_sleep(self._pointer, part))
            left = _milliseconds(end - time.monotonic())
            if left == 0:
                return

    def check(self):
        """Raises ExecTimeout or Revoked unless the guard is live."""
        _check(self._status())

    def _status(self):
        return _c.etslock_guard_status(self._pointer)

    @property
    def live(self):
        return self._status() == 0

    @property
    def remaining(self):
        """Seconds to the exec deadline; 0 when late or revoked; None for never."""
        milliseconds = _c.etslock_guard_remaining_ms(self._pointer)
        return None if milliseconds < 0 else milliseconds / 1000

    @property
    def token(self):
        """Larger than that of every earlier lock of the same key."""
        return _c.etslock_guard_token(self._pointer)


class _LentGuard(Guard):
    """The guard of a function on the caller's thread.

    If its lock was taken away when its time had passed, that was a timeout: nothing else is to be
    read from who came first, a waiter that took the lock or the function that returned.
    """

    def __init__(self, pointer, exec_timeout_ms):
        super().__init__(pointer)
        self._end = _seconds_from_now(exec_timeout_ms)

    def extend(self, exec_timeout):
        super().extend(exec_timeout)
        self._end = max(self._end, _seconds_from_now(_milliseconds(exec_timeout)))

    def _status(self):
        return self._seen(super()._status())

    def _seen(self, status):
        is_late = status == Revoked.status and time.monotonic() >= self._end
        return ExecTimeout.status if is_late else status


class AcquiredGuard(Guard):
    """A lock held until `release` or `cancel`, by any thread; one thread at a time.

    `with` releases at the end of the block and cancels when an exception leaves it. In a forked
    child, where nothing is held, it ends quietly.
    """

    def __init__(self):
        super().__init__(None)
        self._slot = c_void_p()
        self._handles, self._owner = _own(self._slot, _c.etslock_guard_cancel)

    def _end(self, end):
        self._pointer = None
        return _draw(self._handles, end)

    def release(self):
        """Publishes the staged writes and unlocks. Ends the guard, also when it raises."""
        _check(self._end(_c.etslock_guard_release))

    def cancel(self):
        """Forgets the staged writes and unlocks. Ends the guard."""
        _check(self._end(_c.etslock_guard_cancel))

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _traceback):
        try:
            if self._pointer is not None:
                self.release() if kind is None else self.cancel()
        except Forked:
            pass
        except BaseException:
            self._end(_c.etslock_guard_cancel)
            raise


class Table:
    """A table in memory: tuples of key and value.

    `guarded=True` takes writes through a guard only. A named table can be opened again with
    `Table.open`. Close it, or leave it to the garbage collector.

    The lock calls take these options, with the defaults of the C API: `wait_timeout`,
    `exec_timeout`, `fail_timeout`, `spin_delay` (seconds, None for never), `queue`, `owner`, and
    for `with_lock` and `with_locks` also `run_on`, `on_exec_timeout`.
    """

    def __init__(self, kind=Kind.SET, *, guarded=False, name=None):
        options = _TableOptions()
        _c.etslock_table_options_init(byref(options), ctypes.sizeof(options))
        options.type, options.access = Kind(kind), bool(guarded)
        options.name = None if name is None else _name(name)
        self._make(_c.etslock_table_new, byref(options))

    @classmethod
    def open(cls, name):
        """One more handle to a named table."""
        table = cls.__new__(cls)
        table._make(_c.etslock_table_open, _name(name))
        return table

    def _make(self, function, argument):
        self._pointer = None
        slot = c_void_p()
        self._handles, self._owner = _own(slot, _c.etslock_table_free)
        _check(function(argument, byref(slot)))
        self._pointer = slot.value

    def close(self):
        """Ends this handle; calls that wait through it raise Closed.

        Not while another thread is about to begin a call through it.
        """
        self._pointer = None
        _draw(self._handles, _c.etslock_table_free)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    # Without a lock: as in ETS, visible at once.

    def insert(self, key, value):
        _check(_c.etslock_table_insert(self._pointer, *_bytes(key), *_bytes(value)))

    def insert_new(self, key, value):
        """False if the key has a tuple already."""
        return _check(
            _c.etslock_table_insert_new(self._pointer, *_bytes(key), *_bytes(value)), Exists
        )

    def lookup(self, key):
        """The values of a key; [] if it has none."""
        return _values(_found(_c.etslock_table_lookup, self._pointer, *_bytes(key)))

    def take(self, key):
        """Removes all tuples of a key and returns their values."""
        return _values(_found(_c.etslock_table_take, self._pointer, *_bytes(key)))

    def delete(self, key):
        _check(_c.etslock_table_delete(self._pointer, *_bytes(key)))

    def delete_tuple(self, key, value):
        """Removes every instance of one tuple."""
        _check(_c.etslock_table_delete_tuple(self._pointer, *_bytes(key), *_bytes(value)))

    def clear(self):
        _check(_c.etslock_table_clear(self._pointer))

    def update_counter(self, key, add=1, initial=0):
        """Adds to a counter and returns its new value. Sets only."""
        value = c_int64()
        _check(
            _c.etslock_table_update_counter(
                self._pointer, *_bytes(key), _int64(add), _int64(initial), byref(value)
            )
        )
        return value.value

    def count(self):
        """How many tuples the table has."""
        count = c_size_t()
        _check(_c.etslock_table_count(self._pointer, byref(count)))
        return count.value

    def __contains__(self, key):
        return _check(_c.etslock_table_member(self._pointer, *_bytes(key)), NotFound)

    def __iter__(self):
        """Pairs of key and value, while others may write: a key that is there throughout comes
        exactly once with the values of that moment."""
        cursor = c_void_p()
        handles, _owner = _own(cursor, _c.etslock_cursor_free)
        try:
            _check(_c.etslock_table_cursor(self._pointer, byref(cursor)))
            while tuples := _found(_c.etslock_cursor_next, cursor):
                yield from tuples
        finally:
            _draw(handles, _c.etslock_cursor_free)

    # Under a lock.

    def with_lock(self, key, function, **options):
        """Calls `function(guard, values)` while the lock of `key` is held; returns what it returns.

        The function runs on an internal thread, unless `run_on=RunOn.CALLER`. What it writes
        through the guard appears when it returns, and never if it raises: then the same exception
        is raised here. After ExecTimeout the function may still be running, without the lock and
        unable to write through its guard; `guard.live` tells it to stop.
        """
        keys, options = [_bytes(key)], _options(options)
        if options.run_on == RunOn.CALLER:
            guard = _acquired(_c.etslock_acquire, (self._pointer, *keys[0]), options)
            return _on_caller(guard, keys, _values, function, options)
        target = (self._pointer, *keys[0])
        return _on_worker(_c.etslock_with_lock, target, _values, function, options)

    def with_locks(self, keys, function, **options):
        """As `with_lock`, for several keys: `function(guard, tuples)`, pairs of key and value."""
        (array, count), options = _keys(keys), _options(options)
        target = (self._pointer, array, count)
        if options.run_on == RunOn.CALLER:
            guard = _acquired(_c.etslock_acquire_locks, target, options)
            return _on_caller(guard, array.pairs, list, function, options)
        return _on_worker(_c.etslock_with_locks, target, list, function, options)

    def acquire(self, key, **options):
        """Acquires the lock of `key`: `with table.acquire(key) as guard: ...`"""
        target = (self._pointer, *_bytes(key))
        return _acquired(_c.etslock_acquire, target, _options(options))

    def acquire_locks(self, keys, **options):
        """Acquires the locks of several keys under one guard."""
        target = (self._pointer, *_keys(keys))
        return _acquired(_c.etslock_acquire_locks, target, _options(options))
