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

Times are seconds; None means never. Keys and values are bytes, or str, which is encoded as UTF-8;
what comes back is bytes. A status other than ETSLOCK_OK is an exception (see `Error`).

The library is the file named by the environment variable ETSLOCK_LIBRARY, else
../../build/lib/libetslock.so beside this file, else what the system finds.

Needs Python 3.9 or later, and nothing else.
"""

import ctypes
import ctypes.util
import enum
import functools
import itertools
import math
import os
import pathlib
import threading
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_uint64
from ctypes import c_void_p

OWNER_NONE = 2**64 - 1  # as `owner`: the call takes no part in deadlock detection


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
    # A later release may answer with a status that this file does not know.
    error = Error._by_status.get(status, Error)
    if error is no:
        return False
    raise error(status)


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


def _bytes(data):
    """The two arguments that stand for a byte string."""
    data = data.encode() if isinstance(data, str) else bytes(data)
    return data, len(data)


def _milliseconds(seconds):
    # Rounded up, so that a tiny time is not a time of 0.
    return -1 if seconds is None else math.ceil(seconds * 1000)


def _read(tuples, count):
    return [
        (ctypes.string_at(t.key, t.key_len), ctypes.string_at(t.value, t.value_len))
        for t in tuples[:count]
    ]


def _take(snapshot):
    """The tuples of a snapshot, which is freed."""
    count = c_size_t()
    try:
        return _read(_c.etslock_tuples_data(snapshot, byref(count)), count.value)
    finally:
        _c.etslock_tuples_free(snapshot)


def _found(function, *arguments):
    """Calls a function that ends with `out_tuples`; [] for NOT_FOUND."""
    snapshot = c_void_p()
    return _take(snapshot) if _check(function(*arguments, byref(snapshot)), NotFound) else []


def _values(tuples):
    return [value for _, value in tuples]


_TIMES = ("wait_timeout", "exec_timeout", "fail_timeout", "spin_delay")
_CHOICES = {"run_on": RunOn, "queue": Queue, "on_exec_timeout": OnExecTimeout, "owner": int}


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
    return options


def _keys(keys):
    pairs = [_bytes(key) for key in keys]
    return (_Key * len(pairs))(*pairs), len(pairs)


# --- functions under a lock ----------------------------------------------------------------------
#
# A function may begin or run on after `with_lock` has returned, on a thread that still stands in
# the C thunk. So there is one thunk for the whole module, never freed, and `user_data` is a number
# under which the thread finds its call. A number needs no `user_data_free`; a Python one could run
# while the interpreter is being taken down, where a thread that asks for the interpreter is ended.


class _Call:
    def __init__(self, function, shape):
        self.function, self.shape = function, shape
        self.value = self.error = None


class _Calls:
    """The calls whose functions have not begun."""

    def __init__(self):
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)  # ctypes shows a user_data of 0 as None
        self._calls = {}

    def add(self, call):
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = call
            return number

    def take(self, number):
        """The call, the first time; None after that."""
        with self._lock:
            return self._calls.pop(number, None)

    def __len__(self):
        with self._lock:
            return len(self._calls)


_calls = _Calls()
os.register_at_fork(after_in_child=_calls.__init__)


@_Callback
def _run(guard_pointer, tuples, count, number):
    call = _calls.take(number)
    if call is None:  # abandoned while this thread was waiting for the interpreter
        return 1
    guard = Guard(guard_pointer)
    try:
        call.value = call.function(guard, call.shape(_read(tuples, count)))
        return 0
    except BaseException as error:  # also SystemExit and KeyboardInterrupt belong to the caller
        call.error = error
        return 1
    finally:
        guard._pointer = None


def _with(start, shape, function, given):
    options = _options(given)
    call = _Call(function, shape)
    number = _calls.add(call)
    status = start(_run, number, byref(options), None)
    _calls.take(number)
    # Taken out of `call`, which the error's traceback refers to.
    error, call.error = call.error, None
    if status == CallbackFailed.status and error is not None:
        raise error
    try:
        _check(status)
    except Error as failed:
        raise failed from error
    return call.value


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
        _check(_c.etslock_guard_sleep(self._pointer, _milliseconds(seconds)))

    def check(self):
        """Raises ExecTimeout or Revoked unless the guard is live."""
        _check(_c.etslock_guard_status(self._pointer))

    @property
    def live(self):
        return _c.etslock_guard_status(self._pointer) == 0

    @property
    def remaining(self):
        """Seconds to the exec deadline; 0 when late or revoked; None for never."""
        milliseconds = _c.etslock_guard_remaining_ms(self._pointer)
        return None if milliseconds < 0 else milliseconds / 1000

    @property
    def token(self):
        """Larger than that of every earlier lock of the same key."""
        return _c.etslock_guard_token(self._pointer)


class AcquiredGuard(Guard):
    """A lock held until `release` or `cancel`, by any thread; one thread at a time.

    `with` releases at the end of the block and cancels when an exception leaves it.
    """

    def release(self):
        """Publishes the staged writes and unlocks. Ends the guard, also when it raises."""
        pointer, self._pointer = self._pointer, None
        _check(_c.etslock_guard_release(pointer))

    def cancel(self):
        """Forgets the staged writes and unlocks. Ends the guard."""
        pointer, self._pointer = self._pointer, None
        _check(_c.etslock_guard_cancel(pointer))

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _traceback):
        if self._pointer is not None:
            self.release() if kind is None else self.cancel()

    def __del__(self):
        if self._pointer is not None:
            _c.etslock_guard_cancel(self._pointer)


class Table:
    """A table in memory: tuples of key and value.

    `guarded=True` takes writes through a guard only. A named table can be opened again with
    `Table.open`. Close it, or leave it to the garbage collector.

    The lock calls take these options, with the defaults of the C API: `wait_timeout`,
    `exec_timeout`, `fail_timeout`, `spin_delay` (seconds, None for never), `queue`, `owner`, and
    for `with_lock` and `with_locks` also `run_on`, `on_exec_timeout`.
    """

    def __init__(self, kind=Kind.SET, *, guarded=False, name=None):
        self._pointer = None
        options = _TableOptions()
        _c.etslock_table_options_init(byref(options), ctypes.sizeof(options))
        options.type, options.access = Kind(kind), bool(guarded)
        options.name = None if name is None else name.encode()
        pointer = c_void_p()
        _check(_c.etslock_table_new(byref(options), byref(pointer)))
        self._pointer = pointer.value

    @classmethod
    def open(cls, name):
        """One more handle to a named table."""
        pointer = c_void_p()
        _check(_c.etslock_table_open(name.encode(), byref(pointer)))
        table = cls.__new__(cls)
        table._pointer = pointer.value
        return table

    def close(self):
        """Ends this handle; calls that wait through it raise Closed.

        Not while another thread is about to begin a call through it.
        """
        pointer, self._pointer = self._pointer, None
        _c.etslock_table_free(pointer)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def __del__(self):
        if self._pointer is not None:
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
                self._pointer, *_bytes(key), add, initial, byref(value)
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
        _check(_c.etslock_table_cursor(self._pointer, byref(cursor)))
        try:
            while tuples := _found(_c.etslock_cursor_next, cursor):
                yield from tuples
        finally:
            _c.etslock_cursor_free(cursor)

    # Under a lock.

    def with_lock(self, key, function, **options):
        """Calls `function(guard, values)` while the lock of `key` is held; returns what it returns.

        The function runs on an internal thread, unless `run_on=RunOn.CALLER`. What it writes
        through the guard appears when it returns, and never if it raises: then the same exception
        is raised here. After ExecTimeout the function may still be running, without the lock and
        unable to write through its guard; `guard.live` tells it to stop.
        """

        start = functools.partial(_c.etslock_with_lock, self._pointer, *_bytes(key))
        return _with(start, _values, function, options)

    def with_locks(self, keys, function, **options):
        """As `with_lock`, for several keys: `function(guard, tuples)`, pairs of key and value."""
        start = functools.partial(_c.etslock_with_locks, self._pointer, *_keys(keys))
        return _with(start, list, function, options)

    def acquire(self, key, **options):
        """Acquires the lock of `key`: `with table.acquire(key) as guard: ...`"""
        guard = c_void_p()
        options = byref(_options(options))
        _check(_c.etslock_acquire(self._pointer, *_bytes(key), options, byref(guard)))
        return AcquiredGuard(guard.value)

    def acquire_locks(self, keys, **options):
        """Acquires the locks of several keys under one guard."""
        guard = c_void_p()
        options = byref(_options(options))
        _check(_c.etslock_acquire_locks(self._pointer, *_keys(keys), options, byref(guard)))
        return AcquiredGuard(guard.value)
