"""The Python module against the library. Run: python3 examples-ffi/python/test_etslock.py"""

import _thread
import ctypes
import fractions
import gc
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import etslock  # noqa: E402  (the module beside this file)

LONG = 30  # seconds; a bound for failure only, never waited for when all is well


def idle(guard, values):
    """A function that does nothing."""


def in_thread(function):
    """Starts `function` in a thread of its own; `join()` returns what it returned or raised."""

    class Running(threading.Thread):
        def run(self):
            try:
                self.outcome = function()
            except BaseException as error:
                self.outcome = error

        def join(self):
            super().join(LONG)
            return self.outcome

    running = Running(daemon=True)
    running.start()
    return running


class Readme(unittest.TestCase):
    def test_the_later_holder_writes_last(self):
        """C-1: the original's example."""
        table = etslock.Table()
        is_held = threading.Event()

        def hold_and_write_nope(guard, values):
            is_held.set()
            guard.sleep(0.1)
            guard.insert("key", "nope")
            return threading.current_thread()

        def write_yup(guard, values):
            guard.insert("key", "yup")
            return values

        early = in_thread(lambda: table.with_lock("key", hold_and_write_nope))
        self.assertTrue(is_held.wait(LONG))
        time.sleep(0.05)
        seen = table.with_lock("key", write_yup)
        ran_on = early.join()
        self.assertIsInstance(ran_on, threading.Thread)
        self.assertIsNot(ran_on, early)  # C-10: on an internal thread
        self.assertEqual(seen, [b"nope"])
        self.assertEqual(table.lookup("key"), [b"yup"])


class Locking(unittest.TestCase):
    def setUp(self):
        self.table = etslock.Table()

    def test_no_increment_is_lost(self):
        """C-1: a counter by many threads."""

        def increment(guard, values):
            guard.insert("counter", b"%d" % (int(values[0]) + 1 if values else 1))

        def count():
            for step in range(100):
                where = etslock.RunOn.CALLER if step % 2 else etslock.RunOn.WORKER
                self.table.with_lock("counter", increment, wait_timeout=None, run_on=where)

        threads = [in_thread(count) for _ in range(8)]
        self.assertEqual([thread.join() for thread in threads], [None] * 8)
        self.assertEqual(self.table.lookup("counter"), [b"800"])

    def test_wait_timeout(self):
        """C-2: a held lock costs the time that was offered; 0 is one attempt."""
        with self.table.acquire("key"):
            for seconds in (0, 0.05):
                started = time.monotonic()
                with self.assertRaises(etslock.WaitTimeout) as caught:
                    self.table.with_lock("key", idle, wait_timeout=seconds, owner=1)
                self.assertGreaterEqual(time.monotonic() - started, seconds - 0.002)
                self.assertEqual(caught.exception.name, "ETSLOCK_WAIT_TIMEOUT")
                self.assertIsInstance(caught.exception, TimeoutError)
        self.table.with_lock("key", idle, wait_timeout=0)

    def test_exec_timeout(self):
        """C-4, C-8, C-12: the call returns, the function runs out, and writes nothing."""
        may_end, has_ended = threading.Event(), threading.Event()
        late_error = []

        def outlive(guard, values):
            guard.insert("key", "staged in time")
            may_end.wait(LONG)
            try:
                guard.insert("key", "too late")
            except etslock.Error as error:
                late_error.append(error)
            has_ended.set()

        started = time.monotonic()
        with self.assertRaises(etslock.ExecTimeout):
            self.table.with_lock("key", outlive, exec_timeout=0.05)
        self.assertGreaterEqual(time.monotonic() - started, 0.048)
        self.table.with_lock("key", idle)  # the lock is free again
        self.assertFalse(has_ended.is_set())
        may_end.set()
        self.assertTrue(has_ended.wait(LONG))
        self.assertIsInstance(late_error[0], etslock.Revoked)
        self.assertNotIn("key", self.table)

    def test_exec_timeout_on_the_callers_thread(self):
        """C-10: found out when the function returns; its writes are refused."""

        def outlive(guard, values):
            self.assertRaises(etslock.ExecTimeout, guard.sleep, LONG)
            self.assertFalse(guard.live)
            self.assertEqual(guard.remaining, 0)

        with self.assertRaises(etslock.ExecTimeout):
            self.table.with_lock("key", outlive, exec_timeout=0.05, run_on=etslock.RunOn.CALLER)

    def test_join(self):
        """C-11: the call returns only when the function has returned."""
        ended = []

        def outlive(guard, values):
            self.assertRaises(etslock.Revoked, guard.sleep, LONG)
            ended.append(True)

        with self.assertRaises(etslock.ExecTimeout):
            self.table.with_lock(
                "key", outlive, exec_timeout=0.05, on_exec_timeout=etslock.OnExecTimeout.JOIN
            )
        self.assertEqual(ended, [True])

    def test_deadlock(self):
        """C-13: a wait for oneself, and a cycle of two."""
        with self.table.acquire("key"):
            self.assertRaises(etslock.Deadlock, self.table.with_lock, "key", idle)
        with self.assertRaises(etslock.Deadlock):
            self.table.with_lock("a", lambda guard, values: self.table.acquire("a"))

        barrier = threading.Barrier(2, timeout=LONG)

        def take(first, second):
            with self.table.acquire(first, exec_timeout=LONG):
                barrier.wait()
                with self.table.acquire(second, wait_timeout=LONG):
                    return "both"

        crossed = [in_thread(lambda: take("a", "b")), in_thread(lambda: take("b", "a"))]
        outcomes = {type(thread.join()) for thread in crossed}
        self.assertEqual(outcomes, {str, etslock.Deadlock})

    def test_exception(self):
        """C-7: the same exception comes out of the call, and nothing was written."""
        for where in etslock.RunOn:
            mine = ValueError("mine")

            def fail(guard, values, mine=mine):
                guard.insert("key", "never seen")
                raise mine

            with self.assertRaises(ValueError) as caught:
                self.table.with_lock("key", fail, run_on=where)
            self.assertIs(caught.exception, mine)
            self.assertNotIn("key", self.table)
        self.table.with_lock("key", idle, wait_timeout=0)

    def test_a_guard_ends_with_its_function(self):
        kept = self.table.with_lock("key", lambda guard, values: guard)
        self.assertRaises(etslock.NullPointer, kept.insert, "key", "value")
        self.assertFalse(kept.live)

    def test_several_keys(self):
        """C-18: tuples in the order given, other keys not covered."""
        self.table.insert("a", "1")
        self.table.insert("b", "2")

        def swap(guard, tuples):
            (_, b), (_, a) = tuples
            guard.insert("a", b)
            guard.insert("b", a)
            self.assertRaises(etslock.NotCovered, guard.insert, "c", "3")
            return tuples

        seen = self.table.with_locks(["b", "a"], swap)
        self.assertEqual(seen, [(b"b", b"2"), (b"a", b"1")])
        self.assertEqual(self.table.lookup("a") + self.table.lookup("b"), [b"2", b"1"])
        with self.table.acquire_locks(["b", "a"]) as guard:
            guard.delete("a")
        self.assertNotIn("a", self.table)

    def test_options(self):
        """What is out of range is refused, and the function is let go."""
        self.assertRaises(TypeError, self.table.with_lock, "key", idle, timeout=1)
        self.assertRaises(ValueError, self.table.with_lock, "key", idle, queue=7)
        self.assertRaises(ValueError, self.table.with_lock, "key", idle, on_exec_timeout=2)
        self.assertRaises(etslock.Invalid, self.table.with_lock, "key", idle, spin_delay=None)
        self.assertRaises(etslock.Invalid, self.table.acquire, "key", spin_delay=math.inf)
        self.table.with_lock("key", idle, queue=etslock.Queue.FIFO, fail_timeout=None)

    def tearDown(self):
        """No call is remembered after it has returned, whether its function ran or not."""
        self.assertEqual(len(etslock._calls), 0)


class Acquiring(unittest.TestCase):
    def setUp(self):
        self.table = etslock.Table()

    def test_release_and_cancel(self):
        """C-7: release publishes, an exception does not."""
        with self.table.acquire("key") as guard:
            guard.insert("key", "published")
            self.assertNotIn("key", self.table)
            self.assertEqual(guard.lookup("key"), [b"published"])
        self.assertEqual(self.table.lookup("key"), [b"published"])

        with self.assertRaises(KeyError):
            with self.table.acquire("key") as guard:
                guard.insert("key", "forgotten")
                raise KeyError
        self.assertEqual(self.table.lookup("key"), [b"published"])
        self.assertRaises(etslock.NullPointer, guard.release)

    def test_commit_rollback_extend_token(self):
        guard = self.table.acquire("key", exec_timeout=20)
        self.assertTrue(guard.live)
        self.assertLessEqual(guard.remaining, 20)
        guard.insert("key", "1")
        guard.commit()
        guard.insert("key", "2")
        guard.rollback()
        guard.extend(60)
        self.assertGreater(guard.remaining, 40)
        first = guard.token
        guard.release()
        self.assertEqual(self.table.lookup("key"), [b"1"])
        with self.table.acquire("key", exec_timeout=None) as guard:
            self.assertGreater(guard.token, first)
            self.assertIsNone(guard.remaining)

    def test_late(self):
        """C-6: a late release publishes nothing, and says so."""
        guard = self.table.acquire("key", exec_timeout=0)
        self.assertRaises(etslock.ExecTimeout, guard.check)
        self.assertRaises(etslock.ExecTimeout, guard.insert, "key", "late")
        self.assertRaises(etslock.ExecTimeout, guard.release)
        self.assertNotIn("key", self.table)

    def test_a_dropped_guard_is_cancelled(self):
        guard = self.table.acquire("key")
        guard.insert("key", "forgotten")
        del guard
        self.table.with_lock("key", idle, wait_timeout=0)
        self.assertNotIn("key", self.table)

    def test_release_on_another_thread(self):
        guard = self.table.acquire("key")
        self.assertIsNone(in_thread(guard.release).join())
        self.table.with_lock("key", idle, wait_timeout=0)


class Tables(unittest.TestCase):
    def test_set(self):
        table = etslock.Table()
        binary = bytes(range(256))
        table.insert(binary, "")
        table.insert("", bytearray(binary))
        self.assertEqual(table.lookup(binary), [b""])
        self.assertEqual(table.lookup(""), [binary])
        self.assertTrue(table.insert_new("new", "1"))
        self.assertFalse(table.insert_new("new", "2"))
        self.assertEqual(table.update_counter("hits", 2, initial=40), 42)
        self.assertEqual(table.update_counter("hits"), 43)
        self.assertEqual(table.count(), 4)
        self.assertEqual({key for key, _ in table}, {binary, b"", b"new", b"hits"})
        self.assertEqual(table.take("new"), [b"1"])
        self.assertEqual(table.take("new"), [])
        table.delete("hits")
        table.clear()
        self.assertEqual(list(table), [])

    def test_bags(self):
        """C-9: insertion order; equal tuples once in a bag, as often as inserted in the other."""
        expected = {
            etslock.Kind.BAG: [b"b", b"a"],
            etslock.Kind.DUPLICATE_BAG: [b"b", b"a", b"b"],
        }
        for kind, values in expected.items():
            with etslock.Table(kind) as bag:
                for value in ("b", "a", "b"):
                    bag.insert("key", value)
                self.assertEqual(bag.with_lock("key", lambda guard, values: values), values)
                self.assertEqual(list(bag), [(b"key", value) for value in values])
                bag.with_lock("key", lambda guard, values: guard.delete_tuple("key", "b"))
                self.assertEqual(bag.lookup("key"), [b"a"])
                bag.delete_tuple("key", "a")
                self.assertNotIn("key", bag)
                self.assertRaises(etslock.WrongType, bag.update_counter, "key")

    def test_names(self):
        """C-14: two handles of a name are one table, until the last one is closed."""
        table = etslock.Table(name="test_names", guarded=True)
        self.assertRaises(etslock.Exists, etslock.Table, name="test_names")
        again = etslock.Table.open("test_names")
        self.assertRaises(etslock.Guarded, again.insert, "key", "value")
        again.with_lock("key", lambda guard, values: guard.insert("key", "value"))
        self.assertEqual(table.lookup("key"), [b"value"])
        table.close()
        again.close()
        self.assertRaises(etslock.NotFound, etslock.Table.open, "test_names")
        self.assertRaises(etslock.NullPointer, table.lookup, "key")

    def test_closing_wakes_waiters(self):
        """C-14: a waiter through a closed handle is told so."""
        table = etslock.Table(name="test_closing")
        other = etslock.Table.open("test_closing")
        with table.acquire("key", exec_timeout=None):
            waiter = in_thread(lambda: other.with_lock("key", idle, wait_timeout=None))
            deadline = time.monotonic() + LONG
            while etslock.stats()["waiting"] == 0 and time.monotonic() < deadline:
                time.sleep(0.001)
            other.close()
            self.assertIsInstance(waiter.join(), etslock.Closed)
        table.close()


class Times(unittest.TestCase):
    """C-2, C-4: a time that is over already is 0, and only None and infinity are for ever."""

    LATE = (0, -0.0, -1e-9, -0.0002, -0.0009, -0.001, -0.0011, -0.0015, -0.002, -1, -7, -1e300,
            -(10**400), -math.inf, fractions.Fraction(-1, 700))

    def setUp(self):
        self.table = etslock.Table()
        self.held = self.table.acquire("held", exec_timeout=None, owner=1)

    def test_waits(self):
        def all_calls(wait):
            given = {"wait_timeout": wait, "owner": 2}
            refused = [
                lambda: self.table.acquire("held", **given),
                lambda: self.table.acquire_locks(["free", "held"], **given),
                lambda: self.table.with_lock("held", idle, **given),
                lambda: self.table.with_locks(["held"], idle, **given),
                lambda: self.table.with_lock("held", idle, run_on=etslock.RunOn.CALLER, **given),
            ]
            for call in refused:
                self.assertRaises(etslock.WaitTimeout, call)
            self.table.acquire("free", **given).release()

        for late in self.LATE:
            # On a thread of its own: a wait for ever is a failure, not a hang.
            self.assertIsNone(in_thread(lambda: all_calls(late)).join())
        for name in ("exec_timeout", "fail_timeout", "spin_delay"):
            for late in self.LATE:
                self.assertEqual(getattr(etslock._options({name: late}), name + "_ms"), 0)
            for ever in (None, math.inf):
                self.assertEqual(getattr(etslock._options({name: ever}), name + "_ms"), -1)

    def test_guards(self):
        for late in self.LATE:
            with self.table.acquire("free", exec_timeout=LONG) as guard:
                guard.extend(late)
                self.assertLessEqual(guard.remaining, LONG)
                guard.sleep(late)
                in_thread(lambda: guard.sleep(late)).join()
        with self.table.acquire("free", exec_timeout=LONG) as guard:
            guard.extend(math.inf)
            self.assertIsNone(guard.remaining)

    def test_a_sleep_takes_its_time(self):
        with self.table.acquire("free", exec_timeout=0.3) as guard:
            started = time.monotonic()
            guard.sleep(0.12)
            self.assertGreaterEqual(time.monotonic() - started, 0.118)
            self.assertRaises(etslock.ExecTimeout, guard.sleep, None)
            self.assertRaises(etslock.ExecTimeout, guard.sleep, 0)
            guard.cancel()

    def test_what_is_no_time(self):
        for call in (
            lambda time: self.table.acquire("key", wait_timeout=time),
            lambda time: self.table.with_lock("key", idle, exec_timeout=time),
            lambda time: self.table.with_lock("key", idle, fail_timeout=time),
            lambda time: self.table.with_lock("key", idle, spin_delay=time),
            self.held.extend,
            self.held.sleep,
        ):
            self.assertRaises(ValueError, call, math.nan)
            for huge in (2**63, 1e16, 1e308, 10**400):
                self.assertRaises(OverflowError, call, huge)
            for wrong in ("1", b"1", [1], 1j, object()):
                self.assertRaises(TypeError, call, wrong)
        self.table.acquire("key", wait_timeout=9e15, exec_timeout=9e15).release()


class Arguments(unittest.TestCase):
    """What is of another type or size is refused, not turned into something else."""

    def setUp(self):
        self.table = etslock.Table()

    def test_keys_and_values(self):
        table, guard = self.table, self.table.acquire("key")
        table.insert("key", "value")
        calls = (
            lambda it: table.insert(it, "value"), lambda it: table.insert("key", it),
            lambda it: table.insert_new(it, "value"), lambda it: table.insert_new("new", it),
            lambda it: table.delete_tuple(it, "value"), lambda it: table.delete_tuple("key", it),
            table.lookup, table.take, table.delete, table.update_counter, table.__contains__,
            lambda it: table.with_lock(it, idle), lambda it: table.with_locks([it], idle),
            table.acquire, lambda it: table.acquire_locks(["key", it]),
            lambda it: guard.insert(it, "value"), lambda it: guard.insert("key", it),
            lambda it: guard.delete_tuple(it, "value"), lambda it: guard.delete_tuple("key", it),
            guard.lookup, guard.delete,
        )
        for call in calls:
            for wrong in (3, 0, -1, True, 1.5, None, [1, 2], (b"a",), {}, object(), range(3)):
                self.assertRaises(TypeError, call, wrong)
        for one_key in ("ab", b"ab", bytearray(b"ab"), memoryview(b"ab"), 7, None):
            self.assertRaises(TypeError, table.acquire_locks, one_key)
            self.assertRaises(TypeError, table.with_locks, one_key, idle)
        guard.release()
        self.assertEqual(list(table), [(b"key", b"value")])
        for key in (b"k", bytearray(b"k"), memoryview(b"k"), memoryview(b"_k_")[1:2], "k"):
            table.insert(key, memoryview(bytearray(b"a-b-"))[::2])
            self.assertEqual(table.take(key), [b"ab"])
        self.assertRaises(UnicodeEncodeError, table.insert, "\ud800", "value")

    def test_numbers(self):
        table = self.table
        for wrong in (1.0, 1.9, "1", None, b"1"):
            self.assertRaises(TypeError, table.acquire, "key", owner=wrong)
            self.assertRaises(TypeError, table.update_counter, "n", wrong)
            self.assertRaises(TypeError, table.update_counter, "n", 1, wrong)
        for huge in (-1, 2**64, 2**64 + 5, -(2**70)):
            self.assertRaises(OverflowError, table.acquire, "key", owner=huge)
        for huge in (2**63, -(2**63) - 1, 2**64, 2**64 + 1):
            self.assertRaises(OverflowError, table.update_counter, "n", huge)
            self.assertRaises(OverflowError, table.update_counter, "n", 0, huge)
        self.assertNotIn("n", table)
        self.assertEqual(table.update_counter("n", 0, 2**63 - 1), 2**63 - 1)
        self.assertRaises(etslock.Invalid, table.update_counter, "n", 1)
        self.assertEqual(table.update_counter("m", 0, -(2**63)), -(2**63))
        table.acquire("key", owner=etslock.OWNER_NONE).release()

    def test_names(self):
        for make in (lambda name: etslock.Table(name=name), etslock.Table.open):
            for wrong in (b"name", 7, ["name"]):
                self.assertRaises(TypeError, make, wrong)
            self.assertRaises(ValueError, make, "cut\0here")
            self.assertRaises(etslock.Invalid, make, "")
        self.assertRaises(etslock.NotFound, etslock.Table.open, "cut")


class Declarations(unittest.TestCase):
    """What this file tells ctypes is what the header says: ctypes checks nothing."""

    def setUp(self):
        header = pathlib.Path(__file__).resolve().parent / "../../include/etslock.h"
        self.header = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)

    @staticmethod
    def same(declared, c_type):
        """Whether a ctypes type stands for a C type."""
        c_type = " ".join(c_type.replace("const", "").split())
        kinds = {"int32_t": ctypes.c_int32, "etslock_status": ctypes.c_int32,
                 "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
                 "uint32_t": ctypes.c_uint32, "size_t": ctypes.c_size_t, "void": None}
        if c_type in kinds:
            return declared is kinds[c_type]
        if c_type.endswith("**"):
            return declared is ctypes.POINTER(ctypes.c_void_p)
        if c_type == "char *":
            return declared is ctypes.c_char_p
        if c_type == "etslock_callback":
            return declared is etslock._Callback
        numbers = {"int64_t *": ctypes.c_int64, "size_t *": ctypes.c_size_t}
        structs = {"etslock_table_options *": etslock._TableOptions, "etslock_key *": etslock._Key,
                   "etslock_options *": etslock._Options, "etslock_tuple *": etslock._Tuple,
                   "etslock_stats *": etslock._Stats}
        pointed = {**numbers, **structs}.get(c_type)
        if pointed is not None:
            return declared is ctypes.POINTER(pointed)
        return c_type.endswith("*") and declared in (ctypes.c_void_p, ctypes.c_char_p)

    def test_functions(self):
        found = re.findall(
            r"^((?:const )?\w+ \**)\s*(etslock_\w+)\(([^)]*)\);", self.header, flags=re.MULTILINE
        )
        declared = {name: f for name, f in vars(etslock._c).items() if name.startswith("etslock_")}
        self.assertGreater(len(declared), 30)
        for returned, name, arguments in found:
            function = declared.pop(name, None)
            if function is None:
                continue
            types = [re.sub(r"\w+$", "", one.strip()) for one in arguments.split(",")]
            types = [] if arguments.strip() == "void" else types
            self.assertEqual(len(function.argtypes or ()), len(types), name)
            for one, c_type in zip(function.argtypes or (), types):
                self.assertTrue(self.same(one, c_type), f"{name}: {one} for {c_type}")
            self.assertTrue(self.same(function.restype, returned.strip()), name)
        self.assertEqual(declared, {})

    def test_structs(self):
        for name, struct in (
            ("table_options", etslock._TableOptions), ("options", etslock._Options),
            ("tuple", etslock._Tuple), ("key", etslock._Key), ("stats", etslock._Stats),
        ):
            body = re.search(r"typedef struct \{([^}]*)\} etslock_%s;" % name, self.header).group(1)
            # A function pointer is a pointer; a field appended later is not our business.
            body = re.sub(r"void \(\*(\w+)\)\([^)]*\)", r"void *\1", body)
            fields = [line.strip() for line in body.split(";") if line.strip()]
            self.assertGreaterEqual(len(fields), len(struct._fields_))
            for (declared, kind), field in zip(struct._fields_, fields):
                c_type, c_name = re.fullmatch(r"(.*?)(\w+)", field, re.DOTALL).groups()
                self.assertEqual(declared, c_name)
                c_type = re.sub(r"uint8_t \*", "void *", c_type.strip())
                self.assertTrue(self.same(kind, c_type), f"{name}.{declared}: {kind}, {c_type}")


class TooLong(Exception):
    """What the handlers of these tests raise."""


class Interruptions(unittest.TestCase):
    """A handler's exception comes out at once, and nothing is left behind."""

    def setUp(self):
        self.table = etslock.Table()

        def handler(number, frame):
            raise TooLong

        for number in (signal.SIGALRM, signal.SIGINT):
            before = signal.signal(number, handler)
            self.addCleanup(signal.signal, number, before)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)

    def assert_nothing_left(self):
        gc.collect()
        deadline = time.monotonic() + LONG
        while any(self.left()) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertEqual(self.left(), (0, 0, 0, 0))

    @staticmethod
    def left():
        stats = etslock.stats()
        return stats["held"], stats["waiting"], stats["abandoned"], len(etslock._calls)

    def interrupted(self, call, number=signal.SIGALRM):
        """Whether a signal to the process ends `call` in time."""
        main, begun = threading.main_thread(), threading.Event()

        def interrupt():
            begun.wait(LONG)
            # Into the middle of the wait, or before it: the exception has to come out either way.
            time.sleep(0.05)
            self.sent = time.monotonic()
            os.kill(os.getpid(), number)

        self.assertIs(threading.current_thread(), main)
        sender = in_thread(interrupt)
        with self.assertRaises(TooLong):
            begun.set()
            call()
            time.sleep(LONG)
        took = time.monotonic() - self.sent
        sender.join()
        self.assertLess(took, 0.2 if os.environ.get("ETSLOCK_TEST_SCALE") != "small" else LONG)

    def test_waits(self):
        """Ctrl-C, or any handler that raises, ends each kind of wait."""
        held = self.table.acquire("held", exec_timeout=None, owner=1)
        given = {"wait_timeout": 3}
        for number in (signal.SIGALRM, signal.SIGINT):
            for call in (
                lambda: self.table.acquire("held", **given),
                lambda: self.table.acquire_locks(["a", "held"], **given),
                lambda: self.table.with_lock("held", idle, **given),
                lambda: self.table.with_locks(["held", "b"], idle, **given),
                lambda: self.table.with_lock("held", idle, run_on=etslock.RunOn.CALLER, **given),
                lambda: self.table.with_lock("free", lambda g, v: g.sleep(3), exec_timeout=4),
                lambda: self.table.with_lock(
                    "other", lambda g, v: time.sleep(3), run_on=etslock.RunOn.CALLER
                ),
            ):
                self.interrupted(call, number)
            guard = self.table.acquire("mine", exec_timeout=None)
            self.interrupted(lambda: guard.sleep(3), number)
            self.interrupted(lambda: guard.sleep(None), number)
            guard.release()
        held.release()
        self.assert_nothing_left()

    def test_a_lock_that_comes_too_late_is_given_back(self):
        """What nobody waits for any more is released when it is granted."""
        for run_on in (None, *etslock.RunOn):
            held = self.table.acquire("key", exec_timeout=None, owner=1)
            given = {"wait_timeout": None, "exec_timeout": None, "owner": 2}
            ran = []
            if run_on is None:
                wait = lambda: self.table.acquire("key", **given)  # noqa: E731
            else:
                wait = lambda: self.table.with_lock(  # noqa: E731
                    "key", lambda g, v: ran.append(g), run_on=run_on, **given
                )
            self.interrupted(wait)
            held.release()
            self.table.acquire("key", owner=3, wait_timeout=LONG).release()
            self.assertEqual(ran, [])
            self.assert_nothing_left()

    def test_a_handler_that_returns_changes_nothing(self):
        ran = []
        signal.signal(signal.SIGALRM, lambda number, frame: ran.append(number))
        held = self.table.acquire("key", exec_timeout=None, owner=1)
        threading.Timer(0.1, held.release).start()
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        self.table.acquire("key", wait_timeout=LONG, owner=2).release()
        self.assertEqual(self.table.with_lock("key", lambda g, v: g.sleep(0.1) or 7), 7)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.assertGreater(len(ran), 2)

    def test_a_handler_may_call(self):
        """A handler that itself makes calls, in the middle of one."""
        other = etslock.Table()
        keys = iter(range(10**6))

        def handler(number, frame):
            # A key of its own: one that a handler interrupts holds its key, which is a deadlock.
            other.with_lock(str(next(keys)), lambda g, v: other.update_counter("hits"))

        signal.signal(signal.SIGALRM, handler)
        held = self.table.acquire("key", exec_timeout=None, owner=1)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        self.assertRaises(
            etslock.WaitTimeout, self.table.acquire, "key", wait_timeout=0.2, owner=2
        )
        for _ in range(100):
            self.table.with_lock("free", idle)
        signal.setitimer(signal.ITIMER_REAL, 0)
        held.release()
        self.assertGreater(other.update_counter("hits", 0), 0)

    def test_a_running_function_publishes_nothing_more(self):
        running, may_end = threading.Event(), threading.Event()

        def function(guard, values):
            guard.insert("key", "before")
            running.set()
            may_end.wait(LONG)
            guard.insert("key", "after")

        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        sender = in_thread(lambda: running.wait(LONG) and os.kill(os.getpid(), signal.SIGINT))
        with self.assertRaises(TooLong):
            self.table.with_lock("key", function, exec_timeout=None)
        sender.join()
        may_end.set()
        self.assert_nothing_left()
        self.assertNotIn("key", self.table)

    def test_deadlocks_of_the_main_thread_are_found(self):
        """C-13: also where its calls are made for it."""
        with self.table.acquire("key"):
            for call in (self.table.acquire, lambda key: self.table.acquire_locks(["x", key]),
                         lambda key: self.table.with_lock(key, idle),
                         lambda key: self.table.with_lock(key, idle, run_on=etslock.RunOn.CALLER)):
                self.assertRaises(etslock.Deadlock, call, "key")
        for where in etslock.RunOn:
            with self.assertRaises(etslock.Deadlock):
                self.table.with_lock("a", lambda g, v: self.table.acquire("a"), run_on=where)
            with self.assertRaises(etslock.Deadlock), self.table.acquire("b"):
                self.table.with_lock("a", lambda g, v: self.table.acquire("b"), run_on=where)
        self.assert_nothing_left()

    def test_a_storm(self):
        """Exceptions out of every step of every call."""
        inside = etslock.__file__

        def handler(number, frame):
            while frame is not None:
                if frame.f_code.co_filename == inside:
                    raise TooLong
                frame = frame.f_back

        def with_acquire():
            with self.table.acquire("key", wait_timeout=LONG) as guard:
                guard.insert("key", "value")
                guard.lookup("key")

        other = in_thread(lambda: [self.table.with_lock("key", idle) for _ in range(300)])
        calls = [
            with_acquire,
            lambda: self.table.with_lock("key", idle, wait_timeout=LONG),
            lambda: self.table.with_lock("key", idle, run_on=etslock.RunOn.CALLER),
            lambda: self.table.with_locks(["key", "b"], idle),
            lambda: self.table.acquire_locks(["b", "key"]).cancel(),
            lambda: list(self.table),
            lambda: etslock.Table(name="storm").close(),
            lambda: self.table.take("key"),
        ]
        threads = _thread._count()
        signal.signal(signal.SIGALRM, handler)
        raised = 0
        deadline = time.monotonic() + 3
        step = 0
        while time.monotonic() < deadline:
            step += 1
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + (step * 7919 % 400) * 1e-6)
            try:
                calls[step % len(calls)]()
            except TooLong:
                raised += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        other.join()
        self.assertGreater(raised, 100)
        self.assert_nothing_left()
        etslock.Table(name="storm").close()  # no handle of it is left
        deadline = time.monotonic() + LONG
        while _thread._count() > threads and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertLessEqual(_thread._count(), threads)  # no helper is left


class Forking(unittest.TestCase):
    def test_a_block_ends_quietly_in_the_child(self):
        """C-16: the child holds nothing, and need not know."""
        program = f"""if True:
            import os, sys
            sys.path.insert(0, {str(pathlib.Path(__file__).resolve().parent)!r})
            import etslock
            table = etslock.Table()
            def nested(guard, values):
                with table.acquire("inner") as inner:
                    inner.insert("inner", "parent")
            with etslock.Table() as shared, table.acquire("key") as guard:
                guard.insert("key", "parent")
                pid = os.fork()
            if pid == 0:
                # Its own tables and locks work.
                try:
                    table.lookup("key")
                except etslock.Forked:
                    own = etslock.Table()
                    own.with_lock("key", lambda guard, values: guard.insert("key", "child"))
                    with own.acquire("key", wait_timeout=0) as guard:
                        print(guard.lookup("key"), flush=True)
                os._exit(0)
            print(os.waitpid(pid, 0)[1], table.lookup("key"), flush=True)
            with table.acquire("key", wait_timeout=0):
                pass
        """
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LONG,
        )
        expected = b"[b'child']\n0 [b'parent']\n"
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, expected, b""))


class Memory(unittest.TestCase):
    def test_what_is_dropped_is_freed(self):
        """Tables, guards, cursors and their snapshots, whichever way they go."""
        table = etslock.Table(name="test_memory")
        for number in range(10):
            table.insert(str(number), "value")
        iterator = iter(table)
        next(iterator)
        guard = table.acquire("key", exec_timeout=None)
        failing = [
            lambda: table.acquire("key", wait_timeout=0, owner=1),
            lambda: etslock.Table(name="test_memory"),
            lambda: etslock.Table.open("absent"),
        ]
        for call in failing:
            self.assertRaises(etslock.Error, call)
        del iterator, guard, table, failing, call
        gc.collect()
        self.assertEqual(etslock.stats()["held"], 0)
        self.assertRaises(etslock.NotFound, etslock.Table.open, "test_memory")

    def test_each_handle_is_ended_once(self):
        table = etslock.Table()
        guard = table.acquire("key")
        self.assertEqual(sorted(
            type(in_thread(end).join()).__name__ for end in [guard.release] * 3 + [guard.cancel]
        ), ["NoneType"] + ["NullPointer"] * 3)
        del guard
        table.close()
        table.close()
        del table
        gc.collect()


class Exiting(unittest.TestCase):
    def exit_with(self, function):
        """Runs a program that ends while an abandoned `function` is still running."""
        program = f"""if True:
            import builtins, sys, time
            sys.path.insert(0, {str(pathlib.Path(__file__).resolve().parent)!r})
            import etslock

            class Slow:
                def __del__(self):
                    time.sleep(0.2)

            builtins.slow = Slow()  # the interpreter takes its time to go away
            table = etslock.Table()
            try:
                table.with_lock("key", {function}, exec_timeout=0.05)
            except etslock.ExecTimeout:
                print("timeout", flush=True)
        """
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LONG,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"timeout\n", b""))

    def test_asleep(self):
        """C-16: a function that sleeps beyond the exit."""
        self.exit_with("lambda guard, values: time.sleep(60)")

    def test_awake(self):
        """C-16: one that comes back to the interpreter again and again while it goes away."""
        self.exit_with("lambda guard, values: [time.sleep(0.001) for _ in range(60000)]")


if __name__ == "__main__":
    unittest.main()
