"""Every file that the package writes is whole at any moment, whoever writes and however it ends."""

import errno
import gc
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import refusal, run_python

from tinygrad_mnist import Linear
from tinygrad_mnist.training import History, checkpoint

MODEL, HISTORY = Linear(2, 2, rng=0), History([{"epoch": 1, "loss": 0.5}])


def export(path):
    pytest.importorskip("safetensors", reason="needs the extra `safetensors`")
    from tinygrad_mnist.interop.safetensors import export_safetensors

    export_safetensors(path, MODEL)


WRITERS = {
    "checkpoint.save": lambda path: checkpoint.save(path, MODEL),
    "History.to_json": HISTORY.to_json,
    "History.to_csv": HISTORY.to_csv,
    "export_safetensors": export,
}
every_writer = pytest.mark.parametrize("writer", WRITERS)
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks, modes and links")

LEFT = r"\.[0-9a-f]{16}\.tmp"  # what a killed writer leaves is named like the file, and this


def modes(path):
    return stat.S_IMODE(path.stat().st_mode)


@every_writer
def test_threads_may_write_and_read_one_path(tmp_path, monkeypatch, writer):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # or most of the time would be the disk's
    path, failures = tmp_path / "file", []
    WRITERS[writer](path)
    whole = path.read_bytes()

    def write():
        try:
            for _ in range(100):
                WRITERS[writer](path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() == whole
    assert failures == []
    assert os.listdir(tmp_path) == ["file"]


@posix
@every_writer
@pytest.mark.parametrize("mode", [0o600, 0o666, 0o444])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, writer, mode):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    WRITERS[writer](path)
    assert modes(path) == mode
    assert path.read_bytes() != b"old"


@posix
@every_writer
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_usual_mode(tmp_path, writer, umask):
    before = os.umask(umask)
    try:
        WRITERS[writer](tmp_path / "file")
    finally:
        os.umask(before)
    assert modes(tmp_path / "file") == 0o666 & ~umask


@posix
def test_the_content_is_never_open_to_more_people_than_the_old_file(tmp_path, monkeypatch):
    path, found = tmp_path / "file", []
    path.touch(mode=0o600)
    fchmod = os.fchmod

    def spy(file, mode):
        found.append(stat.S_IMODE(os.fstat(file).st_mode))
        fchmod(file, mode)

    monkeypatch.setattr(os, "fchmod", spy)
    HISTORY.to_json(path)
    assert found == [0o600]


@every_writer
def test_a_folder_that_is_not_there_is_named_with_the_path_as_it_was_given(
    tmp_path, monkeypatch, writer
):
    monkeypatch.chdir(tmp_path)
    path = os.path.join("none", "file")
    contract = f"{writer}: expected path to be a file, in a folder that is there"
    with refusal(FileNotFoundError, f"{contract}, got {str(path)!r}"):
        WRITERS[writer](path)


@posix
@every_writer
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link to a pipe"])
def test_only_regular_files_are_replaced(tmp_path, writer, kind):
    path = tmp_path / "file"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = os.devnull
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    before = sorted(os.listdir(tmp_path)), os.stat(path).st_ino
    contract = "path to be a file, in a folder that is there"
    with refusal(ValueError, f"{writer}: expected {contract}, got {str(path)!r}"):
        WRITERS[writer](path)
    assert (sorted(os.listdir(tmp_path)), os.stat(path).st_ino) == before


@posix
@every_writer
def test_a_link_is_followed_and_stays(tmp_path, writer):
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")  # there is none yet
    for _ in range(2):
        WRITERS[writer](link)
        assert link.is_symlink()
        assert os.listdir(tmp_path / "folder") == ["file"]


@posix
def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(secrets, "token_hex", lambda n: "0123456789abcdef")
    (tmp_path / "file.0123456789abcdef.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        HISTORY.to_json(tmp_path / "file")
    assert victim.read_text() == "precious"


def left_behind(folder):
    """Return what is beside the file, which must be what killed writers leave."""
    names = sorted({*os.listdir(folder)} - {"file"})
    assert all(re.fullmatch("file" + LEFT, name) for name in names)
    return names


def killed(path):
    """Write path in a process that is killed before the new file has its name."""
    program = (
        "import os, signal, sys\nfrom tinygrad_mnist.training import History\n"
        "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        "History([{'epoch': 9}]).to_json(sys.argv[1])\n"
    )
    assert run_python("-c", program, path).returncode == -9


@posix
def test_the_next_writer_removes_what_killed_writers_left(tmp_path):
    path = tmp_path / "file"
    HISTORY.to_json(path)
    whole = path.read_bytes()
    killed(path)
    assert path.read_bytes() == whole
    assert len(left_behind(tmp_path)) == 1
    others = ["file.tmp", "file.0123.tmp", "file-2.0123456789abcdef.tmp"]
    for name in others:
        (tmp_path / name).touch()
    WRITERS["checkpoint.save"](path)
    assert sorted(os.listdir(tmp_path)) == sorted(["file", *others])


@posix
def test_a_name_with_brackets_is_no_pattern(tmp_path):
    others = ["1.0123456789abcdef.tmp", "file.0123456789abcdef.tmp"]
    for name in [*others, "[1*].0123456789abcdef.tmp"]:
        (tmp_path / name).touch()
    HISTORY.to_json(tmp_path / "[1*]")
    assert sorted(os.listdir(tmp_path)) == sorted(["[1*]", *others])


@posix
def test_what_another_writer_is_writing_is_not_removed(tmp_path, monkeypatch):
    path, fsync, during = tmp_path / "file", os.fsync, []

    def meanwhile(file):
        if not during:
            during.append(left_behind(tmp_path))
            History([{"epoch": 9}]).to_json(path)
            during.append(left_behind(tmp_path))
        fsync(file)

    monkeypatch.setattr(os, "fsync", meanwhile)
    HISTORY.to_json(path)
    assert len(during[0]) == 1
    assert during[1] == during[0]
    assert os.listdir(tmp_path) == ["file"]
    assert History.from_json(path) == HISTORY  # of the one that ended last


@every_writer
def test_a_temporary_file_that_somebody_removed_is_written_again(tmp_path, monkeypatch, writer):
    path, fsync, removed = tmp_path / "file", os.fsync, []
    WRITERS[writer](path)
    whole = path.read_bytes()
    path.write_text("old")

    def meanwhile(file):
        fsync(file)
        if not removed:
            removed.extend(left_behind(tmp_path))
            (tmp_path / removed[0]).unlink()

    monkeypatch.setattr(os, "fsync", meanwhile)
    WRITERS[writer](path)
    assert len(removed) == 1
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["file"]


@posix
@pytest.mark.parametrize("hours", [23, 25])
def test_without_locks_what_was_left_is_removed_a_day_later(tmp_path, monkeypatch, hours):
    import fcntl

    def none_here(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none_here)
    left = tmp_path / "file.0123456789abcdef.tmp"
    left.touch()
    then = time.time() - hours * 3600
    os.utime(left, (then, then))
    HISTORY.to_json(tmp_path / "file")
    assert left.exists() == (hours < 24)
    assert History.from_json(tmp_path / "file") == HISTORY


def test_where_python_has_no_fcntl_files_are_written_too(tmp_path):
    program = (
        "import sys\nsys.modules['fcntl'] = None\n"
        "from tinygrad_mnist.training import History\n"
        "for epoch in (1, 2): History([{'epoch': epoch}]).to_json(sys.argv[1])\n"
    )
    done = run_python("-c", program, tmp_path / "file")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path) == ["file"]
    assert History.from_json(tmp_path / "file").records == [{"epoch": 2}]


@posix
@every_writer
def test_the_file_reaches_the_disk_before_its_name_does_and_the_name_too(
    tmp_path, monkeypatch, writer
):
    events, fsync, replace = [], os.fsync, os.replace

    def spy_fsync(file):
        events.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    def spy_replace(old, new):
        events.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    WRITERS[writer](tmp_path / "file")
    assert events == ["file", "name", "folder"]


@every_writer
@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_the_old_file(
    tmp_path, monkeypatch, writer, function, error
):
    path = tmp_path / "file"
    path.write_text("old")

    def fails(*args):
        raise error

    monkeypatch.setattr(os, function, fails)
    with pytest.raises(type(error)) as caught:
        WRITERS[writer](path)
    assert caught.value is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def interrupted_at(line, call):
    """Call, and press Ctrl-C when it comes to its n-th line; return whether it had as many."""
    lines = 0

    def trace(frame, event, arg):
        nonlocal lines
        lines += event == "line" and frame.f_code.co_name != "__del__"  # lost there, whoever writes
        if lines == line:
            sys.settrace(None)
            lines += 1
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    gc.disable()  # what it calls is not of the call, and cannot raise
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
        gc.enable()
    return lines > line


# since Python 3.13 a finalizer that fails says so: that of zipfile does after a Ctrl-C inside it
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <zipfile._Zip:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@every_writer
def test_ctrl_c_at_any_line_comes_out_as_itself_and_leaves_a_whole_file(
    tmp_path, monkeypatch, writer
):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    path = tmp_path / "file"
    WRITERS[writer](path)
    whole, line = path.read_bytes(), 1
    while interrupted_at(line, lambda: WRITERS[writer](path)):
        assert path.read_bytes() == whole
        left_behind(tmp_path)
        line += 1
    assert line > 50
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.slow
@posix
def test_kill_9_while_saving_leaves_nothing_after_the_next_save(tmp_path):
    path = tmp_path / "file"
    program = (
        "import os, sys\nfrom tinygrad_mnist import Linear\n"
        "from tinygrad_mnist.training import checkpoint\n"
        "model = Linear(300, 300, rng=0)\n"
        "for _ in sys.stdin:\n    pid = os.fork()\n"
        "    while not pid:\n        checkpoint.save(sys.argv[1], model)\n"
        "    print(pid, flush=True)\n    os.waitpid(pid, 0)\n    print(flush=True)\n"
    )
    left, rng = 0, np.random.default_rng(0)
    checkpoint.save(path, Linear(300, 300, rng=1))
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(10):
            process.stdin.write("\n")
            process.stdin.flush()
            saving = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.02))
            os.kill(saving, signal.SIGKILL)
            process.stdout.readline()
            checkpoint.load(path, Linear(300, 300))
            left += len(left_behind(tmp_path))
            checkpoint.save(path, Linear(300, 300, rng=1))
            assert os.listdir(tmp_path) == ["file"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert left  # else this has shown nothing
