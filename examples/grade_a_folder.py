"""Grade a folder of submissions: python examples/grade_a_folder.py ASSIGNMENT FOLDER > grades.csv.

ASSIGNMENT is a file such as examples/course/layer.py: its function `graded` takes what each file
in FOLDER is to define. Each has a process of its own, as it may print, ask, loop for ever or end
the program, and two minutes. That keeps mistakes apart, but not code that means harm.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

GRADE = """
import inspect, runpy, sys
graded, answer = runpy.run_path(sys.argv[1])["graded"], runpy.run_path(sys.argv[2])
asked = inspect.signature(graded).parameters
graded(**{name: answer[name] for name in asked}).to_json(sys.argv[3])
"""


def row(assignment, path):
    result = path.with_suffix(".json")
    result.unlink(missing_ok=True)
    command = [sys.executable, "-c", GRADE, assignment, path, result]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    try:  # what is printed may be no valid text
        done = subprocess.run(command, timeout=120, text=True, errors="replace", **streams)
    except subprocess.TimeoutExpired:
        return [path.name, "0.00", "took more than two minutes"]
    if not result.exists():  # the file ended the process, or could not be read
        return [path.name, "0.00", (done.stderr.splitlines() or ["ended at once"])[-1]]
    found = json.loads(result.read_text())
    failed = [rule["rule"] for rule in found["rules"] if rule["outcome"] == "failed"]
    return [path.name, f"{found['score']:.2f}", ", ".join(failed)]


assignment, folder = sys.argv[1:]
table = csv.writer(sys.stdout, lineterminator="\n")
table.writerow(["file", "score", "failed"])
for path in sorted(Path(folder).glob("*.py")):
    table.writerow(row(assignment, path))
