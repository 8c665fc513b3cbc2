"""Fuzz a reader of files, guided by the code that an input reaches (needs the extra `fuzz`).

    python tests/fuzz/fuzz.py checkpoint --runs 20000

The targets are in targets.py. It stops at the first fault, a hang of 20 seconds or a gigabyte of
memory, and writes the input to `crash-...` or `timeout-...`; given after the target, that file is
read once more.
"""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tinygrad_mnist"]):
    from targets import TARGETS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("files", nargs="*", help="read these, and fuzz nothing")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="0, the default, is another each time")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()  # atheris ends its process by itself
        if not child:
            fuzz(args, Path(folder))
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def fuzz(args, folder):
    (corpus := folder / "corpus").mkdir()
    target = TARGETS[args.target](folder)
    seeds = target.seeds()
    for i, content in enumerate(seeds):
        (corpus / str(i)).write_bytes(content)
    counts = {True: 0, False: 0}

    def run(data):
        counts[target.run(data)] += 1
        done = sum(counts.values())
        if done % 10_000 == 0 or done == args.runs:
            print(f"{args.target}: {done} runs, {counts[True]} loaded", flush=True)

    def mutate(data, most, seed):
        rng = random.Random(seed)
        data = rng.choice(seeds) if rng.random() < 0.3 else data  # most of the corpus is refused
        return target.mutate(data, rng)[:most]

    limits = ["-timeout=20", "-rss_limit_mb=1024", "-max_len=100000", "-len_control=0"]
    options = [*limits, f"-runs={args.runs}", f"-seed={args.seed}", "-mutate_depth=2"]
    options += args.files or [str(corpus)]
    atheris.Setup([sys.argv[0], *options], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
