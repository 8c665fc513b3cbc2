"""The server of the page without a browser: what it answers, what it refuses, how it ends."""

import contextlib
import http.client
import json
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from tinygrad_mnist import Linear, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.page import runs
from tinygrad_mnist.page.faults import FAULTS, setups
from tinygrad_mnist.page.reading import LARGEST
from tinygrad_mnist.page.routes import ROUTES
from tinygrad_mnist.page.server import LONGEST_BODY, METHODS, Handler, Server
from tinygrad_mnist.page.setups import CHOICES

FIRST = {name: known[0] for name, known in CHOICES.items()} | {"fault": "none"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server():
    model = Sequential(Linear(784, 20, rng=0, input_grad=False), ReLU(), Linear(20, 10, rng=1))
    with Server(0, model) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server, method, path, body=None, **headers):
    """Return the status, the headers and the content of an answer."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def posted(server, path, **body):
    status, _, content = asked(server, "POST", path, json.dumps(body), **JSON)
    return status, json.loads(content)


def raw(server, request, close=True):
    """Return the status of the answer to these bytes, and what it says is wrong."""
    with socket.create_connection(server.server_address, 20) as connection:
        connection.sendall(request)
        if close:
            connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    status = int(re.match(rb"HTTP/1\.0 (\d{3}) ", head)[1])
    return status, json.loads(content)["error"] if content else ""


def test_the_page_begins_with_what_there_is_to_choose(server):
    status, headers, content = asked(server, "GET", "/start")
    found = json.loads(content)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert found["choices"].pop("fault") == ["none", *FAULTS]
    assert found["choices"] == json.loads(json.dumps(CHOICES))
    (_, _), (images, labels) = mnist.load_data()
    assert sorted(found["labels"]) == sorted([*range(10)] * 3)
    rows = [bytes(pixels) for pixels in found["gallery"]]
    numbers = [next(i for i, x in enumerate(images) if x.tobytes() == row) for row in rows]
    assert labels[numbers].tolist() == found["labels"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/favicon.ico", "image/svg+xml"),
    ],
)
def test_files_are_served_with_their_kind_and_nothing_from_elsewhere_is_allowed(server, path, kind):
    status, headers, content = asked(server, "GET", path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert headers["Content-Security-Policy"] == "default-src 'self'"
    assert int(headers["Content-Length"]) == len(content) > 100
    assert not re.search(rb"(src|href|import|url)\W+(https?:)?//", content)


def test_a_drawing_is_read_by_the_opened_model(server):
    image = np.random.default_rng(0).integers(0, 256, 784)
    pixels = image.tolist()
    status, found = posted(server, "/read", pixels=pixels, run=None)
    assert (status, found["broken"], found["image"]) == (200, None, pixels)
    assert found["prediction"] == server.page.model((image / 255).astype(np.float32)).argmax()


@pytest.mark.parametrize("fault", ["Dropout scales forward, not backward", "dx misses a transpose"])
def test_the_models_of_a_run_read_a_drawing_and_the_broken_one_needs_no_backward(
    server, monkeypatch, fault
):
    monkeypatch.setattr(runs, "EPOCHS", 0)
    _, started = posted(server, "/run", **FIRST | {"fault": fault})
    assert "# wrong: " in started["source"]
    pixels = [0, 255] * 392
    status, found = posted(server, "/read", pixels=pixels, run=started["run"])
    right, broken = setups({}, fault)
    model, loss, optimizer = right.build()
    assert started["model"] == f"{model!r}\n{loss!r}\n{optimizer!r}"
    assert [layer["path"] for layer in found["layers"]] == [str(i) for i in range(len(model))]
    image = np.array(pixels, np.float32).reshape(1, 28, 28, 1) / 255
    reads = [setup.build()[0].eval()(image).argmax() for setup in (right, broken)]
    assert (status, [found["prediction"], found["broken"]]) == (200, reads)
    progress_of(server, started["run"])  # with no epoch: others would train on what tests replace


def test_the_largest_drawing_is_taken_even_if_it_is_all_ink(server):
    wanted = posted(server, "/read", pixels=[255] * 29**2, run=None)[1]["image"]
    status, found = posted(server, "/read", pixels=[255] * LARGEST**2, run=None)
    assert status == 200
    np.testing.assert_allclose(found["image"], wanted, atol=1)


def test_two_tabs_do_not_disturb_each_other(server, monkeypatch):
    x, t = np.ones((200, 28, 28, 1), np.float32), np.eye(10, dtype=np.float32)[np.arange(200) % 10]
    monkeypatch.setattr(runs, "images", lambda: ((x, t), (x, t)))
    monkeypatch.setattr(runs, "EPOCHS", 2)
    one, other = (posted(server, "/run", **FIRST)[1]["run"] for _ in range(2))
    assert len(one) >= 22  # 16 bytes or more
    assert posted(server, "/stop", run=one) == (200, {"state": "stopped"})
    done = progress_of(server, other)
    assert (done["epoch"], done["points"][-1][0]) == (2, done["step"])
    stopped = posted(server, "/progress", run=one, since=0)[1]
    assert stopped["state"] == "stopped"
    assert posted(server, "/go_on", run=one)[0] == 200
    assert progress_of(server, one)["points"] == done["points"]


def test_the_runs_that_a_tab_has_ended_take_no_place_of_another(server, monkeypatch):
    monkeypatch.setattr(runs, "EPOCHS", 0)
    other = posted(server, "/run", **FIRST)[1]["run"]
    progress_of(server, other)
    for _ in range(runs.KEPT):
        one = posted(server, "/run", **FIRST)[1]["run"]
        progress_of(server, one)
        assert posted(server, "/end", run=one) == (200, {})
        assert posted(server, "/progress", run=one, since=0)[0] == 200  # asked before it ended
    assert posted(server, "/end", run="another") == (200, {})
    assert posted(server, "/progress", run=other, since=0)[0] == 200


def progress_of(server, run):
    for _ in range(1000):
        _, found = posted(server, "/progress", run=run, since=0)
        if found["state"] == "done":
            return found
        time.sleep(0.01)
    raise AssertionError(found)


@pytest.mark.parametrize(
    ("port", "names"),
    [(80, ["127.0.0.1", "localhost"]), (800, ["127.0.0.1:800", "localhost:800"])],
)
def test_it_goes_by_the_names_that_browsers_call_it(monkeypatch, port, names):
    def bound(server):
        server.server_address = ("127.0.0.1", port)

    monkeypatch.setattr(Server, "server_bind", bound)
    monkeypatch.setattr(Server, "server_activate", lambda _: None)
    with Server(port, Sequential()) as server:
        assert (server.names, server.address) == (names, f"http://{names[0]}")


def test_foreign_hosts_and_origins_are_refused(server):
    port = server.server_address[1]
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}"):
        assert asked(server, "GET", "/start", Host=host)[0] == 200
        assert asked(server, "GET", "/start", Host=host, Origin=f"http://{host.lower()}")[0] == 200
    known = f"127.0.0.1:{port} or localhost:{port}"
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        refused = raw(server, f"GET /start HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert refused == (403, f"page: expected Host: {known}, got {host or 'none'}")
    for origin in (
        "http://evil.example",
        "null",
        f"https://127.0.0.1:{port}",
        f"http://localhost:{port}",
    ):
        head = f"GET /start HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {origin}\r\n\r\n"
        wanted = f"page: expected Origin: http://127.0.0.1:{port}, got {origin}"
        assert raw(server, head.encode()) == (403, wanted)


BODY = b'{"run": "x", "since": 0}'
TOO_LONG = str(LONGEST_BODY + 1)


@pytest.mark.parametrize(
    ("line", "headers", "body", "status", "told"),
    [
        ("GET /none HTTP/1.1", {}, b"", 404, f"a path, one of {' '.join(METHODS)}, got '/none'"),
        ("GET /read HTTP/1.1", {}, b"", 405, "the method POST, got 'GET'"),
        ("PUT /start HTTP/1.1", {}, b"", 405, "the method GET, got 'PUT'"),
        ("GET /start HTTP/2.0", {}, b"", 400, "a request of HTTP/1.1, got Invalid HTTP version"),
        ("", {}, b"", 400, "a request of HTTP/1.1, got an empty line"),
        ("G" * 70_000, {}, b"", 414, "a line of at most 65536 bytes, got a longer one"),
        (
            None,
            dict.fromkeys(map(str, range(200))),
            b"",
            431,
            "a request of HTTP/1.1, got Too many",
        ),
        (None, {"Content-Length": None}, b"", 411, "a Content-Length, got none"),
        (None, {"Transfer-Encoding": "chunked"}, BODY, 411, "a Content-Length, got none"),
        (
            None,
            {"Content-Length": "-1"},
            BODY,
            400,
            "one Content-Length, a number of bytes, got -1",
        ),
        (
            None,
            {"content-length": "24"},
            BODY,
            400,
            "one Content-Length, a number of bytes, got 24,",
        ),
        (None, {}, b" " * 6_000_000, 413, f"a body of at most {LONGEST_BODY} bytes, got 6000000"),
        (None, {"Content-Length": TOO_LONG}, BODY, 413, f"a body of at most {LONGEST_BODY} bytes"),
        (None, {"Content-Type": "text/plain"}, BODY, 415, "Content-Type: application/json, got te"),
        (None, {"Content-Length": "99"}, BODY, 400, "a body of 99 bytes, got 24"),
        (None, {}, b"{", 400, "a body of JSON, got Expecting property name"),
        (None, {}, b"\xff", 400, "a body of JSON, got 'utf-8' codec can't decode byte 0xff"),
        (None, {}, b"[" * 100_000, 400, "a body of JSON, got maximum recursion depth exceeded"),
        (None, {}, b"9" * 5_000, 400, "a body of JSON, got Exceeds the limit"),
        (None, {}, b"NaN", 400, "an object with the keys run, since, got nan"),
        (None, {}, b"[]", 400, "an object with the keys run, since, got a list"),
        (None, {}, b'{"run": "x"}', 400, "an object with the keys run, since, got 'run'"),
        (None, {}, b'{"run": 1, "since": 0}', 400, "run to be a string, got 1"),
        (None, {}, b'{"run": "x", "since": NaN}', 400, "since to be an integer >= 0, got nan"),
        (None, {}, b'{"run": "x", "since": -1}', 400, "since to be an integer >= 0, got -1"),
        (None, {}, BODY, 404, "run to be among the 8 that were last asked for, got 'x'"),
    ],
)
def test_a_refusal_says_what_was_expected(server, line, headers, body, status, told):
    line = "POST /progress HTTP/1.1" if line is None else line
    known = {"Host": server.names[0], "Content-Length": str(len(body)), **JSON, **headers}
    if headers.get("Content-Length", "") is None:
        del known["Content-Length"]
    head = [line, *(f"{name}: {value}" for name, value in known.items()), "", ""]
    found, error = raw(server, "\r\n".join(head).encode() + body)
    assert (found, error[: len(told) + 15]) == (status, f"page: expected {told}")


@pytest.mark.parametrize("name", FIRST)
def test_nothing_is_chosen_that_is_not_offered(server, name):
    before = len(server.page.runs._runs)
    offered = ["none", *FAULTS] if name == "fault" else CHOICES[name]
    wanted = f"page: expected {name} to be one of {', '.join(map(str, offered))}, got "
    for value in ("", None, True, False, [], {}, 10**30, -1.5, "evil"):
        status, answer = posted(server, "/run", **FIRST | {name: value})
        assert (status, answer["error"][: len(wanted)]) == (400, wanted)
    assert len(server.page.runs._runs) == before


WRONG = {  # what may stand in one place of a request
    "line": [b"", b"\x16\x03\x01\x02", b"POST", b"POST /run", b"PRI * HTTP/2.0", b"a b c d"],
    "method": [b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"post", b"\0", b"\xff"],
    "path": [
        b"/../page",
        b"/run?x",
        b"/%72un",
        b"http://127.0.0.1/run",
        b"*",
        b"run",
        b"x" * 65_520,
    ],
    "version": [b"HTTP/9.9", b"HTTP/1.x", b"HTTP", b"HTTP/1.1 x", b"SPDY/3", b""],
    "host": [b"evil.example", b"127.0.0.1", b"127.0.0.1:99999", b"a" * 60_000, b""],
    "length": [b"-5", b"+5", b"5.0", b"1e3", b"0x5", b"5, 5", b"", b"9" * 40, TOO_LONG.encode()],
    "kind": [b"text/plain", b"application/x-www-form-urlencoded", b"", b"\xff", b"json"],
    "more": [
        *(b"Origin: null", b"Origin: http://evil.example", b"Transfer-Encoding: chunked"),
        *(b"Content-Length: 5", b"Host: 127.0.0.1", b"no colon"),
        *(b"x:" + b"x" * 70_000, b"x: 1\r\n" * 150),
    ],
    "body": [b"", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 9_000, b"nul", b"9" * 5_000, b"Infinity"],
}
VALUES = [
    None,
    True,
    -1,
    1.5,
    10**400,
    float("nan"),
    "\ud800",
    "x" * 9_000,
    [],
    {},
    [[]],
    [256] * 784,
]


def malformed(rng, host):
    """Return a request that is wrong in one place."""
    path = ["/read", "/run", "/progress", "/stop", "/go_on", "/end"][rng.integers(6)]
    values = {key: VALUES[rng.integers(len(VALUES))] for key in [*ROUTES[path], "more"]}
    bodies = [json.dumps(values).encode(), json.dumps(values | {"fault": 1}).encode()]
    parts = {
        "method": b"POST",
        "path": path.encode(),
        "version": b"HTTP/1.1",
        "host": host.encode(),
        "kind": b"application/json",
        "more": b"x: x",
        "body": json.dumps({key: FIRST.get(key, "x") for key in ROUTES[path]}).encode(),
    }
    bodies.append(parts["body"][: rng.integers(len(parts["body"]))])
    place = [*WRONG][rng.integers(len(WRONG))]
    drawn = {"body": bodies, "more": []}.get(place, [rng.bytes(rng.integers(1, 99))])
    wrong = [*WRONG[place], *drawn]
    parts[place] = wrong[rng.integers(len(wrong))]
    parts.setdefault("line", b"%(method)b %(path)b %(version)b" % as_bytes(parts))
    parts.setdefault("length", b"%d" % len(parts["body"]))
    return b"""%(line)b\r
Host: %(host)b\r
Content-Type: %(kind)b\r
%(more)b\r
Content-Length: %(length)b\r
\r
%(body)b""" % as_bytes(parts)


def as_bytes(parts):
    return {name.encode(): part for name, part in parts.items()}


def answers_to_malformed(server, count):
    """Return how many of so many malformed requests got each status."""
    rng, answers = np.random.default_rng(0), Counter()
    for _ in range(count):
        request = malformed(rng, server.names[0])
        status, error = raw(server, request)
        assert error.startswith("page: expected "), request
        answers[status] += 1
    return answers


def test_malformed_requests_are_all_answered_and_change_nothing(server):
    before = dict(server.page.runs._runs)
    progress = [run.progress(0) for run in before.values()]
    answers = answers_to_malformed(server, 250)
    assert answers.total() == 250
    assert set(answers) == {400, 403, 404, 405, 411, 413, 415, 431}
    assert server.page.runs._runs == before
    assert [run.progress(0) for run in before.values()] == progress
    assert asked(server, "GET", "/start")[0] == 200


def test_a_slow_client_is_told_so(server, monkeypatch):
    monkeypatch.setattr(Handler, "timeout", 0.05)
    late = (408, "page: expected a request within 0.05 seconds, got a part of it")
    head = f"POST /stop HTTP/1.1\r\nHost: {server.names[0]}\r\nContent-Type: application/json\r\n"
    for part in ("POST", head, f"{head}Content-Length: 99\r\n\r\n{{"):
        assert raw(server, part.encode(), close=False) == late


def test_who_leaves_before_the_answer_disturbs_nobody(server, capfd):
    for part in (b"", b"GET", f"GET / HTTP/1.1\r\nHost: {server.names[0]}\r\n\r\n".encode()):
        with socket.create_connection(server.server_address) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(part)  # and then a reset
    assert asked(server, "GET", "/start")[0] == 200
    assert capfd.readouterr().err == ""


def test_what_it_cannot_start_with_is_said_in_a_line(server, monkeypatch, tmp_path):
    port = server.server_address[1]
    for options, told in (
        (["--port", str(port)], f"port {port} is in use: choose another, or 0 for any"),
        (
            ["--model", str(tmp_path / "x")],
            f"[Errno 2] No such file or directory: '{tmp_path / 'x'}'",
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["page", *options])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("tinygrad_mnist.page", run_name="__main__")
        assert ended.value.code == told


def test_it_says_its_address_first_and_ctrl_c_ends_it_while_it_trains():
    command = [sys.executable, "-m", "tinygrad_mnist.page", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as page:
        address = re.fullmatch(r"http://(127\.0\.0\.1):(\d+)\n", page.stdout.readline())
        connection = http.client.HTTPConnection(address[1], int(address[2]), timeout=20)
        connection.request("POST", "/run", json.dumps(FIRST), JSON)
        assert connection.getresponse().status == 200
        with socket.create_connection((address[1], int(address[2]))):  # which asks nothing
            time.sleep(0.2)
            page.send_signal(signal.SIGINT)
            started = time.perf_counter()
            assert (page.wait(10), *page.communicate()) == (0, "", "")
            assert time.perf_counter() - started < 5  # on a machine with much else to do


def test_a_mistake_of_the_server_is_answered_too(server, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(server, "handle_error", lambda *_: told.set())  # in the terminal
    monkeypatch.setattr(server.page, "start", lambda: 1 / 0)
    status, _, content = asked(server, "GET", "/start")
    assert (status, json.loads(content)) == (
        500,
        {"error": "page: ZeroDivisionError: division by zero"},
    )
    assert told.wait(10)
