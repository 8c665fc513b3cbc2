"""Compare this framework with its peers, in one run: python tests/benchmarks/compare.py --quick.

Each contender is a process of its own, and only one works at a time: see workers.py. Each round
times every contender of a case once, in a new random order, so that what else the machine does hits
all alike. Before that all of them train the same network, without dropout, for some steps from the
same weights, and must get the same loss. Imports and memory are measured in new processes.

On two idle cores a run takes about 6 minutes, with --quick 3. Other work slows it: at a load of 7,
--quick took 6. Progress goes to stderr. To run it on one core: taskset -c 0.
Peers are optional: pip install -e '.[bench]'.
"""

import argparse
import contextlib
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from networks import CASES, images
from peers import BEFORE, CONTENDERS, OURS, OWN, version
from tables import MEASURES, machine, print_report
from workers import Worker, busy_neighbours, choose_pieces, import_from, prepare, timing

ROUNDS, ROUNDS_IF_QUICK = 15, 3
ENOUGH, ENOUGH_IF_QUICK = 30.0, 6.0  # seconds after which a case has no more rounds
MIN_ROUNDS = 2
TOLERANCE = 1e-4  # of equal pixels in a pool, rounding decides which is the largest
ORDER = random.Random(1)
IMPORTS = {  # what is imported: the distributions that it needs
    OURS: (OURS,),
    "numpy, scipy.linalg.blas, threadpoolctl": ("numpy", "scipy", "threadpoolctl"),
    "torch": ("torch",),
    "jax": ("jax",),
    "keras": ("keras", "jax"),
    "sklearn.neural_network": ("scikit-learn",),
}
MEMORY_CASE, DATA_ALONE = CASES["batch-100"], "(NumPy and the data)"
NAMES = [*CASES, "import", "memory"]


def main():
    args = parse_arguments()
    with busy_neighbours(args.busy):
        report = measure(args)
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write every number there too")
    add("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}, or {ROUNDS_IF_QUICK} if quick")
    add("--quick", action="store_true", help="fewer rounds, and no imports and memory of the peers")
    add("--cases", nargs="+", choices=NAMES, default=NAMES, metavar="CASE", help=", ".join(NAMES))
    busy = "beside N processes that are always busy: rows of several threads then mean little"
    add("--busy", type=int, default=0, metavar="N", help=busy)
    add("--before", metavar="FOLDER", help="another checkout of this framework takes part too")
    args = parser.parse_args()
    if version(OURS) is None:
        parser.error("expected this framework to be installed: pip install -e .")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: expected at least 1")
    return args


def measure(args):
    """Return everything that is printed and written."""
    rounds = args.rounds or (ROUNDS_IF_QUICK if args.quick else ROUNDS)
    report = {"machine": machine(), "quick": args.quick, "busy": args.busy}
    report |= {"rounds": {}, "same network": {}}
    workers, rows = started(args), []
    for name in args.cases:
        print(f"... {name}", file=sys.stderr, flush=True)
        if name == "import":
            rows += import_times(min(rounds, 5), peers=not args.quick)
        elif name == "memory":
            rows += memory_peaks(peers=not args.quick)
        else:
            case = CASES[name]
            keys = {*case.keys, BEFORE} & workers.keys()
            taking_part = {c: workers[key] for key, c in CONTENDERS.items() if key in keys}
            enough = ENOUGH_IF_QUICK if args.quick else ENOUGH
            report["same network"][name] = same_network(case, taking_part)
            times = interleaved(taking_part, rounds, enough)
            report["rounds"][name] = len(times[CONTENDERS["ours"]])
            rows += timings(name, case, times)
    for worker in workers.values():
        worker.stop()
    return report | {"results": [with_ratios(row, rows) for row in rows]}


def started(args):
    """Return a worker for each contender that is installed and takes part in a case."""
    keys = {key for name in args.cases if name in CASES for key in CASES[name].keys}
    taking_part = {key: c for key, c in CONTENDERS.items() if key in keys and c.installed}
    workers = {key: Worker(c.environment) for key, c in taking_part.items()}
    if args.before:
        workers[BEFORE] = Worker({})
        workers[BEFORE](import_from, args.before)
    return workers


# Training and inference


def same_network(case, workers):
    """Return each contender's loss after some steps, or exit if one differs."""
    answers = {c: worker.submit(prepare, c, case) for c, worker in workers.items()}
    losses = {c.label: answer.result() for c, answer in answers.items()}
    losses = {label: loss for label, loss in losses.items() if loss is not None}
    expected = statistics.median_low(losses.values())
    for label, loss in losses.items():
        if not abs(loss - expected) <= TOLERANCE * abs(expected):
            sys.exit(f"compare: {case.title}: expected {label} to get {expected}, got {loss}")
    return losses


def interleaved(workers, rounds, enough):
    """Return what `timing` says of each contender, in each round.

    There are fewer rounds once they have taken `enough` seconds: with other processes on all
    cores, threads that wait for each other take a hundred times as long.
    """
    for worker in workers.values():
        worker(choose_pieces)
    times = {contender: [] for contender in workers}
    start = time.perf_counter()
    for i in range(rounds):
        if i >= MIN_ROUNDS and time.perf_counter() - start > enough:
            break
        for contender in ORDER.sample(list(workers), len(workers)):
            times[contender].append(workers[contender](timing))
    return times


def timings(name, case, times):
    """Yield a row of the table for each contender."""
    title, per_unit = f"{case.title} [{case.unit}]", 1e6 if case.trains else 1e3
    for contender, rounds in times.items():
        pieces, cpu = zip(*rounds, strict=True)
        wall = np.concatenate(pieces)
        yield row(name, title, contender.label, wall * per_unit, np.array(cpu) * per_unit)


def row(case, title, contender, wall, cpu=()):
    return {
        "case": case,
        "title": title,
        "contender": contender,
        "min": float(min(wall)),
        "median": float(np.median(wall)),
        "CPU": float(min(cpu, default=0)),
        "values": [float(f"{value:.4g}") for value in wall],
        "CPU values": [float(f"{value:.4g}") for value in cpu],
    }


def with_ratios(row, rows):
    """Return the row with what ours, in float32, takes as a fraction of it."""
    ours = next(r for r in rows if r["case"] == row["case"] and r["contender"] == OURS)
    return row | {f"ours/it, {key}": row[key] and ours[key] / row[key] for key in MEASURES}


# Imports and memory


def import_times(rounds, peers):
    """Return the rows of `import`, in milliseconds without the start of Python itself."""
    names = [
        name
        for name, needs in IMPORTS.items()
        if all(map(version, needs)) and (peers or OWN.issuperset(needs))
    ]
    milliseconds = {name: [] for name in names}
    for i in range(rounds + 1):
        for name in ORDER.sample(names, len(names)):
            code = f"import time; s = time.perf_counter(); import {name}; e = time.perf_counter()"
            command = [sys.executable, "-c", f"{code}; print(e - s)"]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            if i > 0:  # the first round reads the files into memory
                milliseconds[name].append(float(run.stdout) * 1e3)
    return [row("import", "import [ms]", name, values) for name, values in milliseconds.items()]


def memory_peaks(peers):
    """Return the rows of peak memory."""
    contenders = [CONTENDERS[key] for key in MEMORY_CASE.keys]
    contenders = [c for c in contenders if c.installed and (peers or not c.is_peer)]
    contenders = [c for c in contenders if c.module != "floor" and not c.environment]
    peaks = {c.label: memory_of(c) for c in contenders} | {DATA_ALONE: memory_of(None)}
    title = f"memory, an epoch of {MEMORY_CASE.title} [MB]"
    return [row("memory", title, label, [peak]) for label, peak in peaks.items()]


def memory_of(contender):
    worker = Worker({})
    peak = worker(peak_memory, contender)
    worker.stop()
    return peak


def peak_memory(contender):
    """Run an epoch and return this process's largest resident memory so far, in MB."""
    if contender is None:
        images("train", np.dtype(np.float32))
    else:
        contender.step(MEMORY_CASE)(range(MEMORY_CASE.steps))
    with contextlib.suppress(OSError):
        # not ru_maxrss: on Linux it starts from the memory of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
