"""The report of compare.py: the machine it ran on, and one table."""

import contextlib
import os
import platform
import time
from pathlib import Path

import numpy as np
from peers import OURS, version

MEASURES = ("min", "median", "CPU")
NOTES = """
min, median: wall time. CPU: the least of all threads together, which other work changes less.
ours/it: what tinygrad_mnist takes, in float32, as a fraction of this row: below 1 it takes less.
1 thread: OMP_NUM_THREADS=1; the other rows are each library's own choice.
On a busy machine rows of several threads mean little: their threads wait for each other.
BLAS alone: the products of a step, in float32. scikit-learn has no dropout, and trains without.
The notebook's inference is image by image; the others' at once."""
LIBRARIES = (OURS, "numpy", "scipy", "torch", "jax", "keras", "scikit-learn")


def cores():
    """Return how many cores this process may use."""
    with contextlib.suppress(AttributeError):  # macOS has no affinity
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def machine():
    """Return what the run is on, before it starts."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": cpu_name(),
        "vectors": vectors(),
        "cores": cores(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def vectors():
    """Return the widest vectors that NumPy found, or those that it was built for."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]  # without what would be empty
    return (simd.get("found") or simd["baseline"])[-1]


def cpu_name():
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def print_report(report):
    for line in (*about_machine(report["machine"]), *about_run(report)):
        print(line)
    print()
    lines = [*table_rows(report["results"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        print("| " + " | ".join(left + right) + " |")
    print(NOTES)


def about_machine(machine):
    versions = machine["versions"].items()
    facts = [f"{key} {value}" for key, value in machine.items() if key != "versions"]
    yield ", ".join(facts)
    yield "versions: " + ", ".join(f"{name} {number}" for name, number in versions if number)
    yield "not installed: " + (", ".join(n for n, number in versions if not number) or "none")


def about_run(report):
    yield f"busy neighbours: {report['busy']}"
    yield "rounds: " + ", ".join(f"{case} {n}" for case, n in report["rounds"].items())
    spreads = [f"{case} {spread(losses):.0e}" for case, losses in report["same network"].items()]
    yield "same network, apart by: " + ", ".join(spreads)


def spread(losses):
    """Return how far the losses are apart, as a fraction of the largest."""
    return (max(losses.values()) - min(losses.values())) / abs(max(losses.values()))


def table_rows(results):
    first, *others = MEASURES
    yield "case", "contender", *MEASURES, f"ours/it, {first}", *others
    case = None
    for row in results:
        title = "" if row["case"] == case else row["title"]
        case = row["case"]
        numbers = [row[key] for key in (*MEASURES, *(f"ours/it, {key}" for key in MEASURES))]
        yield title, row["contender"], *map(three_digits, numbers)


def three_digits(number):
    if not number:
        return "-"
    decimals = 0 if number >= 100 else 1 if number >= 10 else 2 if number >= 0.1 else 3
    return f"{number:.{decimals}f}"
