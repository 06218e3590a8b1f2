"""The app in a browser, for tests."""

import contextlib
import pathlib
import re
from collections.abc import Iterator

import pytest
from app_in_process import App


sync_api = pytest.importorskip("playwright.sync_api")

EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "slow_burster.csv"
PLACES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OFFLINE = (
    "--no-sandbox",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Nothing moves, since drawing what moves takes time from what is tested.
STILL = """addEventListener("DOMContentLoaded", () => {
  const style = document.createElement("style")
  style.textContent = "*, ::before, ::after { animation: none !important }"
  document.head.append(style)
})"""
PATIENCE = 400_000  # ms, for a run on busy cores
MEMBERS = "8"
sync_api.expect.set_options(timeout=60_000)


@contextlib.contextmanager
def opened(browser, app: App, scheme: str = "light") -> Iterator:
    """A tab that fails if anything is asked of another machine, or goes wrong in it."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme=scheme
    )
    context.add_init_script(STILL)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    asked, errors = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    try:
        tab.goto(app.address())
        yield tab
        tab.wait_for_timeout(200)
    finally:
        context.close()
    own = (app.url, app.url.replace("http", "ws"), "data:", "blob:")
    assert not [url for url in asked if not url.startswith(own)]
    assert not errors


def upload(tab, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    tab.get_by_test_id("upload").locator("input").set_input_files(file)


def column(times) -> bytes:
    return b"".join(b"%.3f\n" % t for t in times)


def open_example(tab) -> None:
    upload(tab, EXAMPLE.name, EXAMPLE.read_bytes())
    tab.wait_for_url("**/recording/*")
    tab.get_by_test_id("generate").wait_for()


def generate(tab, members: str = MEMBERS, model: str = "slow") -> None:
    tab.get_by_label("How many model neurons").fill(members)
    tab.get_by_label("Kind of neuron").click()
    tab.get_by_role("option", name=re.compile(model)).click()
    tab.get_by_test_id("generate").click()
    tab.wait_for_url("**/run/*")


def download(tab, name: str) -> tuple[str, bytes]:
    with tab.expect_download() as caught:
        tab.get_by_test_id(f"download-{name}").click()
    return caught.value.suggested_filename, pathlib.Path(
        caught.value.path()
    ).read_bytes()
