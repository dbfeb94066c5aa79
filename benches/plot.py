"""The plots, as SVG written by hand: bars and lines on a logarithmic scale."""

import math
from xml.sax.saxutils import escape

import rows

WIDTH = 860
INK, FAINT, GRID = "#1f2328", "#656d76", "#d8dee4"
OURS = ["#0550ae", "#2f81f7", "#79b8ff", "#a371f7"]
PEERS = ["#9a6700", "#bc4c00", "#57606a", "#1a7f37", "#8c959f", "#bf3989", "#6e7781"]


class Drawing:
    def __init__(self, height, title, note):
        self.height = height
        self.parts = []
        self.text(16, 28, title, size=17, weight="bold")
        self.text(16, 48, note, size=12, color=FAINT)

    def text(self, x, y, words, size=12, color=INK, anchor="start", weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" '
                          f'text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>')

    def rect(self, x, y, width, height, color):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" '
                          f'height="{height:.1f}" fill="{color}"/>')

    def line(self, points, color, width=1.0):
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{joined}" fill="none" stroke="{color}" '
                          f'stroke-width="{width}"/>')

    def dot(self, x, y, color):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>')

    def save(self, path):
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
            f'width="{WIDTH}" height="{self.height}" font-family="sans-serif">\n'
            f'<rect width="{WIDTH}" height="{self.height}" fill="#ffffff"/>\n'
            + "\n".join(self.parts) + "\n</svg>\n", encoding="utf-8")


def is_ours(label):
    return label.startswith("etslock")


def decades(values):
    low = math.floor(math.log10(min(values)) + 1e-9)
    return low, max(low + 1, math.ceil(math.log10(max(values)) - 1e-9))


def bars(path, title, note, panels, unit):
    """`panels`: (heading, [(label, value)]); one scale for all, so that they can be compared."""
    panels = [(heading, sorted([bar for bar in found if bar[1] and bar[1] > 0], key=lambda b: b[1]))
              for heading, found in panels]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return
    low, high = decades([value for _, found in panels for _, value in found])
    left, right, row = 225, 110, 20
    height = 70 + sum(34 + row * len(found) for _, found in panels) + 34
    drawing = Drawing(height, title, note)
    place = lambda value: left + (WIDTH - left - right) * (math.log10(value) - low) / (high - low)
    y = 70
    for power in range(low, high + 1):
        x = place(10.0 ** power)
        drawing.line([(x, y), (x, height - 34)], GRID)
        drawing.text(x, height - 16, f"{rows.number(10.0 ** power)} {unit}", 11, FAINT, "middle")
    for heading, found in panels:
        drawing.text(16, y + 14, heading, 13, weight="bold")
        y += 24
        for label, value in found:
            mine = is_ours(label)
            drawing.text(left - 8, y + 13, label, 12, INK if mine else FAINT, "end",
                         "bold" if mine else "normal")
            drawing.rect(left, y + 2, place(value) - left, row - 5, OURS[0] if mine else "#afb8c1")
            drawing.text(max(place(value), left + 1) + 6, y + 13, f"{rows.number(value)} {unit}")
            y += row
        y += 10
    drawing.save(path)


def apart(wanted, gap):
    """Moves labels so that they do not lie on each other; keeps their order."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    moved = list(wanted)
    for before, after in zip(order, order[1:]):
        moved[after] = max(moved[after], moved[before] + gap)
    return moved


def lines(path, title, note, panels, unit, axis):
    """`panels`: (heading, [x names], [(label, [value by x])]), side by side."""
    panels = [(heading, names, [s for s in series if any(s[1])]) for heading, names, series in panels]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return
    values = [v for _, _, series in panels for _, all_values in series for v in all_values if v]
    low, high = decades(values)
    top, bottom, left, names_width = 96, 420, 62, 150
    width = (WIDTH - left - 10) / len(panels)
    drawing = Drawing(470, title, note)
    place_y = lambda value: bottom - (bottom - top) * (math.log10(value) - low) / (high - low)
    for at, (heading, names, series) in enumerate(panels):
        x0, x1 = left + at * width, left + (at + 1) * width - names_width
        drawing.text(x0, top - 14, heading, 13, weight="bold")
        for power in range(low, high + 1):
            y = place_y(10.0 ** power)
            drawing.line([(x0, y), (x1, y)], GRID)
            if at == 0:
                drawing.text(x0 - 6, y + 4, f"{rows.number(10.0 ** power)}", 11, FAINT, "end")
        place_x = lambda i: x0 + 8 + (x1 - x0 - 16) * i / max(1, len(names) - 1)
        for i, name in enumerate(names):
            drawing.text(place_x(i), bottom + 18, name, 11, FAINT, "middle")
        drawing.text((x0 + x1) / 2, bottom + 36, axis, 11, FAINT, "middle")
        ends, ours, peers = [], iter(OURS * 4), iter(PEERS * 4)
        for label, all_values in series:
            color = next(ours) if is_ours(label) else next(peers)
            points = [(place_x(i), place_y(v)) for i, v in enumerate(all_values) if v]
            drawing.line(points, color, 3 if is_ours(label) else 1.5)
            for x, y in points:
                drawing.dot(x, y, color)
            ends.append((points[-1], label, color))
        for (point, label, color), y in zip(ends, apart([end[0][1] for end in ends], 14)):
            drawing.line([(point[0] + 4, point[1]), (x1 + 4, y)], color, 0.6)
            drawing.text(x1 + 8, y + 4, label, 11, color, weight="bold" if is_ours(label) else "normal")
    drawing.text(16, top - 14, unit, 11, FAINT)
    drawing.save(path)


MAPS = ["lockable", "tbb", "striped", "libcuckoo", "dashmap", "scc", "flurry"]
PERCENTS = ["1", "5", "10", "25", "50", "75", "90", "95", "99", "99.9"]


def write_all(m, folder):
    ways = ["etslock caller", "etslock caller, no deadline", "etslock guards",
            "etslock guards, no deadline", "etslock worker"]
    cost = lambda workload, labels: [(label, m.median(label, workload, "ns")) for label in labels]
    bars(folder / "cost.svg", "Cost per call, one thread",
         "Read, add 1, write, with the key locked. Shorter is better; each grid line is ten times more.",
         [("One key", cost("one:1", ways + MAPS + ["pool", "async"])),
          ("Keys at random", cost("uniform:1", ways + MAPS))], "ns")

    def by_threads(label, name, counts):
        found = [m.median(label, f"{name}:{threads}", "rate") for threads in counts]
        return label, found

    ours = ["etslock caller", "etslock guards"]
    lines(folder / "throughput.svg", "Throughput by threads",
          "Calls a second of all threads together. Higher is better; each grid line is ten times more.",
          [("Keys at random", ["1", "2", "8"],
            [by_threads(label, "uniform", (1, 2, 8)) for label in ours + MAPS]),
           ("One hot key", ["1", "2", "8", "64"],
            [by_threads(label, "one", (1, 2, 8, 64)) for label in ours + MAPS])], "calls/s", "threads")

    fair = lambda workload, labels: [(label, m.median(label, workload, "max_min")) for label in labels]
    bars(folder / "fairness.svg", "Fairness on one hot key",
         "Calls of the luckiest thread for each call of the unluckiest. 1 is fair; shorter is better.",
         [("8 threads, empty section", fair("one:8", ours + MAPS)),
          ("64 threads, empty section", fair("one:64", ours + MAPS)),
          ("8 threads, held 1 ms", fair("held:8", ours + ["etslock polling", "striped", "lockable"]))],
         "x")

    def spread(label, workload):
        found = [m.median(label, workload, f"p{percent}") for percent in PERCENTS]
        return label, [value / 1e3 if value else None for value in found]

    callers = ["etslock worker", "pool", "async"]
    lines(folder / "latency.svg", "Latency distribution",
          "Microseconds that this share of calls stays below. Lower is better; each grid line is ten "
          "times more.",
          [("Time-limited calls, back to back", ["1", "5", "10", "25", "50", "75", "90", "95", "99", "99.9"],
            [spread(label, "calls-back-to-back") for label in callers]),
           ("Release to acquired", PERCENTS,
            [spread(label, "wake") for label in ("etslock fair", "etslock fifo", "etslock polling",
                                                 "std::mutex")])], "us", "percent of calls")

    memory = lambda workload, labels, metric: [(said, m.median(label, work or workload, metric))
                                               for label, said, work in labels]
    plain = lambda *labels: [(label, label, None) for label in labels]
    bars(folder / "memory.svg", "Memory",
         "Bytes for keys and values of 8 bytes each. Shorter is better; each grid line is ten times more.",
         [("A held lock (heap)", memory("held-locks", plain("etslock", "lockable", "tbb"), "heap")),
          ("A tuple (heap)", memory("tuples", plain("etslock", "lockable", "flurry") +
                                    [("flurry", "flurry, boxed bytes", "boxed-tuples")], "heap")),
          ("A tuple (resident)", memory("tuples", plain("etslock", "tbb", "lockable", "flurry"),
                                        "resident"))], "bytes")
