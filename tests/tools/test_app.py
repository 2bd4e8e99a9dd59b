"""tools/app.py: the page in a browser, its limits, and its error messages.

``make test-app`` runs these tests in an environment with Gradio and the driver of the browser.
"""

import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from ..support.trained_segmentor import CONFIG, write_trained
from ..support.training_runs import ROOT

GRADIO = importlib.util.find_spec("gradio") is not None
KAIMING = "model.backbone.init=kaiming"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_gradio = pytest.mark.skipif(not GRADIO, reason="Gradio is not installed: run make test-app")


@pytest.mark.skipif(GRADIO, reason="Gradio is installed")
def test_app_without_gradio_ends_in_one_sentence():
    command = [sys.executable, str(ROOT / "tools" / "app.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.startswith("error: the module gradio is not installed")
        and done.stderr.count("\n") == 1
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a page that compares two runs; the second one has no sub adapter."""
    folder = tmp_path_factory.mktemp("app")
    images = folder / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(images / "street.png")
    first = write_trained(folder / "dual" / "last.pth")
    second = write_trained(folder / "single" / "last.pth", "model.backbone.r_sub=0")
    command = [sys.executable, "-u", str(ROOT / "tools" / "app.py"), "--config-file", CONFIG]
    command += ["--weights", first, "--against", second, "model.backbone.r_sub=0"]
    process = subprocess.Popen(
        [*command, "--images", str(images)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_restore_interrupt,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"the page is at (http://\S+/)", line):
            break
    else:
        pytest.fail("".join(lines))
    yield found.group(1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and said.splitlines()[-1] == "stopped by Ctrl-C", said


def _restore_interrupt():
    """A shell starts its background jobs, such as a whole test run, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on the PATH: install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The open page; it must load nothing from elsewhere and print no error."""
    tab = browser.new_page()
    outside, errors = [], []
    tab.on(
        "request",
        lambda one: one.url.startswith((address, "data:", "blob:")) or outside.append(one.url),
    )
    tab.on("console", lambda one: one.type == "error" and errors.append(one.text))
    tab.goto(address)
    tab.wait_for_selector("#examples button")
    yield tab
    tab.close()
    assert outside == [] and errors == []


MASKS = "[...document.querySelector('.segmentation').querySelectorAll('img.mask')].map(x => x.src)"


@needs_gradio
def test_example_is_explored_and_switches_change_the_masks(page):
    page.locator("#examples button.thumbnail-item").first.click()
    page.wait_for_selector("text=sub changes the class of")
    assert page.locator("text=main changes the class of").count() == 2
    assert page.locator("text=sub changes the class of").count() == 1  # the second has no sub
    page.wait_for_function(f"{MASKS}.length > 1")
    full = page.evaluate(MASKS)
    page.get_by_label("main").uncheck()
    page.wait_for_function(f"old => {MASKS}.join() != old.join()", arg=full)
    page.get_by_label("main").check()
    page.wait_for_function(f"old => {MASKS}.join() == old.join()", arg=full)


@needs_gradio
def test_broken_image_shows_one_sentence_and_the_next_one_works(page, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    upload = page.locator("#upload input[type=file]")
    upload.set_input_files(tmp_path / "broken.jpg")
    alert = page.wait_for_selector("[role=alert]").inner_text()
    assert alert.startswith("broken.jpg: expected a complete picture") and "\n" not in alert
    page.locator("#examples button.thumbnail-item").first.click()
    page.wait_for_selector("text=sub changes the class of")
    assert page.locator("[role=alert]").count() == 0


@needs_gradio
def test_upload_above_the_limit_is_refused(address):
    boundary, head = "b", 'Content-Disposition: form-data; name="files"; filename="a.png"'
    body = (
        f"--{boundary}\r\n{head}\r\n\r\n".encode()
        + bytes(51 * 2**20)
        + f"\r\n--{boundary}--\r\n".encode()
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(address + "gradio_api/upload", body, headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 413


@needs_gradio
def test_page_is_served_on_the_loopback_address_alone(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))


@needs_gradio
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "missing.pth"], "missing.pth"),
        (["--images", "missing"], "no photograph or folder at missing"),
        (["--block", "4"], "--block must be 0 to 3, got 4"),
        (["--against", "a.pth", "x.py", "y.py"], "must have at most one config"),
        (["--port", "0"], "--port must be a whole number from 1 to 65,535, got 0"),
        ([KAIMING], "belongs to another"),
    ],
)
def test_invalid_option_ends_in_one_sentence(tmp_path, options, message):
    from tools import app

    weights = write_trained(tmp_path / "run" / "last.pth")
    with pytest.raises(SystemExit) as stopped:
        app.main(["--config-file", CONFIG, "--weights", weights, *options])
    assert message in str(stopped.value.code) and "\n" not in str(stopped.value.code)
