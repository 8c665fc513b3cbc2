"""The sdist and the wheel: what they hold, and that the wheel trains away from the checkout."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

import tinygrad_mnist

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NAME = f"tinygrad_mnist-{tinygrad_mnist.__version__}"
# what the package's folder holds, but for what Python and numba keep there
FILES = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "tinygrad_mnist").rglob("*")
    if path.is_file() and path.parent.name != "__pycache__"
}
TRAINING = """
import sys
from importlib.metadata import packages_distributions

folder, *declared = sys.argv[1:]
sys.path.insert(0, folder)
for name in packages_distributions().keys() - {"tinygrad_mnist", *declared}:
    sys.modules[name] = None  # as if it were not installed
import tinygrad_mnist
from tinygrad_mnist import SGD, DataLoader, Linear, MSELoss, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.training import evaluate, fit

(x_train, y_train), (x_test, y_test) = mnist.load_data()
model = Sequential(Linear(784, 20, rng=0, input_grad=False), ReLU(), Linear(20, 10, rng=1))
loss, optimizer = MSELoss(), SGD(model.parameters(), lr=0.2)
loader = DataLoader(*mnist.preprocess(x_train, y_train), batch_size=10, shuffle=True, rng=2)
fit(model, loss, optimizer, loader, epochs=1)
print(tinygrad_mnist.__file__)
print(tinygrad_mnist.__version__)
test = DataLoader(*mnist.preprocess(x_test, y_test), batch_size=100)
print(evaluate(model, loss, test)["accuracy"])
"""


def run(*args, **options):
    """Return what an isolated Python prints: it sees no folder but its own environment's."""
    command = [sys.executable, "-I", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    sdist, wheel = folder / f"{NAME}.tar.gz", folder / f"{NAME}-py3-none-any.whl"
    assert set(folder.iterdir()) == {sdist, wheel}
    return sdist, wheel


def test_the_sdist_holds_what_the_wheel_is_built_from(archives):
    with tarfile.open(archives[0]) as archive:
        members = {str(PurePosixPath(name).relative_to(NAME)) for name in archive.getnames()}
    others = {".gitignore", "PKG-INFO", "README.md", "docs/LICENSE", "pyproject.toml"}
    assert members == FILES | others


def test_the_wheel_holds_the_package_and_nothing_of_tests(archives):
    with zipfile.ZipFile(archives[1]) as archive:
        members = set(archive.namelist())
    licenses = {"licenses/docs/LICENSE", "licenses/tinygrad_mnist/data/NOTICE.md"}
    about = {f"{NAME}.dist-info/{name}" for name in {"METADATA", "RECORD", "WHEEL"} | licenses}
    assert members == FILES | about
    assert {f"tinygrad_mnist/{name}" for name in ("py.typed", "data/mnist_20k.npz")} <= members


def test_twine_finds_nothing_wrong(archives):
    assert run("-m", "twine", "check", "--strict", *archives).count("PASSED") == 2


def test_the_wheel_trains_away_from_the_checkout_with_what_it_declares_alone(archives, tmp_path):
    install = ("--no-deps", "--no-index", "--quiet", "--target", tmp_path / "installed")
    run("-m", "pip", "--disable-pip-version-check", "install", *install, archives[1])
    with zipfile.ZipFile(archives[1]) as archive:
        about = Parser().parsestr(archive.read(f"{NAME}.dist-info/METADATA").decode())
    required = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    names = [line.partition(">=")[0] for line in required]
    script = tmp_path / "train.py"
    script.write_text(TRAINING)
    printed = run("-W", "error", script, tmp_path / "installed", *names, cwd=tmp_path)
    file, version, accuracy = printed.split()
    assert Path(file).is_relative_to(tmp_path)
    assert version == tinygrad_mnist.__version__
    assert float(accuracy) > 0.75


def test_the_top_level_holds_what_the_readme_says_and_nothing_else():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: what is tracked is not known")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {path.split("/")[0] for path in listed if not path.startswith(".")}
    assert top == {"README.md", "docs", "examples", "pyproject.toml", "tests", "tinygrad_mnist"}
