"""The course: a solution has full marks, a skeleton none, a wrong answer loses what it breaks."""

import inspect
import re
import runpy
from pathlib import Path

import pytest

from tinygrad_mnist import num_threads

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "course"
PAGE = (ROOT / "docs" / "pages" / "course.md").read_text()
ASSIGNMENTS = re.findall(r"^\| `examples/course/(\w+)\.py`", PAGE, re.M)

FIRST, *SECTIONS = re.split(r"^## (?=\d\. )", PAGE, flags=re.M)
SECTION = dict(zip(ASSIGNMENTS, SECTIONS, strict=True))

# what stands in the solution, what a wrong answer has there, and the rules that it breaks; the
# page shows what the first of each assignment prints
WRONG = {
    "layer": [
        ("dy.sum(axis=0)", "dy.mean(axis=0)", ["gradients", "many-rows", "empty"]),
        ("self._x = np.array(x)", "self._x = x", ["own-copies"]),
        ("self.W.accumulate(self._x.T @ dy)", "self.W.grad = self._x.T @ dy", ["accumulates"]),
    ],
    "loss": [
        ("y = y - y.max(axis=1, keepdims=True)", "", ["finite"]),
        ("self.dy /= len(y)", "", ["gradients"]),
        ("self.dy.copy()", "self.dy", ["own-copies"]),
    ],
    "optimizer": [
        ("m / (1 - beta1**self.t), v / (1 - beta2**self.t)", "m, v", ["values"]),
        ("np.sqrt(v_hat) + self.eps", "np.sqrt(v_hat + self.eps)", ["values"]),
        ("m[...] = beta1", "self.t += 1; m[...] = beta1", ["own-state", "values"]),
    ],
    "regularizer": [
        ("dy * self._scale", "dy * (self._scale > 0)", ["gradients"]),
        ("if self.training:", "if True:", ["values", "eval-deterministic"]),
        ("self.rng.random(", "np.random.random(", ["seed"]),
        ("< self.p", ">= self.p", ["zeros"]),
    ],
    "convolution": [
        ("] += dy", "] = dy", ["gradients"]),
        ("self.K.data.reshape", "self.K.data[::-1].reshape", ["values", "gradients"]),
        (
            "self._shape = x",
            "__import__('time').sleep(0.31 * (len(x) == 16)); self._shape = x",
            ["fast"],
        ),
    ],
    "residual_net": [
        (", init=zeros", ", rng=rng", ["trained"]),
        ("self.body.backward(dy) + dy", "self.body.backward(dy)", ["gradients", "trained"]),
    ],
}


def graded(name, path):
    """Return what the assignment's grader says of a file, as examples/grade_a_folder.py does."""
    grader, answer = runpy.run_path(str(FOLDER / f"{name}.py"))["graded"], runpy.run_path(str(path))
    with num_threads(1):
        return grader(**{part: answer[part] for part in inspect.signature(grader).parameters})


def solution(name):
    return Path(__file__).parent / "solutions" / f"{name}.py"


def shown(block, printed):
    """Return whether the lines of a block of the page are printed; "..." stands for others."""
    pattern = re.escape(block).replace(re.escape("...\n"), r"(.*\n)+")
    return re.fullmatch(pattern, f"{printed}\n")


def test_the_page_lists_every_file_and_wrong_answers_are_known_to_each():
    assert sorted(ASSIGNMENTS) == sorted(path.stem for path in FOLDER.glob("*.py"))
    assert list(WRONG) == ASSIGNMENTS


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_skeleton_fits_on_a_screen_and_says_what_is_to_be_written(name):
    grade = graded(name, FOLDER / f"{name}.py")
    assert grade.score == 0
    assert grade.rules("failed") == ["implemented"]
    assert "got NotImplementedError: " in str(grade)
    assert (FOLDER / f"{name}.py").read_text().count("\n") < 70


def test_the_page_shows_what_the_first_skeleton_prints():
    (block,) = re.findall(r"^```text\n(.*?)^```$", FIRST, re.M | re.S)
    assert shown(block, graded("layer", FOLDER / "layer.py"))


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_solution_has_full_marks_and_prints_what_the_page_says(name):
    grade = graded(name, solution(name))
    title, *_ = str(grade).splitlines()
    assert grade.score == 1
    assert f"`{title}`" in SECTION[name]


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, wrong in WRONG.items() for i in range(len(wrong))]
)
def test_a_wrong_answer_loses_the_rule_that_it_breaks(name, number, tmp_path):
    right, wrong, rules = WRONG[name][number]
    text = solution(name).read_text()
    assert text.count(right) == 1
    answer = tmp_path / f"{name}.py"
    answer.write_text(text.replace(right, wrong))
    grade = graded(name, answer)
    assert grade.rules("failed") == rules
    if number == 0:
        (block,) = re.findall(r"^```text\n(.*?)^```$", SECTION[name], re.M | re.S)
        assert shown(block, grade), grade
