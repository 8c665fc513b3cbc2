"""The page in Chromium: drawing, training and breaking, by mouse, by finger and by keys alone."""

import re
import shutil
import subprocess
import sys
import time
from functools import partial

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")
expect = playwright.expect
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium: chromium-headless-shell of Debian"),
]

PATIENCE = 60_000  # ms, of a machine with other work
STROKES = {1: [(140, 50), (140, 230)], 7: [(80, 60), (200, 60), (130, 230)]}  # of 280 x 280 pixels
ACCURACY = re.compile(r"\d+\.\d %")


@pytest.fixture(scope="module")
def address():
    command = [sys.executable, "-m", "tinygrad_mnist.page", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield re.search(r"http://\S+:\d+", server.stdout.readline())[0]
        server.terminate()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        expect.set_options(timeout=PATIENCE)
        with driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser:
            yield browser


@pytest.fixture
def opened(browser, address):
    """Return a function that opens a tab. No tab may log a word, or ask another host."""
    tabs, wrong, asked = [], [], []

    def tab(**options):
        page = browser.new_page(**options)
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        expect(page.locator("#gallery button")).to_have_count(30)
        tabs.append(page)
        return page

    yield tab
    for page in tabs:
        page.goto("about:blank")  # the tab's run stops
        page.close()
    assert wrong == []
    assert all(url.startswith(f"{address}/") for url in asked)


def on_the_page(page, points):
    """Return where points of the drawing are on the screen."""
    box = page.locator("#digit").bounding_box()
    scale = box["width"] / 280
    return [(box["x"] + x * scale, box["y"] + y * scale) for x, y in points]


def draw(page, points):
    start, *others = on_the_page(page, points)
    page.mouse.move(*start)
    page.mouse.down()
    for point in others:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def reads(page, digit):
    expect(page.locator("#prediction")).to_have_text(str(digit))


def accuracy(page):
    return float(page.locator("#accuracy").inner_text().removesuffix(" %") or 0)


def steps(page):
    """Return how many steps the model had made that read the drawing last."""
    return int(page.locator("#reader").inner_text().removeprefix("by the model in training, step "))


def wait_until(page, condition):
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)


def test_what_the_mouse_draws_is_read_and_a_blank_drawing_is_not(opened):
    page = opened()
    reads(page, "")
    for digit, points in STROKES.items():
        draw(page, points)
        reads(page, digit)
        expect(page.locator("#scores .best")).to_have_text(str(digit))
        expect(page.locator("#reader")).to_have_text("by the model opened")
        assert page.locator("#activations canvas").count() > 3
        page.locator("#clear").click()
        reads(page, "")


def test_a_training_learns_stops_goes_on_and_reads_the_drawing_all_along(opened, address):
    page = opened()
    draw(page, STROKES[7])
    page.locator("#batch_size").select_option("5")  # so many steps that it does not end by itself
    with page.expect_response("**/run") as run:
        page.locator("#train").click()
    expect(page.locator("#accuracy")).to_have_text(ACCURACY)
    first = accuracy(page)
    wait_until(page, lambda: accuracy(page) > max(80, first))
    reads(page, 7)
    expect(page.locator("#activations li")).to_have_count(4)  # of the model in training
    of_run = {"run": run.value.json()["run"], "since": 0}
    progress = partial(page.request.post, f"{address}/progress", data=of_run)
    page.locator("#stop").click()
    expect(page.locator("#state")).to_have_text("stopped")
    page.wait_for_timeout(300)  # it ends the step that it is in
    before = progress().json()["step"]
    page.wait_for_timeout(300)
    assert progress().json()["step"] == before > 0
    page.locator("#stop").click()
    wait_until(page, lambda: steps(page) > before)
    assert page.locator("#accuracy-curve .right").get_attribute("points").count(",") > 1
    expect(page.locator("#verdict")).to_have_text(re.compile("^right: "))
    page.goto("about:blank")  # nobody watches any more
    wait_until(page, lambda: progress().json()["state"] == "done")


def test_a_mistake_shows_its_code_its_curve_what_it_reads_and_the_verdict(opened):
    page = opened()
    draw(page, STROKES[1])
    for fault, verdict, code in (
        ("dx misses a transpose", "wrong", "return dy @ self.weight.data"),
        ("gradients are never zeroed", "cannot see", "def never_zeroed"),
    ):
        page.locator("#fault").select_option(fault)
        expect(page.locator("#verdict strong")).to_have_text(verdict)
        expect(page.locator("#verdict")).to_have_text(re.compile(f"^{verdict}: "))
        expect(page.locator("#source")).to_contain_text(code)
        expect(page.locator("#broken-accuracy")).to_have_text(ACCURACY)
        expect(page.locator("#accuracy")).to_have_text(ACCURACY)
        for curve in page.locator("#both-curves polyline").all():
            expect(curve).to_have_attribute("points", re.compile(","))
        for model in ("right", "broken"):
            expect(page.locator(f"#{model}-reads")).to_have_text(re.compile(r"\d"))
    page.locator("#fault").select_option("none")
    expect(page.locator("#reader")).to_have_text("by the model opened")
    reads(page, 1)
    for emptied in ("#verdict", "#source", "#accuracy", "#broken-accuracy", "#broken-reads"):
        expect(page.locator(emptied)).to_have_text("")


def test_on_a_phone_a_finger_draws_and_nothing_scrolls_sideways(opened):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator("#digit").scroll_into_view_if_needed()
    touch = page.context.new_cdp_session(page)
    down, *others = on_the_page(page, STROKES[7])
    for kind, points in (
        ("touchStart", [down]),
        *(("touchMove", [point]) for point in others),
        ("touchEnd", []),
    ):
        places = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
    reads(page, 7)
    assert page.evaluate("[scrollX, scrollY]") == [0, 0]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for scheme, ground in (("light", "rgb(243, 244, 246)"), ("dark", "rgb(18, 20, 24)")):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
    page.emulate_media(color_scheme="light", forced_colors="active")  # white ink needs its black
    assert page.evaluate("getComputedStyle(digit).backgroundColor") == "rgb(0, 0, 0)"


def test_on_a_phone_a_mistake_moves_no_control_and_hides_no_code(opened):
    page = opened(viewport={"width": 390, "height": 844})
    fault = page.locator("#fault")
    fault.scroll_into_view_if_needed()
    before = fault.bounding_box()
    fault.select_option("gradients are never zeroed")
    expect(page.locator("#activations li")).to_have_count(4)  # fewer than those of the model opened
    expect(page.locator("#model")).to_contain_text("SGD(4 parameters, lr=0.1,")
    assert fault.bounding_box() == before
    assert page.evaluate("source.scrollWidth <= source.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_keys_alone_choose_an_image_train_and_break(opened):
    page = opened()

    def tab_to(place):
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches('{place}')"):
                return
        pytest.fail(f"Tab does not lead to {place}")

    tab_to("#gallery button")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    name = page.locator("#gallery button").nth(11).get_attribute("aria-label")
    page.keyboard.press("Enter")
    reads(page, name.removeprefix("Test image of a "))
    tab_to("#train")
    page.keyboard.press("Enter")
    expect(page.locator("#accuracy")).to_have_text(ACCURACY)
    tab_to("#fault")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#verdict")).to_have_text(re.compile(r"^(wrong|cannot see): "))


def test_of_a_training_that_diverged_the_finite_numbers_are_drawn(opened):
    page = opened()
    points = [[10, [2.0, 0.5], [None, 0.1]], [20, [None, 0.1], [None, 0.1]]]
    answer = {"state": "diverged", "verdict": None, "step": 20, "points": points}
    page.route("**/progress", lambda route: route.fulfill(json=answer))
    page.locator("#train").click()
    expect(page.locator("#state")).to_have_text("diverged")
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#broken-accuracy")).to_have_text("10.0 %, diverged")
    drawn = {
        curve: page.locator(f"#{curve}").get_attribute("points").count(",")
        for curve in ("loss-curve .right", "accuracy-curve .right", "both-curves .broken")
    }
    assert list(drawn.values()) == [1, 2, 2]


def test_a_server_or_a_run_that_is_gone_is_said_to_be(browser, address):
    page = browser.new_page()
    page.goto(address)
    reads(page, "")
    page.context.set_offline(True)
    draw(page, STROKES[7])
    expect(page.locator("#trouble")).to_contain_text("The server does not answer")
    page.context.set_offline(False)
    reads(page, 7)
    expect(page.locator("#trouble")).to_have_text("")

    page.route("**/progress", lambda route: route.fulfill(status=404, json={"error": "no run"}))
    page.locator("#train").click()
    expect(page.locator("#reader")).to_have_text("by the model opened")
    gone = "This training is gone, Train starts another: no run"
    expect(page.locator("#trouble")).to_have_text(gone)
    page.close()
