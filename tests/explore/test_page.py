# Copyright 2026 The matnet-tf authors.
# SPDX-License-Identifier: Apache-2.0
"""The page in headless Chromium, served by `matnet explore`: load, move, paint, read the result."""

import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LACKING = [name for name in ("gradio", "playwright") if not importlib.util.find_spec(name)]
LACKING += [] if CHROMIUM else ["chromium"]
pytestmark = [
    pytest.mark.explore,
    pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}"),
]
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
]
PATIENCE = 120_000  # Milliseconds; the first answer traces a graph.


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def serve(folder, *arguments):
    """Starts `matnet explore`; returns the process and the page's address."""
    command = [sys.executable, "-m", "matnet_tf", "explore", "--port=0", *arguments]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    del env["TF_CPP_MIN_LOG_LEVEL"]  # The tests' own, which lets TensorFlow's banners through.
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=-1, stderr=-1, text=True)
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line + process.stderr.read()
    return process, found[0]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    process, address = serve(tmp_path_factory.mktemp("run"), "--preset=digits", "--images=12")
    yield address
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "matnet explore: interrupted\n")


@pytest.fixture(params=[1280, 390])
def page(request, browser, digits):
    """The page on a screen and on a phone; it must not ask any other machine for anything."""
    yield from opened(browser, digits, request.param)


def opened(browser, address, width):
    page, hosts, errors = browser.new_page(viewport={"width": width, "height": 800}), set(), []
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: hosts.add(re.sub("^(data|blob):.*", address, request.url)))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    yield page
    assert all(host.startswith(address) for host in hosts) and not errors, (hosts, errors)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def figure(page):
    """The figure that is shown first; waits for one."""
    return page.locator("figure:visible").first


def canvas_pixel(page, column, row):
    script = "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]"
    return page.locator("canvas:visible").first.evaluate(script, [column, row])


def changed(page, action):
    """The source of the last picture after an action has changed it."""
    last = page.locator("figure:visible img").last
    before = last.get_attribute("src")
    action()
    page.wait_for_function(
        "([old]) => [...document.querySelectorAll('figure img')].filter(i => i.offsetParent)"
        ".at(-1)?.src !== old",
        arg=[before],
    )
    return last.get_attribute("src")


def test_levels_follow_the_slider_the_image_and_the_brush(page):
    number = page.get_by_label("number input for Levels kept, from the top")
    figure(page).get_by_text("with the top 5 of 5 levels.").wait_for()
    number.fill("2")
    number.press("Enter")
    figure(page).get_by_text("with the top 2 of 5 levels: they are drawn").wait_for()
    number = page.get_by_label("number input for Test image").first
    number.fill("7")
    first = changed(page, lambda: number.press("Enter"))
    canvas = page.locator("canvas:visible").first

    def draw():
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 3, box["y"] + 3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 3)
        page.mouse.up()

    assert changed(page, draw) != first
    assert all(canvas_pixel(page, column, 0) == [255] * 4 for column in range(8))
    page.get_by_role("button", name="Black").focus()
    page.keyboard.press("Enter")
    canvas.focus()
    for _ in range(8):
        page.keyboard.press("ArrowUp")
    changed(page, lambda: page.keyboard.press("Space"))
    assert canvas_pixel(page, 4, 0) == [0, 0, 0, 255] and canvas_pixel(page, 0, 0) == [255] * 4


def tab_to(page, name):
    """Presses Tab until the named control has the focus, which must be seen."""
    script = """() => {
        const e = document.activeElement, style = getComputedStyle(e);
        const label = e.labels?.[0] || e;
        const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        return [e.getAttribute("aria-label") || label.innerText.trim(), seen];
    }"""
    for _ in range(60):
        page.keyboard.press("Tab")
        found, seen = page.evaluate(script)
        assert seen or not found, f"the focus of {found} is not seen"
        if found.startswith(name):
            return
    raise AssertionError(f"Tab does not reach {name}")


@pytest.fixture
def phone(browser, digits):
    yield from opened(browser, digits, 390)


def test_keys_alone_are_enough(phone, tmp_path):
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "white.png")
    page, keys = phone, phone.keyboard
    # Without a listener Chromium begins to report choosers too late for the key that opens one.
    page.on("filechooser", lambda chooser: None)
    figure(page).wait_for()
    tab_to(page, "The image: arrow keys move")
    for key in ("ArrowRight", "ArrowDown"):
        for _ in range(8):
            keys.press(key)
    was = canvas_pixel(page, 7, 7)
    assert was == [0, 0, 0, 255], "a corner of a digit"
    first = page.locator("figure:visible img").first.get_attribute("src")
    changed(page, lambda: keys.press("Space"))
    changed(page, lambda: keys.press("Shift+ArrowUp"))
    assert canvas_pixel(page, 7, 7) == canvas_pixel(page, 7, 6) == [255] * 4
    tab_to(page, "Reset")
    changed(page, lambda: keys.press("Space"))
    assert canvas_pixel(page, 7, 7) == was
    assert page.locator("figure:visible img").first.get_attribute("src") == first
    tab_to(page, "range slider for Test image")
    changed(page, lambda: keys.press("ArrowRight"))
    tab_to(page, "Upload a picture")
    with page.expect_file_chooser() as chooser:
        keys.press("Enter")
    changed(page, lambda: chooser.value.set_files(tmp_path / "white.png"))
    assert canvas_pixel(page, 7, 7) == [255] * 4
    tab_to(page, "range slider for Levels kept")
    keys.press("ArrowLeft")
    figure(page).get_by_text("with the top 4 of 5 levels").wait_for()
    keys.press("Shift+Tab")
    tab_to(page, "Seed")
    changed(page, lambda: keys.press("ArrowUp"))
    page.locator("body").press("Home")
    page.get_by_role("tab", name="Levels").focus()
    tab_to(page, "Between")
    keys.press("Enter")
    figure(page).get_by_text("latents of 5 levels").wait_for()
    tab_to(page, "00_top")
    keys.press("Space")
    figure(page).get_by_text("latents of 4 levels").wait_for()


def test_bad_input_is_one_line_and_the_page_goes_on(page, tmp_path):
    figure(page).wait_for()
    Image.new("1", (5000, 4001)).save(tmp_path / "huge.png")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "huge.png")
    error = page.locator("p.error:visible")
    error.get_by_text("it has 4001x5000 pixels; at most 20 megapixels are read").wait_for()
    number = page.get_by_label("number input for Test image").first
    for text, expected in (("2.5", "got 2.5"), ("3", None)):
        number.fill(text)
        number.press("Enter")
        if expected:
            error.get_by_text(f"must be a whole number from 0 to 11; {expected}").wait_for()
        else:
            error.wait_for(state="detached")
    number = page.get_by_label("number input for Levels kept")
    number.fill("")
    number.press("Tab")
    figure(page).get_by_text("with the top 0 of 5 levels").wait_for()
    seed = page.get_by_label("Seed").first
    seed.fill("-1")
    seed.press("Enter")
    error.get_by_text("the seed must be a whole number from 0 to").wait_for()
    seed.fill("1")
    seed.press("Enter")
    figure(page).wait_for()
    assert not page.locator("[data-testid=toast-body]").count()


def test_uploads_are_taken_or_refused_in_a_line(page, tmp_path):
    figure(page).wait_for()
    Image.fromarray(np.full((30, 90), 200, np.uint8)).save(tmp_path / "white.png")
    (tmp_path / "text.png").write_text("no picture")
    upload = page.locator("input[type=file]").first
    upload.set_input_files(tmp_path / "text.png")
    page.get_by_text("This file is not taken: it is not a PNG, JPEG, WebP or BMP").wait_for()
    changed(page, lambda: upload.set_input_files(tmp_path / "white.png"))
    page.get_by_text("Resized to 8x8 pixels, black and white").wait_for()
    assert canvas_pixel(page, 3, 3) == [255] * 4


def test_the_other_tabs_answer_when_they_are_opened(page):
    figure(page).wait_for()
    page.get_by_role("tab", name="Between").click()
    figure(page).get_by_text("latents of 5 levels are mixed linearly").wait_for()
    assert page.locator("figure:visible img").count() == 8
    page.get_by_label("00_top").uncheck()
    figure(page).get_by_text("latents of 4 levels").wait_for()
    page.get_by_role("tab", name="Sample").click()
    figure(page).get_by_text("Images from the prior").wait_for()
    assert page.locator("figure:visible img").count() == 16
    temperature = page.get_by_label("number input for Temperature, top")
    temperature.fill("0")
    changed(page, lambda: temperature.press("Enter"))
    page.get_by_role("tab", name="Score").click()
    figure(page).get_by_text("log p(x) is the importance-weighted bound with K = 10").wait_for()
    page.get_by_role("button", name="Compare with 12 of 297 test images of digits").click()
    figure(page).get_by_text("(12 of 297 test images of digits) have lower values").wait_for()
    row = page.get_by_role("row", name="log_p ").first.inner_text().split()
    assert -100 < float(row[1]) < 0 and re.fullmatch(r"\d+%", row[2])


RUN = """
import sys
sys.path[:0] = ["tests/support"]
from work_directories import write_run
from matnet_tf.config import *
options = {"top_latents": 2, "top_units": 4, "conditional_stages": 1}
model = ModelConfig((8, 8, 1), (Scale(1, 4, 2, 1),), **options)
write_run(sys.argv[1], Experiment(model, DataConfig(mask="quadrants")))
"""


def test_what_is_painted_over_is_filled_in(browser, tmp_path):
    subprocess.run([sys.executable, "-c", RUN, str(tmp_path / "run")], cwd=ROOT, check=True)
    process, address = serve(tmp_path, f"--workdir={tmp_path / 'run'}")
    for page in opened(browser, address, 390):
        figure(page).get_by_text("6 completions of the 48 hidden pixels").wait_for()
        box = page.locator("canvas:visible").first.bounding_box()
        page.mouse.click(box["x"] + 3, box["y"] + box["height"] - 3)
        figure(page).get_by_text("6 completions of the 49 hidden pixels").wait_for()
        assert page.locator("figure:visible img").count() == 7
        tab_to(page, "Reveal")
        page.keyboard.press("Enter")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        figure(page).get_by_text("6 completions of the 45 hidden pixels").wait_for()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
