"""The Python module against the library. Run: python3 examples-ffi/python/test_etslock.py"""

import pathlib
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
        self.assertRaises(etslock.Invalid, self.table.with_lock, "key", idle, wait_timeout=-7)
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
