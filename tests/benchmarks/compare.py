"""Compare this framework with its peers, in one run: python tests/benchmarks/compare.py --quick.

Training and inference run in this process, in rounds: each round times every contender once, in a
new random order, so that what else the machine does hits all alike. A thread pool keeps spinning
for a while after its work (OpenBLAS for some 30 ms), so before each timing all is quiet for 50 ms,
and a tenth of the steps then runs untimed, to wake the contender's own threads and fill the caches.
Rows with "1 thread" hold every BLAS and OpenMP pool of the process at one thread while they run;
all others leave each library its own choice. Imports and memory are measured in processes of their
own. Before anything is timed, all contenders train the same networks, without dropout, for some
steps from the same weights, and must end up with the same loss.

A run takes under 5 minutes, with --quick one; progress goes to stderr. Peers are optional:
pip install -e '.[bench]'.
"""

import argparse
import contextlib
import gc
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from peers import CONTENDERS, OURS, OWN, Case, initial_weights, load, version
from tables import cores, machine, print_report, thread_pools
from threadpoolctl import ThreadpoolController

QUIET = 0.05  # seconds before each timing
ENOUGH, ENOUGH_IF_QUICK = 15.0, 3.0  # seconds after which a case has no more rounds
MIN_ROUNDS = 2
ORDER = random.Random(1)
CHECKED_STEPS, CHECKED_IMAGES, TOLERANCE = 5, 1000, 1e-5

SMALL, MIDDLE, WIDE = (784, 40, 10), (784, 100, 10), (784, 1024, 1024, 10)
STEPS = {
    "sample-40": Case("per sample, 784-40-10", SMALL, 500),
    "sample-100": Case("per sample, 784-100-10 dropout", MIDDLE, 500, dropout=True),
    "batch-100": Case("batch 100, 784-100-10 dropout", MIDDLE, 50, 100, dropout=True, lr=0.1),
    "batch-128": Case("batch 128, 784-1024-1024-10", WIDE, 10, 128, lr=0.05),
}
EPOCHS = {
    name: replace(STEPS[like], title=title, steps=10_000 // STEPS[like].rows, count=True, unit="ms")
    for name, like, title in [
        ("epoch-sgd", "sample-40", "epoch of script 1"),
        ("epoch-dropout", "sample-100", "epoch of script 2"),
        ("epoch-minibatch", "batch-100", "epoch of script 3"),
    ]
}
INFERENCE = {
    name: Case(title, MIDDLE, 10_000 // batch, batch, unit="ms")
    for name, batch, title in [
        ("inference-500", 500, "inference on 10,000, by 500"),
        ("inference-10000", 10_000, "inference on 10,000, at once"),
    ]
}
IMPORTS = {  # what is imported: the distributions that it needs
    OURS: (OURS,),
    "numpy, scipy.linalg.blas, threadpoolctl": ("numpy", "scipy", "threadpoolctl"),
    "torch": ("torch",),
    "jax": ("jax",),
    "keras": ("keras", "jax"),
    "sklearn.neural_network": ("scikit-learn",),
}
MEMORY_CASE, DATA_ALONE = EPOCHS["epoch-minibatch"], "(NumPy and the data)"
CASES = [*STEPS, *EPOCHS, *INFERENCE, "import", "memory"]


def main():
    args = parse_arguments()
    if args.memory_of:
        print(peak_memory(args.memory_of))
        return
    if args.threads:
        limit_threads(args.threads)
    report = measure(args.cases, args.rounds or (3 if args.quick else 9), args.quick)
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 9, or 3 if quick")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="3 short rounds; no imports, memory and epochs of the peers",
    )
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=", ".join(CASES)
    )
    parser.add_argument("--threads", type=int, metavar="N", help="stay on N cores (default: all)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # how this script calls itself
    args = parser.parse_args()
    if version(OURS) is None:
        parser.error("expected this framework to be installed: pip install -e .")
    if args.threads is not None and not 1 <= args.threads <= cores():
        parser.error(f"--threads: expected 1 to {cores()}, the cores there are")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds: expected at least 1")
    return args


def limit_threads(n):
    """Start again on n cores, because a library sizes its pools when it is loaded."""
    if cores() > n:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        os.environ.update(dict.fromkeys(names, str(n)))
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])
        os.execv(sys.executable, sys.orig_argv)


def measure(names, rounds, quick):
    """Return everything that is printed and written."""
    report = {"machine": machine(), "rounds": rounds, "quick": quick}
    report["same_network"] = [same_network(case) for case in to_be_checked(names)]
    rows = []
    for name in names:
        progress(name)
        if name == "import":
            rows += import_times(min(rounds, 5), peers=not quick)
        elif name == "memory":
            rows += memory_peaks(peers=not quick)
        else:
            rows += timings(name, rounds, quick)
    report["pools"] = thread_pools()  # now that the libraries are loaded
    report["results"] = [with_ratios(row, rows) for row in rows]
    return report


def progress(what):
    print(f"... {what}", file=sys.stderr, flush=True)


# Timing


def timings(name, rounds, quick):
    """Return a row for each contender of a case of training or inference."""
    case = (STEPS | EPOCHS | INFERENCE)[name]
    if name in STEPS and quick:
        case = replace(case, steps=case.steps // 5)
    if name in EPOCHS:
        rounds = max(1, rounds // 3)
    contenders = taking_part(name, case, peers=name not in EPOCHS or not quick)
    steps = {c: prepared(c, name, case) for c in contenders}
    enough = ENOUGH_IF_QUICK if quick else ENOUGH
    seconds = interleaved(steps, case.steps, rounds, enough)
    per_unit = 1e6 / case.steps if name in STEPS else 1e3
    return [
        row(name, case.title, case.unit, c.name, [s * per_unit for s in seconds[c]])
        for c in contenders
    ]


def taking_part(name, case, peers):
    """Return the installed contenders of a case."""
    return [
        c
        for c in CONTENDERS
        if not c.missing
        and (peers or not c.is_peer)
        and (c.epoch or name not in EPOCHS)
        and (c.infer or name not in INFERENCE)
        and not (c.per_sample and case.batch)
        and (c.trains or c.serial or case.batch)  # on one row, threads are no floor
    ]


def prepared(contender, name, case):
    """Return the contender's step, warmed up, and compiled where it is."""
    if name in INFERENCE:
        step = contender.infer(case, load("test", contender.dtype))
    else:
        step = contender.make(case, load("train", contender.dtype))
    step(tenth(case.steps))
    if contender.compiles_each_n:
        step(case.steps)
    return step


def tenth(n):
    return -(-n // 10)


def interleaved(steps, n, rounds, enough):
    """Return the seconds that n steps take each contender, in each round.

    There are fewer rounds once they have taken `enough` seconds: with other processes on all
    cores, threads that wait for each other take a hundred times as long.
    """
    pools = ThreadpoolController()
    gc.collect()
    gc.freeze()  # else each collection walks the objects of all libraries, in whoever's timing
    seconds = {contender: [] for contender in steps}
    start = time.perf_counter()
    for i in range(rounds):
        if i >= MIN_ROUNDS and time.perf_counter() - start > enough:
            break
        for contender in ORDER.sample(list(steps), len(steps)):
            with pools.limit(limits=1) if contender.serial else contextlib.nullcontext():
                seconds[contender].append(timed(steps[contender], n))
    return seconds


def timed(step, n):
    """Return the seconds that n steps take, after a tenth of them."""
    time.sleep(QUIET)
    step(tenth(n))
    start = time.perf_counter()
    step(n)
    return time.perf_counter() - start


def row(case, title, unit, contender, values):
    return {
        "case": case,
        "title": title,
        "unit": unit,
        "contender": contender,
        "min": min(values),
        "median": statistics.median(values),
        "values": values,
    }


def with_ratios(row, rows):
    """Return the row with what ours, in float32, takes as a part of it."""
    ours = next(r for r in rows if r["case"] == row["case"] and r["contender"].startswith(OURS))
    return row | {f"ours/it, {key}": ours[key] / row[key] for key in ("min", "median")}


# Is it the same network?


def to_be_checked(names):
    """Return one of the chosen cases of training for each size of batch."""
    trained = [case for name, case in (STEPS | EPOCHS).items() if name in names]
    return {case.batch: case for case in reversed(trained)}.values()


def same_network(case):
    """Train without dropout and return each contender's loss afterwards, or exit if one differs."""
    case = replace(case, dropout=False)
    progress(f"the same network? {case.title}")
    contenders = [
        c
        for c in CONTENDERS
        if c.trains and not c.serial and not c.missing and not (c.per_sample and case.batch)
    ]
    losses = {}
    for c in contenders:
        step = c.make(case, load("train", c.dtype))
        losses[c.name] = loss_of(step(CHECKED_STEPS))
    expected = losses["notebook loop, float64"]
    for name, loss in losses.items():
        if not abs(loss - expected) <= TOLERANCE * expected:
            sys.exit(f"compare: expected {name} to reach a loss of {expected}, got {loss}")
    start = loss_of(initial_weights(case))
    return {"case": case.title, "steps": CHECKED_STEPS, "at the start": start, "losses": losses}


def loss_of(weights):
    """Return the squared error of a network, summed over outputs, averaged over images."""
    x, t = (a[:CHECKED_IMAGES] for a in load("train", np.float64))
    *hidden, last = (np.asarray(w, np.float64) for w in weights)
    for w in hidden:
        x = np.maximum(x @ w, 0)
    return float(np.sum((x @ last - t) ** 2) / len(x))


# Imports and memory, in separate processes


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
            seconds = float(output_of("-c", f"{code}; print(e - s)"))
            if i > 0:  # the first round reads the files into memory
                milliseconds[name].append(seconds * 1e3)
    return [row("import", "import", "ms", name, values) for name, values in milliseconds.items()]


def memory_peaks(peers):
    """Return the rows of peak memory, of an epoch of script 3."""
    contenders = taking_part("memory", MEMORY_CASE, peers)
    names = [c.name for c in contenders if c.trains and not c.serial]
    names.append(DATA_ALONE)
    with ThreadPoolExecutor(cores()) as executor:  # side by side: nothing is timed
        peaks = executor.map(memory_of, names)
    return [
        row("memory", "memory, epoch of script 3", "MB", *pair)
        for pair in zip(names, peaks, strict=True)
    ]


def memory_of(name):
    return [float(output_of(__file__, "--memory-of", name))]


def output_of(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def peak_memory(name):
    """Run an epoch and return this process's largest resident memory so far, in MB."""
    if name == DATA_ALONE:
        load("train", np.float32)
    else:
        contender = next(c for c in CONTENDERS if c.name == name)
        contender.make(MEMORY_CASE, load("train", contender.dtype))(MEMORY_CASE.steps)
    with contextlib.suppress(OSError):
        # not ru_maxrss: on Linux it starts from the memory of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
