"""The rows B1 to B13: which figures are compared, with what bar, and the table made of them."""

import statistics
from dataclasses import dataclass, field

LESS, MORE = "<=", ">="


@dataclass
class Row:
    name: str
    what: str
    unit: str = ""
    ours: list = field(default_factory=list)  # by round
    peers: dict = field(default_factory=dict)  # name -> median
    ratio: list = field(default_factory=list)  # by round
    ratio_of: str = ""
    sense: str = LESS
    must: float = None
    aim: float = None
    less_is_better: bool = True
    again: bool = False  # figures that an earlier row has shown

    def verdict(self):
        if not self.ratio:
            return "not measured"
        value = statistics.median(self.ratio)
        reached = lambda bar: bar is not None and (
            value <= bar if self.sense == LESS else value >= bar)
        if self.must is not None and not reached(self.must):
            return "**missed**"
        if self.aim is not None:
            return "aim met" if reached(self.aim) else ("met" if self.must is not None
                                                        else "aim missed")
        return "met" if self.must is not None else ""

    def better_peers(self):
        """Peers that did better, and by what factor."""
        if not self.ours or self.again:
            return []
        ours = statistics.median(self.ours)
        factor = lambda peer: (ours / peer if self.less_is_better else peer / ours) if ours and peer else 0
        return [(name, factor(peer)) for name, peer in self.peers.items()
                if peer is not None and factor(peer) > 1.0]


def number(value):
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g} M"
    if size >= 1e4:
        return f"{value / 1e3:.3g} k"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def with_spread(values):
    """The median, and the extremes where rounds differ."""
    if not values:
        return "-"
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def judge(m):
    """All rows, from the figures of `m`."""
    table = []
    maps = ["lockable", "tbb", "striped", "libcuckoo", "dashmap", "scc", "flurry"]

    def compare(name, what, unit, ours, workload, metric, against, must=None, aim=None,
                sense=LESS, others=(), scale=1.0, combine=lambda a, b: a / b, ratio_of=None,
                against_workload=None, again=False):
        mine = m.of(ours, workload, metric)
        theirs = m.of(against, against_workload or workload, metric)
        rounds = sorted(set(mine) & set(theirs))
        peers = {peer: m.median(peer, workload, metric) for peer in others}
        if against not in peers:
            peers = {against: m.median(against, against_workload or workload, metric)} | peers
        peers = {peer: value * scale for peer, value in peers.items() if value is not None}
        table.append(Row(
            name, what, unit, [value * scale for value in mine.values()], peers,
            [combine(mine[r], theirs[r]) for r in rounds if theirs[r]],
            ratio_of or f"x {against}", sense, must, aim, sense == LESS, again))

    def alone(name, what, unit, values, must=None, aim=None, peers=None, ratio_of="", sense=LESS):
        values = list(values)
        table.append(Row(name, what, unit, values, peers or {}, values, ratio_of, sense, must, aim))

    caller, infinite = "etslock caller", "etslock caller, no deadline"
    compare("B1", "one thread, one key, on caller, finite deadlines", "ns", caller, "one:1", "ns",
            "lockable", 2.5, 1.5, others=maps)
    compare("B1", "one thread, one key, on caller, infinite deadlines", "ns", infinite, "one:1", "ns", "lockable", 1.7,
            1.0, others=maps)

    what = "one thread, keys at random, on caller"
    compare("B2", what, "ns", caller, "uniform:1", "ns", "lockable", 1.2, 1.0, others=maps)
    compare("B2", what, "ns", caller, "uniform:1", "ns", "flurry", 1.0, again=True)
    compare("B2", what, "ns", caller, "uniform:1", "ns", "tbb", None, 1.0, again=True)

    for threads in (2, 8):
        compare("B3", f"{threads} threads, keys at random, on caller", "calls/s", caller,
                f"uniform:{threads}", "rate", "lockable", 1.2, 3, MORE, others=maps)

    for threads in (2, 8, 64):
        for way in ("caller", "guards"):
            ours = f"etslock {way}"
            compare("B4", f"hot key, {threads} threads, by {way}", "calls/s", ours,
                    f"one:{threads}", "rate", "lockable", 25, 60, MORE, others=maps)
            if threads > 2:
                workload = f"one:{threads}"
                alone("B4", f"hot key, {threads} threads, by {way}: max/min", "",
                      m.of(ours, workload, "max_min").values(), *((1.5, 1.2) if threads == 8
                                                                  else (4, 2)),
                      peers={peer: m.median(peer, workload, "max_min") for peer in maps
                             if m.median(peer, workload, "max_min") is not None})

    for threads in (8, 64):
        workload, bars = f"held:{threads}", threads == 8
        one_bar = lambda bar: dict(must=bar if bars else None, aim=None if bars else bar)
        what = f"hot key held 1 ms, {threads} threads"
        compare("B5", what, "calls/s", caller, workload, "rate", "striped", sense=MORE,
                others=["striped", "lockable"], **one_bar(0.97))
        for metric, bar, said in (("max_min", 1.1, "max/min"), ("cpu", 0.06, "cores used")):
            alone("B5", f"{what}: {said}", "", m.of(caller, workload, metric).values(),
                  peers={peer: m.median(peer, workload, metric) for peer in ("striped", "lockable")
                         if m.median(peer, workload, metric) is not None}, **one_bar(bar))

    worker, pools = "etslock worker", ["pool", "async"]
    compare("B6", "worker call, 1 caller, back to back, p50", "us", worker, "calls-back-to-back",
            "p50", "pool", 1 / 20, 1 / 60, others=pools, scale=1e-3)
    compare("B6", "worker call, 1 caller, 100 us apart, p50", "us", worker, "calls-apart", "p50", "pool", 1.0,
            None, others=pools, scale=1e-3)
    compare("B6", "worker call, 1 caller, 100 us apart, p90", "us", worker, "calls-apart", "p90", "pool", None,
            None, others=pools, scale=1e-3)
    alone("B6", "idle after calls: cores used (0.001 is within what the measuring costs)", "",
          m.of(worker, "calls-apart", "idle_cpu").values(), 0.001,
          peers={"pool": m.median("pool", "calls-apart", "idle_cpu") or 0})

    compare("B7", "worker calls, 8 callers, distinct keys", "calls/s", worker, "distinct:8", "rate",
            "pool", 3, 8, MORE, others=pools)
    compare("B7", "worker calls, 8 callers, one hot key", "calls/s", worker, "one:8", "rate",
            "pool", 3, 8, MORE, others=pools)

    for peer in ("lockable", "scc"):
        compare("B8", "Zipf 0.99, 8 threads, on caller", "calls/s", caller, "zipf:8", "rate", peer,
                1, 2, MORE, others=maps if peer == "lockable" else (), again=peer != "lockable")

    compare("B9", "release to acquired, parked waiter, p50", "us", "etslock fair", "wake", "p50",
            "std::mutex", 1.3, 1.0, others=["std::mutex", "etslock fifo", "etslock polling"],
            scale=1e-3)

    for said, workload in (("wait", "timeout-wait"), ("exec", "timeout-exec")):
        compare("B10", f"{said} timeout of 50 ms: overshoot, median", "us", "etslock fair", workload,
                "p50", "condvar", 50, 50, scale=1e-3, against_workload="timeout-wait",
                combine=lambda a, b: (a - b) / 1e3, ratio_of="us more than condvar")

    heap = lambda label, workload: m.of(label, workload, "heap")
    alone("B11", "held lock: heap", "bytes", heap("etslock", "held-locks").values(), 200, 100,
          {"lockable": m.median("lockable", "held-locks", "heap"),
           "tbb (beside its row)": m.median("tbb", "held-locks", "heap")}, "bytes")
    compare("B11", "tuples of 8 + 8 bytes: heap", "bytes", "etslock", "tuples", "heap", "flurry",
            1.1, 1.0, others=["flurry", "lockable"], ratio_of="x flurry with 8 + 8 bytes inline")
    compare("B11", "tuples of 8 + 8 bytes: heap, flurry with boxed byte strings", "bytes", "etslock", "tuples", "heap",
            "flurry", None, None, against_workload="boxed-tuples", ratio_of="x flurry, boxed")
    alone("B11", "tuples of 8 + 8 bytes: resident", "bytes",
          m.of("etslock", "tuples", "resident").values(),
          peers={peer: m.median(peer, "tuples", "resident") for peer in ("tbb", "flurry", "lockable")
                 if m.median(peer, "tuples", "resident") is not None})
    for workload, said in (("fresh-keys", "cycles over fresh keys"),
                           ("big-values", "overwrites of one key with 1 MiB")):
        growth = {r: max(heap("etslock", workload).get(r, 0), resident) / 1024
                  for r, resident in m.of("etslock", workload, "resident").items()}
        alone("B11", f"growth after {said} (0 to within 256 KiB), heap or resident", "KiB",
              growth.values(), 256, None, ratio_of="KiB")

    few = m.of("etslock", "held:10-locks", "ns")
    for held in (1000, 100_000, 1_000_000):
        workload = f"held:{held}-locks"
        many = m.of("etslock", workload, "ns")
        caches = (m.median("etslock", workload, "caches") or 0) - (
            m.median("etslock", "held:10-locks", "caches") or 0)
        table.append(Row(
            "B12", f"a call while {held:,} locks are held, compared with 10 held (a random read of "
            f"as much memory costs {caches:.0f} ns more)", "ns", list(many.values()),
            {"10 held": m.median("etslock", "held:10-locks", "ns")},
            [many[r] / few[r] for r in many if r in few], "x 10 held", LESS, 2, 1.3))
    many, few = m.of("etslock", "waiters", "many"), m.of("etslock", "waiters", "few")
    table.append(Row(
        "B12", "release with 9,000 to 10,000 waiters on its key, compared with 1,000 and fewer, "
        "processor time", "ns", list(many.values()), {"few": m.median("etslock", "waiters", "few")},
        [many[r] / few[r] for r in many if few.get(r)], "x few", LESS, 2, 1.3))

    for ours, rust, said in ((caller, "etslock from Rust", "finite deadlines"),
                             (infinite, "etslock from Rust, no deadline", "infinite deadlines")):
        compare("B13", f"through the C boundary, {said}", "ns", ours, "one:1", "ns", rust, 10, None,
                combine=lambda a, b: a - b, ratio_of="ns more than from Rust")
    return table


def bar(row, value):
    if value is None:
        return ""
    small = f"1/{1 / value:.0f}" if 0.01 < value < 0.06 else f"{value:g}"
    return f"{row.sense} {small}"


def line(row):
    peers = ", ".join(f"{name} {number(value)}" for name, value in row.peers.items()
                      if value is not None)
    ratio = f"{number(statistics.median(row.ratio))}" if row.ratio else "-"
    spread = f" ({number(min(row.ratio))} to {number(max(row.ratio))})" if len(row.ratio) > 1 else ""
    cells = [row.name, row.what, f"{with_spread(row.ours)} {row.unit}".strip(), peers,
             f"{ratio}{spread} {row.ratio_of}".strip(), bar(row, row.must), bar(row, row.aim),
             row.verdict()]
    return "| " + " | ".join(cells) + " |"


def losses(table):
    """Missed bars and better peers, in words."""
    lines = []
    for row in table:
        missed = row.verdict() == "**missed**"
        better = sorted(row.better_peers(), key=lambda peer: -peer[1])
        if row.name in ("B12", "B13") and not missed:
            continue
        better = [] if row.name in ("B12", "B13") else better
        if not missed and not better:
            continue
        said = f"- {row.name}, {row.what}: "
        if missed:
            said += f"the bar of {bar(row, row.must)} is missed with " \
                    f"{number(statistics.median(row.ratio))} {row.ratio_of}".rstrip()
        if better:
            said += ("; " if missed else "") + "better: " + ", ".join(
                f"{name} by {number(factor)} x" for name, factor in better)
        lines.append(said + ".")
    return lines


def summary(table):
    count = lambda *verdicts: sum(row.verdict() in verdicts for row in table)
    missed = [f"  {row.name} {row.what}: {number(statistics.median(row.ratio))} {row.ratio_of}, "
              f"bar {bar(row, row.must)}" for row in table if row.verdict() == "**missed**"]
    return "\n".join([f"{count('met', 'aim met')} bars met, {len(missed)} missed, "
                      f"{count('not measured')} not measured"] + missed)


def report(table, failures, head, tail, quick):
    facts, size = head["facts"], head["size"]
    command = "make bench-quick" if quick else "make bench"
    out = ["# Benchmark results", "",
           f"Written by `{command}`; do not edit. Keys and values have 8 bytes; an operation reads the "
           "value, adds 1 and writes it back with the key locked.", ""]
    if quick:
        out += ["**Reduced size: for a first look.** `make bench` gives the figures that count.", ""]
    out += [f"- {name}: {value}" for name, value in facts.items()]
    out += [f"- load after: {tail['load_after']}",
            f"- size: {size['rounds']} rounds in {tail['seconds']:.0f} s; {size['keys']:,} keys where "
            f"they are random; {size['count']:,} tuples and {size['locks']:,} held locks for memory",
            "", "Figures are medians over the rounds, with the extremes in brackets; a ratio is taken "
            "within a round. Deadlines are the defaults (5 s) unless a row says otherwise; waits have "
            "no end. `striped` is 64 `std::mutex` with an `unordered_map` each, `pool` a C++ thread "
            "pool with `wait_for`, `async` is `std::async`, `flurry` its own compute.", "",
            "| | workload | etslock | peers | ratio | must | aim | |",
            "|---|---|---|---|---|---|---|---|"]
    out += [line(row) for row in table]
    out += ["", "## Where we lose", ""]
    out += losses(table) or ["Nowhere in this run."]
    if failures:
        out += ["", "## Programs that failed", ""] + [f"- {failure}" for failure in failures]
    out += ["", "## At a glance", ""]
    for name, text in (("cost", "Cost per call by mode"), ("throughput", "Throughput by threads"),
                       ("fairness", "Fairness"), ("latency", "Latency distribution"),
                       ("memory", "Memory")):
        out += [f"![{text}](plots/{name}.svg)", ""]
    return "\n".join(out)
