#!/usr/bin/env python3
"""Runs the benchmark programs in turn, and writes RESULTS.md and plots/*.svg.

Every round runs every subject once, so that subjects alternate; a ratio is taken within a round,
and the median over the rounds counts. `--quick` writes to build/bench/quick instead, at reduced
size. `--again` runs nothing, and writes from the raw results of the last run.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import machine
import plot
import rows

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"

# rounds, and the sizes that the programs are given.
FULL = dict(rounds=5, ms=400, hot=500, held=1000, keys=1_000_000, crowd=4, calls=100_000,
            calls_ms=5000, apart=4000, wakes=300, timeouts=20, count=1_000_000, locks=100_000, cycles=1_000_000,
            values=2000, scale=200_000, most=1_000_000, waiters=10_000)
QUICK = dict(rounds=2, ms=100, hot=120, held=300, keys=100_000, crowd=4, calls=20_000,
             calls_ms=1000, apart=500, wakes=100, timeouts=6, count=200_000, locks=20_000, cycles=100_000,
             values=300, scale=30_000, most=1_000_000, waiters=10_000)


def jobs(size):
    """(label, program, arguments): one process each. Neighbours are compared with each other."""
    s = size
    maps = [("tbb", "peers_rates", "tbb"), ("libcuckoo", "peers_rates", "libcuckoo"),
            ("striped", "peers_rates", "striped"), ("lockable", "peers", "lockable"),
            ("dashmap", "peers", "dashmap"), ("scc", "peers", "scc"), ("flurry", "peers", "flurry")]
    ours = [("etslock caller", "etslock_rates", "caller"),
            ("etslock caller, no deadline", "etslock_rates", "caller-infinite"),
            ("etslock guards", "etslock_rates", "guards"),
            ("etslock guards, no deadline", "etslock_rates", "guards-infinite")]
    worker = ("etslock worker", "etslock_rates", "worker")
    polling = ("etslock polling", "etslock_rates", "caller-polling")
    pools = [("pool", "peers_rates", "pool"), ("async", "peers_rates", "async")]

    # B1 and B13
    for label, program, subject in ours + [
            ("etslock from Rust", "same-call", "caller"),
            ("etslock from Rust, no deadline", "same-call", "caller-infinite"),
            worker] + maps + pools:
        yield label, program, [subject, "one:1", f"ms={s['ms']}"]
    # B2, B3, B8
    for label, program, subject in [ours[0]] + maps:
        yield label, program, [subject, "uniform:1", "uniform:2", "uniform:8", "zipf:8",
                               f"ms={s['ms']}", f"keys={s['keys']}"]
    # B4
    for label, program, subject in [ours[0], ours[2]] + maps:
        yield label, program, [subject, "one:2", "one:8", "one:64", f"ms={s['hot']}",
                               f"crowd={s['crowd']}"]
    # B5
    for label, program, subject in [ours[0], ours[2], polling] + maps[2:4]:
        yield label, program, [subject, "held:8", "held:64", f"ms={s['held']}", "crowd=2"]
    # B6
    for label, program, subject in [worker] + pools:
        yield label, program, [subject, "calls-back-to-back", "calls-apart",
                               f"calls={s['calls']}", f"apart={s['apart']}",
                               f"calls_ms={s['calls_ms']}"]
    # B7
    for label, program, subject in [worker] + pools:
        yield label, program, [subject, "distinct:8", "one:8", f"ms={s['ms']}"]
    # B9, B10
    timing = [f"wakes={s['wakes']}", f"timeouts={s['timeouts']}"]
    yield "etslock fair", "etslock_waits", ["fair", "wake", "timeout-wait", "timeout-exec"] + timing
    yield "std::mutex", "peers_waits", ["mutex", "wake"] + timing
    yield "condvar", "peers_waits", ["condvar", "timeout-wait"] + timing
    yield "etslock fifo", "etslock_waits", ["fifo", "wake"] + timing
    yield "etslock polling", "etslock_waits", ["polling", "wake"] + timing
    # B12
    yield "etslock", "etslock_scale", ["etslock", "held", f"calls={s['scale']}", f"most={s['most']}"]
    yield "etslock", "etslock_scale", ["etslock", "waiters", f"waiters={s['waiters']}"]
    # B11: a process each, so that nothing reuses what another has left.
    for label, program, subject in [("etslock", "etslock_memory", "etslock"),
                                    ("tbb", "peers_memory", "tbb"),
                                    ("lockable", "peers", "lockable"), ("flurry", "peers", "flurry")]:
        yield label, program, [subject, "tuples", f"count={s['count']}"]
        if label != "flurry":
            yield label, program, [subject, "held-locks", f"count={s['locks']}"]
    yield "flurry", "peers", ["flurry", "boxed-tuples", f"count={s['count']}"]
    yield "etslock", "etslock_memory", ["etslock", "fresh-keys", f"count={s['cycles']}"]
    yield "etslock", "etslock_memory", ["etslock", "big-values", f"values={s['values']}"]


def run_one(command):
    """What a program printed, and why it failed, if it did."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return [], "not done after 120 s"
    failure = None if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"
    return [json.loads(line) for line in done.stdout.splitlines()], failure


def run_all(size, raw_path):
    began = time.monotonic()
    raw_path.parent.mkdir(parents=True, exist_ok=True)
    with open(raw_path, "w", encoding="utf-8") as raw:
        facts = machine.describe()
        raw.write(json.dumps(dict(facts=facts, size=size)) + "\n")
        for number in range(size["rounds"]):
            todo = list(jobs(size))
            for at, (label, program, arguments) in enumerate(todo):
                if sys.stderr.isatty():
                    print(f"\r\033[Kround {number + 1}/{size['rounds']}  {at + 1}/{len(todo)}  "
                          f"{label}: {' '.join(arguments[1:2])}", end="", file=sys.stderr)
                lines, failure = run_one([BUILD / program, *arguments])
                if failure:
                    print(f"\n{label}, {' '.join(arguments)}: {failure}", file=sys.stderr)
                    lines.append(dict(failed=f"{label}, {arguments[1]}: {failure}"))
                for line in lines:
                    raw.write(json.dumps(line | dict(label=label, round=number)) + "\n")
        seconds = time.monotonic() - began
        raw.write(json.dumps(dict(seconds=seconds, load_after=machine.load())) + "\n")


def read_raw(raw_path):
    lines = [json.loads(line) for line in raw_path.read_text(encoding="utf-8").splitlines()]
    return lines[0], lines[1:-1], lines[-1]


class Measured:
    """The figures of all rounds: `of(label, workload, metric)` is a dictionary by round."""

    def __init__(self, results):
        self.figures = {}
        self.failures = [result["failed"] for result in results if "failed" in result]
        for result in (result for result in results if "failed" not in result):
            workload = result["workload"]
            if workload == "held":
                workload += f":{result['held']}-locks"
            for metric, value in result.items():
                if isinstance(value, (int, float)):
                    place = self.figures.setdefault((result["label"], workload, metric), {})
                    place[result["round"]] = value

    def of(self, label, workload, metric):
        return self.figures.get((label, workload, metric), {})

    def median(self, label, workload, metric):
        values = self.of(label, workload, metric).values()
        return statistics.median(values) if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="reduced size, into build/bench/quick")
    parser.add_argument("--again", action="store_true", help="run nothing, use the last raw results")
    options = parser.parse_args()

    out = BUILD / "quick" if options.quick else HERE
    raw_path = BUILD / ("quick.jsonl" if options.quick else "full.jsonl")
    if not options.again:
        run_all(QUICK if options.quick else FULL, raw_path)
    head, results, tail = read_raw(raw_path)
    measured = Measured(results)
    table = rows.judge(measured)
    (out / "plots").mkdir(parents=True, exist_ok=True)
    plot.write_all(measured, out / "plots")
    (out / "RESULTS.md").write_text(rows.report(table, measured.failures, head, tail, options.quick), encoding="utf-8")
    print(rows.summary(table))
    print(f"{out / 'RESULTS.md'}: {tail['seconds']:.0f} s, {head['size']['rounds']} rounds")


if __name__ == "__main__":
    main()
