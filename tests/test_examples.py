"""Each example on few epochs, and the replay against the published numbers.

Most run in this process, as Python runs a script: a process for each would import the same again.
"""

import json
import os
import re
import socket
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from unittest.mock import patch

import numpy as np
import pytest

from tinygrad_mnist import num_threads
from tinygrad_mnist.data import mnist
from tinygrad_mnist.page.faults import FAULTS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PUBLISHED = json.loads((ROOT / "examples" / "notebook" / "published_rows.json").read_text())
ROW = re.compile(
    r"Epoch (\d+) \| Train-Err: (\d\.\d{4}) \| Train-Acc: (\d\.\d{4}) "
    r"\| Test-Err: (\d\.\d{4}) \| Test-Acc: (\d\.\d{4})"
)


def ended(name, *args):
    """Return how an example ends, and what it prints."""
    path, out, err, code = ROOT / "examples" / f"{name}.py", StringIO(), StringIO(), 0
    argv, search = [str(path), *map(str, args)], [str(path.parent), *sys.path]
    names = {"__name__": "__main__", "__file__": str(path)}
    with (
        patch.multiple(sys, argv=argv, path=search),
        redirect_stdout(out),
        redirect_stderr(err),
        num_threads(1),  # other tests run beside it, and threads that share a core wait
    ):
        try:
            exec(compile(path.read_text(), path, "exec"), names)
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
        except Exception:
            traceback.print_exc()
            code = 1
    names.clear()  # or the images stay until the next garbage collection
    return CompletedProcess(argv, int(code or 0), out.getvalue(), err.getvalue())


def run(name, *args):
    """Return what the example prints; it ends well, and says nothing else but its progress."""
    done = ended(name, *args)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(epoch \d+/\d+ +loss .* s.*\n|nothing left .*\n)*", done.stderr)
    return done.stdout


def command(name, *args):
    """Return how the example is started in a process of its own, in which warnings are errors."""
    return [sys.executable, "-W", "error", f"examples/{name}.py", *args]


def accuracies(lines):
    """Return the test accuracy of each epoch, of lines that say nothing else."""
    rows = [
        re.fullmatch(r"epoch +(\d+)  test accuracy (0\.\d{4})", line).groups() for line in lines
    ]
    assert [int(epoch) for epoch, _ in rows] == list(range(1, len(rows) + 1))
    return [float(accuracy) for _, accuracy in rows]


def test_mnist_reaches_97_percent_in_ten_epochs():
    alone = os.environ | {"TINYGRAD_MNIST_NUM_THREADS": "1"}
    done = subprocess.run(command("mnist"), cwd=ROOT, env=alone, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = accuracies(done.stdout.splitlines())
    assert len(found) == 10
    assert found[-1] > 0.97


@pytest.mark.parametrize("flags", [[], ["--compiled"]])
def test_the_convolutional_network_learns_more_from_fewer_epochs(flags):
    if flags:
        pytest.importorskip("numba")
    path = str(ROOT / "tinygrad_mnist" / "data" / "mnist_20k.npz")
    text = run("mnist_conv", "--epochs", "1", "--data", path, *flags)
    assert float(re.fullmatch(r"test accuracy (0\.\d{4})\n", text)[1]) > 0.95


def test_the_model_that_is_no_chain_is_shown_and_learns():
    shown, accuracy = run("residual").split("\ntest accuracy ")
    for line in (
        "  (0): Parallel(join='concat'",
        "  (2): Residual(shortcut=None",
        "    (shortcut): Conv2d(in_channels=8, out_channels=16, kernel_size=(1, 1)",
        "      (0): BatchNorm(features=8, eps=1e-05, momentum=0.1)",
    ):
        assert f"\n{line}" in shown
    assert float(accuracy) > 0.95


@pytest.mark.parametrize(
    ("name", "epochs", "accuracy"),
    # what 11 epochs must reach, or what 2 did (less .015) where 11 take long
    [
        ("notebook/mnist_sgd", "2", 0.89),
        ("notebook/mnist_dropout", "2", 0.88),
        ("notebook/mnist_minibatch", "11", 0.895),
    ],
)
def test_the_three_scripts_print_true_rows_and_learn(name, epochs, accuracy):
    rows = [ROW.fullmatch(line).groups() for line in run(name, "--epochs", epochs).splitlines()]
    assert [row[0] for row in rows] == ["1", epochs]
    first, last = ([float(v) for v in row] for row in rows)
    assert last[4] >= accuracy
    assert last[1] < first[1]
    assert last[2] > first[2]
    assert last[3] != last[1]  # test numbers are not the training numbers (Q5)


def test_the_seed_decides_every_number():
    one, other, again = (
        run("notebook/mnist_minibatch", "--epochs", "1", "--seed", seed) for seed in ("3", "4", "3")
    )
    assert one == again
    assert one != other


TAKE_DATA = [
    "train",
    "mnist_conv",
    *[f"notebook/mnist_{s}" for s in ("sgd", "dropout", "minibatch")],
]


def own_data(folder, side, labels):
    """Write a file of 200 images of this side, and labels of this dtype."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (200, side, side), np.uint8), rng.integers(0, 10, 200)
    arrays = {"x_train": x, "y_train": y.astype(labels), "x_test": x, "y_test": y.astype(labels)}
    np.savez(folder / "own.npz", **arrays)
    return str(folder / "own.npz")


def test_the_scripts_take_a_file_of_ones_own_with_labels_as_numpy_makes_them(tmp_path):
    args = ("--epochs", "2", "--data")
    told = [
        run("notebook/mnist_minibatch", *args, own_data(tmp_path, 28, labels))
        for labels in (np.int64, np.uint8)
    ]
    assert told[0] == told[1]
    assert len(ROW.findall(told[0])) == 2


@pytest.mark.parametrize("name", TAKE_DATA)
def test_images_of_another_size_are_refused_in_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no run is that train.py would not overwrite
    path = own_data(tmp_path, 8, np.int64)
    refused = ended(name, "--data", path)
    assert refused.returncode == 2
    usage, told = refused.stderr.split("error: ")
    assert usage.startswith("usage: ")
    contract = f"{path} to be a .npz file in Keras's layout, x_train of uint8 (N, 28, 28)"
    found = "a header that claims shape (200, 8, 8)"
    assert told == f"mnist.load_data: expected {contract}, got {found}\n"


@pytest.mark.parametrize(("script", "epochs"), [("sgd", 11), ("dropout", 1)])
def test_the_replay_prints_the_published_numbers(script, epochs):
    told = run("notebook/notebook_replay", "--script", script, "--epochs", str(epochs), "--json")
    replay = json.loads(told)
    assert replay["script"] == script
    published = [row for row in PUBLISHED[script] if row["epoch"] <= epochs]
    assert [row["epoch"] for row in replay["rows"]] == [row["epoch"] for row in published]
    for row, wanted in zip(replay["rows"], published, strict=True):
        assert row.keys() == wanted.keys()
        for key in ("error", "test_err"):
            assert row[key] == pytest.approx(wanted[key], rel=1e-12)
        for key in ("correct", "test_acc"):
            assert row[key] == wanted[key]


def test_the_replay_in_words_ends_with_what_right_gradients_give():
    lines = run("notebook/notebook_replay", "--script", "minibatch", "--epochs", "1").splitlines()
    wanted = PUBLISHED["minibatch"][0]
    replayed, published = (dict(re.findall(r"([\w-]+): (\S+)", line)) for line in lines[:2])
    assert lines[0].startswith("replayed  Epoch 1 | ")
    assert lines[1].startswith("published Epoch 1 | ")
    labels = {
        "error": "Error",
        "correct": "Correct",
        "test_err": "Test-Err",
        "test_acc": "Test-Acc",
    }
    for key, label in labels.items():
        assert float(published[label]) == wanted[key]
        assert float(replayed[label]) == pytest.approx(wanted[key], rel=1e-12)
    assert float(lines[2].removeprefix("largest relative difference: ")) < 1e-12
    assert lines[-3].startswith("With right gradients")
    right, replayed = re.findall(r"\d\.\d{4}", lines[-1])
    assert float(right) > float(replayed) == 0.7451


def test_data_shapes_prints_what_the_notebook_prints():
    assert run("notebook/data_shapes").split("\n") == [
        "(1000, 28, 28)",
        "(28, 28)",
        "(10000, 28, 28)",
        "(1, 784)",
        "(784,)",
        "",
        "(1000,)",
        "5",
        "(10000, 10)",
        "[0. 0. 0. 0. 1. 0. 0. 0. 0. 0.]",
        "(10000, 10)",
        "",
    ]


def test_dropout_masks_prints_what_the_notebook_prints():
    text = run("notebook/dropout_masks")
    assert text.startswith("turned off nodes is:  21 of 40 \n\nlayer values before droput:\n [[ 0.")
    before, after = text.split("layer values after droput:")
    assert "0.14823521 -0.70654285  0.17861107  0.39951672]]" in before
    assert after.startswith(
        "\n [[ 1.20297827  1.8730463  -0.          0.          1.50555661  1.57842665\n"
        "  -1.65982315 -1.84378087 -1.32067832  0.         -0.         -0.3155695\n"
    )


def test_xor_is_learned():
    *_, a, b, c, d = run("xor").splitlines()
    assert [line[-5:] for line in (a, b, c, d)] == ["0.000", "1.000", "1.000", "0.000"]


def test_the_custom_layer_trains_in_a_model():
    lines = run("custom_layer").splitlines()
    assert "1.slope Parameter(shape=(), dtype=float32)" in lines
    accuracy, slope = re.fullmatch(r"epoch 3  test accuracy (.*)  slope (.*)", lines[-1]).groups()
    assert float(accuracy) > 0.8
    assert float(slope) != 0.25


def test_a_right_layer_passes_and_a_wrong_one_is_caught():
    text = run("check_your_layer")
    assert "Swish: none of its gradients disagree" in text
    assert "MeanSwish: 1 of 2 gradients disagree" in text
    assert "1 over the batch size 5: a sum forward, a mean backward." in text
    assert "test_swish = module_checklist(" in text


def test_a_students_layer_is_graded_and_again_when_it_is_revised():
    handed_in, revised, last = run("grade_a_layer").strip().split("\n\n")
    assert re.findall(r"^  failed +(\S+)", handed_in, re.M) == ["finite", "own-copies"]
    assert revised.startswith("Revised: score 1.00")
    assert last.startswith("A mark is result.score")


def test_the_museum_shows_what_the_checker_sees_and_what_it_costs(monkeypatch):
    few = tuple((images[:200], labels[:200]) for images, labels in mnist.load_data())
    monkeypatch.setattr(mnist, "load_data", lambda: few)
    text = run("notebook/bug_museum", "--epochs", "1")
    _title, *exhibits, last = re.split(r"\n\n(?=\S)", text)
    assert [exhibit.partition("\n")[0] for exhibit in exhibits] == list(FAULTS)
    for exhibit in exhibits:
        assert re.search("^     .*# wrong", exhibit, re.M)
        assert re.search(r"^  checker   (wrong|cannot see): ", exhibit, re.M)
        accuracy = r"accuracy +(0\.\d{4}|cannot train).*without the mistake 0\.\d{4}$"
        assert re.search(accuracy, exhibit)
    assert "[rule: accumulates]\n  accuracy" in text
    assert last.startswith("The checker catches 10 of 22 mistakes.")


@pytest.mark.parametrize("name", [f"notebook/mnist_{s}" for s in ("sgd", "dropout", "minibatch")])
def test_compiled_passes_print_the_same_rows(name):
    pytest.importorskip("numba")
    eager, fast = (run(name, "--epochs", "1", *flag) for flag in ((), ("--compiled",)))
    eager, fast = (
        [float(v) for v in ROW.fullmatch(text.strip()).groups()] for text in (eager, fast)
    )
    assert fast == pytest.approx(eager, abs=0.002)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a short run of train.py, and what it printed."""
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    folder = tmp_path_factory.mktemp("run") / "out"
    options = ("--hidden", "128", "64", "--dropout", "0.1", "--epochs", "3")
    return folder, run("train", "--out", str(folder), *options)


def test_train_leaves_model_history_and_pictures(trained):
    folder, text = trained
    assert {path.name for path in folder.iterdir()} == {
        "settings.json",
        "run.npz",
        "best.npz",
        "model.npz",
        "history.json",
        "history.csv",
        "curves.png",
        "weights.png",
        "confusion.png",
        "mistakes.png",
    }
    (accuracy,) = re.findall(r"best epoch \d of 3: test accuracy (0\.\d{4})", text)
    assert float(accuracy) > 0.9
    assert all((folder / name).stat().st_size > 10_000 for name in ("curves.png", "mistakes.png"))


def test_train_compiled_is_a_setting_that_a_resumed_run_keeps(tmp_path):
    pytest.importorskip("numba")
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    folder = tmp_path / "out"
    text = run("train", "--out", folder, "--hidden", "64", "--epochs", "2", "--compiled")
    (accuracy,) = re.findall(r"best epoch \d of 2: test accuracy (0\.\d{4})", text)
    assert float(accuracy) > 0.9
    assert json.loads((folder / "settings.json").read_text())["compiled"] is True
    with patch("tinygrad_mnist.training.fit", side_effect=Seen) as fit:
        ended("train", "--out", folder, "--resume")
    assert fit.call_args.kwargs["compiled"] is True


class Seen(Exception):
    """Ends a script where it would train."""


@pytest.fixture(scope="module")
def convolved(tmp_path_factory):
    """Return the folder of a short run of train.py with convolutions, and what it printed."""
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    folder = tmp_path_factory.mktemp("run") / "out"
    options = ("--channels", "4", "8", "--hidden", "--epochs", "1", "--batch-size", "64")
    return folder, run("train", "--out", str(folder), *options)


def test_train_takes_convolutions(convolved):
    folder, text = convolved
    (accuracy,) = re.findall(r"best epoch 1 of 1: test accuracy (0\.\d{4})", text)
    assert float(accuracy) > 0.85
    assert re.search(r"^0 Conv2d\(1, 4, 5, input_grad=False\) +\(24, 24, 4\)", text, re.M)
    assert re.search(r"^3 Conv2d\(4, 8, 5\) +\(8, 8, 8\)", text, re.M)
    assert (folder / "weights.png").stat().st_size > 2_000


def test_train_resumes_with_its_settings_and_never_overwrites(trained, tmp_path):
    folder, text = trained
    refused = ended("train", "--out", folder)
    told = f"{folder} holds a run: go on with it (--resume), or choose another --out\n"
    assert (refused.returncode, refused.stderr) == (1, told)
    assert run("train", "--out", folder, "--resume") == text
    refused = ended("train", "--out", folder, "--resume", "--epochs", "4")
    told = f"its own settings, in {folder}/settings.json: --resume takes no others\n"
    assert (refused.returncode, refused.stderr) == (1, f"{folder} goes on with {told}")
    refused = ended("train", "--resume", "--out", tmp_path)
    assert (refused.returncode, refused.stderr) == (1, f"{tmp_path} holds no run to go on with\n")


def test_train_refuses_bad_settings_and_leaves_no_folder(tmp_path):
    for option, told in (
        (("--dropout", "1.5"), "Dropout: expected p in [0, 1), got 1.5"),
        (("--epochs", "0"), "cosine_decay: expected steps to be an integer >= 1, got 0"),
        (("--data", "nowhere.npz"), "got 'nowhere.npz', where there is no file"),
    ):
        refused = ended("train", "--out", tmp_path / "out", *option)
        assert refused.returncode == (2 if "--data" in option else 1)
        assert f"{told}\n" in refused.stderr  # a note may follow
        assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the overflow
def test_a_run_that_diverged_at_once_does_not_block_its_folder(tmp_path):
    for _ in range(2):
        done = ended("train", "--out", tmp_path, "--hidden", "8", "--lr", "1e30")
        assert done.returncode == 1
        assert "of epoch 1: try a smaller --lr" in done.stderr.splitlines()[-1]


def test_predict_names_a_model_that_it_cannot_load(trained, tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    for model, told in (
        (trained[0] / "run.npz", "its model, and `checkpoint.load(path, model)`"),
        (tmp_path / "text.npz", "to be a whole model file, got File is not a zip file"),
        (tmp_path / "none.npz", f"No such file or directory: '{tmp_path / 'none.npz'}'"),
    ):
        refused = ended("predict", model, "x.png")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.endswith(told + "\n")


def drawn(mode, size, paper, ink, line, width):
    """Return a picture of a digit drawn as one line."""
    from PIL import Image, ImageDraw

    picture = Image.new(mode, size, paper)
    ImageDraw.Draw(picture).line(line, fill=ink, width=width, joint="curve")
    return picture


@pytest.mark.parametrize("of", ["trained", "convolved"])
def test_predict_reads_digits_of_any_size_and_either_shade(of, tmp_path, request):
    from PIL import Image

    from tinygrad_mnist.data import mnist

    (_, _), (images, labels) = mnist.load_data()
    seven = [(120, 40), (200, 40), (150, 170)]
    one = [(300, 100), (300, 700)]
    pictures = {
        "mnist": (Image.fromarray(images[0]), labels[0]),
        "negative": (Image.fromarray(255 - images[0]), labels[0]),
        "16bit": (Image.fromarray(images[0].astype(np.uint16) * 257), labels[0]),
        "dark": (drawn("L", (300, 200), 245, 30, seven, 14), 7),
        "light": (drawn("RGB", (600, 800), (20, 30, 40), (250, 240, 200), one, 50), 1),
        "clear": (drawn("RGBA", (300, 200), (0, 0, 0, 0), (0, 0, 200, 255), seven, 14), 7),
    }
    paths = [tmp_path / f"{name}.png" for name in pictures]
    for path, (picture, _) in zip(paths, pictures.values(), strict=True):
        picture.save(path)
    folder, _ = request.getfixturevalue(of)
    lines = run("predict", str(folder / "model.npz"), *map(str, paths)).splitlines()
    for i, (path, (_, digit)) in enumerate(zip(paths, pictures.values(), strict=True)):
        assert re.match(
            rf"{path}: (not sure: )?{digit} \(\d+%\), then \d \(\d+%\) and \d \(\d+%\)",
            lines[15 * i],
        )
        assert "@" in "".join(lines[15 * i + 1 : 15 * i + 15])


def test_predict_reads_a_line_of_digits_and_says_where_it_doubts(convolved, tmp_path):
    from PIL import Image

    from tinygrad_mnist.data import mnist

    _, (images, _) = mnist.load_data()  # which begins with 7, 2, 1, 0
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
    joined = np.hstack([images[3][:, 4:24]] * 3)  # they share no empty column
    joined[13] = 255
    pictures = {
        "line": 255 - np.pad(np.hstack([*images[:4]]), 9),
        "noise": noise,
        "joined": np.pad(joined, 9),
    }
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in pictures]
    *line, blot, touching = run("predict", str(convolved[0] / "model.npz"), *paths).splitlines()[
        ::15
    ]
    for i, digit in enumerate((7, 2, 1, 0)):
        assert re.match(rf"{paths[0]}, digit {i + 1} of 4: (not sure: )?{digit} ", line[i])
    assert blot.startswith(f"{paths[1]}: a blot, no digit? ")
    assert touching.startswith(f"{paths[2]}: several digits that touch? ")


def test_predict_names_what_it_cannot_read_and_goes_on(trained, tmp_path):
    from PIL import Image

    Image.new("L", (30, 40), 128).save(tmp_path / "blank.png")
    Image.new("L", (28, 28), 0).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("hello")
    names = ("blank.png", "black.png", "text.png", "none.png")
    paths = [str(tmp_path / name) for name in names]
    done = ended("predict", trained[0] / "model.npz", *paths)
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "it shows nothing but paper",
        "it shows nothing but paper",
        f"cannot identify image file '{paths[2]}'",
        "[Errno 2] No such file or directory",
    ]


@pytest.mark.parametrize(
    ("name", "missing", "extra"), [("predict", "PIL", "plot"), ("scale_out", "jax", "keras")]
)
def test_an_example_without_its_extra_says_what_to_install(name, missing, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)  # an import of it fails
    done = ended(name)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"import of {missing} halted.*: run pip install -e '.\[{extra}\]'\n", done.stderr
    )


needs_keras = pytest.mark.skipif(
    not (find_spec("keras") and find_spec("jax")), reason="needs the extra `keras`"
)


def scaled_out(*hosts):
    """Run scale_out.py in a process for each host; return what they print."""
    line = command("scale_out", "--epochs=1", "--batch=400")
    started = [subprocess.Popen([*line, *host], cwd=ROOT, stdout=PIPE, text=True) for host in hosts]
    try:
        told = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * len(hosts)
    return told


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "weights.npz"
    (told,) = scaled_out(["--devices", "1", "--save", path])
    assert re.search(r"^1 devices on 1 hosts \| Test-Acc: 0\.[6-9]\d+$", told, re.M)
    with np.load(path) as weights:
        assert set(weights) == {f"{i}.{name}" for i in (0, 2, 6) for name in ("weight", "bias")}
    return path


def assert_equal_to_rounding(told):
    (largest,) = re.findall(r"^largest difference of a weight: (.*)$", told, re.M)
    assert float(largest) < 1e-5


@needs_keras
def test_four_devices_train_the_same_weights_as_one(one_device):
    (told,) = scaled_out(["--devices", "4", "--compare", one_device])
    assert "4 devices on 1 hosts" in told
    assert_equal_to_rounding(told)


@needs_keras
@pytest.mark.skipif(sys.platform != "linux", reason="JAX has gloo's collectives on Linux")
def test_two_hosts_train_the_same_weights_as_one(one_device):
    with socket.create_server(("127.0.0.1", 0)) as free:
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    joint = ["--devices", "2", "--hosts", "2", "--coordinator", coordinator]
    joint += ["--compare", one_device, "--host"]
    for told in scaled_out([*joint, "0"], [*joint, "1"]):
        assert "4 devices on 2 hosts" in told
        assert_equal_to_rounding(told)


@needs_keras
def test_hosts_and_devices_that_do_not_divide_the_work_are_refused(monkeypatch):
    from tinygrad_mnist.interop.keras import keras

    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "cpu:1", "cpu:2"])
    for args, text in (
        (["--hosts", "3"], "--hosts to divide 8, and --batch to be a multiple of 8"),
        ([], "--batch to be a multiple of the 3 devices"),
    ):
        refused = ended("scale_out", *args)
        assert refused.returncode == 2
        assert refused.stderr.endswith(f"scale_out.py: error: expected {text}\n")


def test_no_file_of_a_folder_ends_the_grading_of_the_others(tmp_path):
    """It prints what is no text, and asks for an answer."""
    assignment, folder, grades = (tmp_path / name for name in ("assignment.py", "folder", "g.csv"))
    assignment.write_text("def graded(answer): raise ValueError(answer)")
    (folder / "łu").mkdir(parents=True)
    prints = r"import sys; [f.buffer.write(b'\xff\n') for f in (sys.stdout, sys.stderr)]"
    arrow = "print('→'); answer = sys.stdin.read() or 'nobody answers'"
    (folder / "łu" / "amy.py").write_text(f"{prints}; {arrow}", encoding="utf-8")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._amy.py").write_bytes(b"\0")
    assert run("grade_a_folder", assignment, folder, grades).endswith("nobody answers\n")
    expected = "file,score,failed\nłu/amy.py,0.00,ValueError: nobody answers\n"
    assert grades.read_text("utf-8-sig") == expected
    assert (folder / "łu" / "amy.grade.json").exists()


def test_a_reference_that_fails_ends_the_grading_as_no_answer_could_pass(tmp_path):
    (tmp_path / "amy.py").write_text("answer = 1")
    assignment = tmp_path / ".assignment.py"
    assignment.write_text(
        "from tinygrad_mnist.testing import GivenError\n"
        "def graded(answer): raise GivenError('reference: expected ...')"
    )
    done = ended("grade_a_folder", assignment, tmp_path, tmp_path / "g.csv")
    assert done.returncode == 1
    assert (
        done.stderr
        == f"{assignment}: tinygrad_mnist.testing.given.GivenError: reference: expected ...\n"
    )
