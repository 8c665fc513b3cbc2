"""Grade a folder of submissions: python examples/grade_a_folder.py ASSIGNMENT FOLDER GRADES.csv.

ASSIGNMENT is a file such as examples/course/layer.py: its function `graded` takes what each file
in FOLDER, or in a folder in it, is to define. Names that begin with "." or "__" are left out. Each
file has a process of its own, as it may print, loop for ever or end the program, and two minutes.
That keeps mistakes apart, but not code that means harm. All that was found of amy.py is in
amy.grade.json beside it.
"""

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path

GRADE = """
import inspect, json, runpy, sys, traceback
from pathlib import Path
assignment, submission, result = sys.argv[1:]
try:
    answer, graded = runpy.run_path(submission), runpy.run_path(assignment)["graded"]
    asked = inspect.signature(graded).parameters
    if missing := [name for name in asked if name not in answer]:
        raise NameError("expected " + " and ".join(missing) + " to be defined")
    graded(**{name: answer[name] for name in asked}).to_json(result)
except Exception as error:
    reason = "".join(traceback.format_exception_only(error)).splitlines()[-1]
    Path(result).write_text(json.dumps({"score": 0, "error": reason}), encoding="utf-8")
"""


def score_and_failed(assignment, path):
    result = path.with_suffix(".grade.json")
    result.unlink(missing_ok=True)
    # UTF-8, as a print of an arrow is no mistake; and nobody reads what is printed, or answers
    command = [sys.executable, "-X", "utf8", "-c", GRADE, assignment, path, result]
    nothing = subprocess.DEVNULL
    try:
        subprocess.run(command, timeout=120, stdin=nothing, stdout=nothing, stderr=nothing)
    except subprocess.TimeoutExpired:
        return 0, "took more than two minutes"
    if not result.exists():
        return 0, "ended the program"
    found = json.loads(result.read_text(encoding="utf-8"))
    rules = [rule["rule"] for rule in found.get("rules", []) if rule["outcome"] == "failed"]
    return found["score"], found.get("error") or ", ".join(rules)


if len(sys.argv) != 4:
    sys.exit(__doc__)
assignment, folder, grades = sys.argv[1:]
runpy.run_path(assignment)["graded"]  # a mistake in it is no submission's
found = (path.relative_to(folder) for path in Path(folder).rglob("*.py"))
paths = sorted(p for p in found if not any(part.startswith((".", "__")) for part in p.parts))
if not paths:
    sys.exit(f"{folder}: expected files that end in .py, in it or in its folders, got none")
with open(grades, "w", encoding="utf-8-sig", newline="") as file:  # as spreadsheets expect it
    table = csv.writer(file)
    table.writerow(["file", "score", "failed"])
    for path in paths:
        name = path.as_posix()
        score, failed = score_and_failed(assignment, Path(folder, path))
        if "GivenError: " in failed:
            sys.exit(f"{assignment}: {failed}")  # its reference fails, and no answer could pass
        table.writerow([name, f"{score:.2f}", failed])
        print(f"{score:.2f}  {name}  {failed}".rstrip(), flush=True)
