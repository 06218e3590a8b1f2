"""Takes the pictures of docs/app.md: the app, open in a browser, into docs/images.

It needs playwright and a Chromium, and generates one population, in two minutes:
`python -m scripts.provenance.app_images`.
"""

import contextlib
import io
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from PIL import Image
from playwright.sync_api import Page, sync_playwright, ViewportSize


ROOT = pathlib.Path(__file__).parents[2]
OUT = ROOT / "docs" / "images"
EXAMPLE = ROOT / "examples" / "slow_burster.csv"
SIZE = ViewportSize(width=1280, height=800)
PATIENCE = 600_000  # ms, for a run


@contextlib.contextmanager
def app(folder: str) -> Iterator[str]:
    """The address of an app that keeps its results in a folder."""
    command = [sys.executable, "-c", "from dicjax.cli import main; main()", "app"]
    command += ["--no-browser", "--folder", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        yield found[0]
        process.send_signal(signal.SIGINT)


def keep(tab: Page, name: str, *, is_whole: bool = False) -> None:
    """Saves what the page shows, in few colours."""
    tab.wait_for_timeout(1500)  # until figures are drawn
    picture = Image.open(io.BytesIO(tab.screenshot(full_page=is_whole)))
    picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(
        OUT / f"app-{name}.png", optimize=True
    )


def main() -> None:
    folder = pathlib.Path(tempfile.gettempdir()) / "dicjax-results"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    with app(str(folder)) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport=SIZE, color_scheme="light")
        tab.set_default_timeout(PATIENCE)
        tab.goto(address)
        tab.get_by_test_id("upload").locator("input").set_input_files(EXAMPLE)
        tab.get_by_test_id("generate").wait_for()
        keep(tab, "recording", is_whole=True)
        tab.get_by_test_id("generate").click()
        tab.get_by_test_id("headline").wait_for()
        run = tab.url
        keep(tab, "results")
        heading = tab.get_by_text("Different conductances, same activity")
        heading.evaluate("x => x.scrollIntoView()")
        keep(tab, "figures")
        tab.goto(address)
        keep(tab, "home")
        dark = browser.new_page(viewport=SIZE, color_scheme="dark")
        dark.goto(run)
        dark.get_by_test_id("headline").wait_for()
        keep(dark, "dark")
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
