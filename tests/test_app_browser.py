"""The app as people use it: in a browser, without a network."""

import csv
import dataclasses
import io
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from app_in_browser import (
    column,
    download,
    EXAMPLE,
    generate,
    MEMBERS,
    OFFLINE,
    open_example,
    opened,
    PATIENCE,
    PLACES,
    sync_api,
    upload,
)
from app_in_process import App
from driven import make_driven
from pyarrow import parquet
from test_readers_kilosort import GROUPS, kilosort
from test_tables import make_generated

from dicjax.app.runs import job_for, make, Order
from dicjax.generation.result import Generated
from dicjax.output.population_files import write_population


openpyxl = pytest.importorskip("openpyxl")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium: the system's, or that of playwright."""
    with sync_api.sync_playwright() as playwright:
        own = pathlib.Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, PLACES)), None)
        if found is None and not own.exists():
            pytest.skip("no Chromium: `apt install chromium` or `playwright install`")
        made = playwright.chromium.launch(executable_path=found, args=[*OFFLINE])
        yield made
        made.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory, browser) -> Iterator[App]:
    beside = tmp_path_factory.mktemp("app")
    made = App(beside / "results", beside / "stderr.txt")
    yield made
    made.close()
    # All that it writes is in the folder of results, and uploads are gone.
    beside_it = {path.name for path in beside.iterdir()}
    assert beside_it <= {"results", "stderr.txt", ".cache"}
    left = [path.name for path in made.folder.iterdir() if path.is_file()]
    assert left in ([], ["dicjax-app.log"])
    assert not list(made.folder.glob(".temporary*"))


def test_the_window_changes_the_spikes_that_are_counted(browser, app):
    with opened(browser, app) as tab:
        open_example(tab)
        facts = tab.get_by_test_id("facts")
        sync_api.expect(facts).to_contain_text("444")
        sync_api.expect(facts).to_contain_text("bursting")

        # By numbers, and by the keys of the slider.
        tab.get_by_label("end (s)").fill("30")
        sync_api.expect(facts).not_to_contain_text("444")
        before = facts.inner_text()
        thumb = tab.locator(".q-range__thumb, .q-slider__thumb").first
        thumb.focus()
        for _ in range(40):
            tab.keyboard.press("ArrowRight")
        sync_api.expect(facts).not_to_have_text(before, use_inner_text=True)
        tab.get_by_role("button", name="All of it").click()
        sync_api.expect(facts).to_contain_text("444")


@pytest.mark.slow
def test_from_a_file_to_downloads(browser, app):
    with opened(browser, app) as tab:
        open_example(tab)
        # One run waits for another, and is taken out of the queue.
        recording = tab.url
        generate(tab)
        first = tab.url
        tab.goto(recording)
        generate(tab, "9000")
        stage = tab.get_by_test_id("stage")
        sync_api.expect(stage).to_contain_text("Waiting behind another run")
        tab.get_by_test_id("cancel").press("Enter")
        message = tab.get_by_test_id("message")
        sync_api.expect(message).to_contain_text("Removed before it began")

        # The other one goes on, to the end.
        tab.goto(first)
        sync_api.expect(stage).to_contain_text("Simulating", timeout=PATIENCE)
        tab.get_by_test_id("headline").wait_for(timeout=PATIENCE)
        _look_at_the_run(tab, app, "slow_burster.csv", int(MEMBERS), int(MEMBERS))


@pytest.fixture(scope="module")
def made(app) -> Generated:
    """Neurons that were not searched for, saved as the app saves a run."""
    result = make_generated()
    settings = result.settings | {"warnings": []}
    order = Order(result.train, "0f", model="stg", members=result.num_asked)
    job = job_for(order, app.folder, {})
    job.unsaved = dataclasses.replace(result, settings=settings)
    make(job, app.folder)
    assert not job.notes
    (app.folder / job.name).rename(app.folder / "made")
    return result


def test_a_run_shows_its_figures_and_gives_its_files(browser, app, made):
    with opened(browser, app) as tab:
        tab.goto(f"{app.url}/run/made")
        _look_at_the_run(tab, app, "made.csv", made.num_accepted, made.num_asked)


def _look_at_the_run(tab, app, file: str, num: int, asked: int) -> None:
    """Its headline, figures and features, and every file that can be downloaded."""
    headline = tab.get_by_test_id("headline").inner_text()
    assert headline.startswith(f"{num} of {asked} model neurons")
    figures = tab.get_by_role("img").filter(has=tab.locator(".main-svg"))
    sync_api.expect(figures).to_have_count(8)
    sync_api.expect(tab.get_by_test_id("features")).to_contain_text("burst period")

    name, content = download(tab, "csv")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert name.endswith(file)
    assert sum(row["accepted"] == "true" for row in rows) == num
    _, content = download(tab, "xlsx")
    book = openpyxl.load_workbook(io.BytesIO(content), read_only=True)
    assert {"models", "spikes"} <= set(book.sheetnames)
    book.close()
    _, content = download(tab, "parquet")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (models,) = (x for x in archive.namelist() if x.endswith("models.parquet"))
        table = parquet.read_table(io.BytesIO(archive.read(models)))
    assert table.num_rows == len(rows)
    _, content = download(tab, "neuron")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert any(x.endswith(".mod") for x in archive.namelist())
    name, content = download(tab, "report")
    assert name.endswith(".html")
    assert f"{num} of {asked} model neurons".encode() in content
    shown = tab.request.get(f"{app.url}/report/{tab.url.rpartition('/')[2]}")
    assert shown.text() == content.decode()


@pytest.mark.slow
def test_a_stopped_run_keeps_what_it_found(browser, app):
    with opened(browser, app) as tab:
        open_example(tab)
        generate(tab, "9000")  # far more than there is time for
        stage = tab.get_by_test_id("stage")
        said = re.compile("Correcting|Looking")
        sync_api.expect(stage).to_contain_text(said, timeout=PATIENCE)
        tab.get_by_test_id("cancel").press("Enter")
        headline = tab.get_by_test_id("headline")
        headline.wait_for(timeout=PATIENCE)
        kept = int(headline.inner_text().split()[0])
        assert 0 < kept < 9000
        sync_api.expect(tab.get_by_text("This run was stopped")).to_be_visible()


@pytest.mark.slow
def test_a_second_run_waits_and_a_closed_tab_loses_nothing(browser, app):
    with opened(browser, app) as tab:
        open_example(tab)
        recording = tab.url
        generate(tab, "4")
        first = tab.url
        tab.goto(recording)
        generate(tab, "5")
        second = tab.url
        stage = tab.get_by_test_id("stage")
        sync_api.expect(stage).to_contain_text("Waiting behind another run")
    with opened(browser, app, "dark") as tab:
        runs = tab.get_by_test_id("runs")
        runs.get_by_text("slow_burster.csv").first.wait_for()
        tab.goto(first)
        headline = tab.get_by_test_id("headline")
        headline.wait_for(timeout=PATIENCE)
        assert headline.inner_text().startswith("4 of 4")
        tab.goto(second)
        headline.wait_for(timeout=PATIENCE)
        assert headline.inner_text().startswith("5 of 5")
        tab.goto(app.url)
        sync_api.expect(runs).to_contain_text("5 of 5 model neurons")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("noise.csv", bytes(range(256)) * 8, "noise.csv"),
        ("noise.npz", bytes(range(256)) * 8, "noise.npz is not"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("run.exe", b"MZ", "cannot be read"),
        (
            "clothes.csv",
            b"spike_time_ms\n" + b"".join(b"%.4f\n" % (0.2 * i) for i in range(100)),
            "not plausible",
        ),
        ("few.csv", b"time_ms\n1\n2\n", "5 spikes"),
    ],
)
def test_bad_files_show_a_message(browser, app, name, content, said):
    with opened(browser, app) as tab:
        upload(tab, name, content)
        notice = tab.get_by_test_id("notice")
        sync_api.expect(notice).to_contain_text(said)
        assert "fault of dicjax" not in notice.inner_text()
        assert "--" not in notice.inner_text()
        assert tab.url.rstrip("/") == app.url


def test_the_unit_is_asked_for_where_a_file_leaves_it_open(browser, app):
    lines = EXAMPLE.read_bytes().splitlines(keepends=True)[1:]
    with opened(browser, app) as tab:
        upload(tab, "../../x.csv", b"".join(lines))
        tab.wait_for_url("**/recording/*")
        asked = tab.get_by_text("444 spikes: 7.44")
        asked.wait_for()
        tab.get_by_role("radio", name=re.compile("^seconds")).click()
        tab.get_by_test_id("continue").click()
        sync_api.expect(tab.get_by_test_id("facts")).to_contain_text("444")
        tab.get_by_test_id("change-unit").click()
        tab.get_by_role("radio", name=re.compile("^milliseconds")).click()
        tab.get_by_test_id("continue").click()
        sync_api.expect(tab.get_by_test_id("facts")).to_contain_text("59.55")
        assert tab.get_by_text("x.csv").first.inner_text() == "x.csv"
    outside = [app.folder.parent / "x.csv", app.folder.parent.parent / "x.csv"]
    assert not any(path.exists() for path in outside)


def test_a_neuron_is_chosen_where_there_are_several(browser, app):
    rows = [b"unit,time_ms\n"]
    for name, step in (("LP", 150.0), ("PD", 90.0)):
        rows += [f"{name},{step * i}\n".encode() for i in range(1, 60)]
    with opened(browser, app) as tab:
        upload(tab, "two.csv", b"".join(rows))
        facts = tab.get_by_test_id("facts")
        sync_api.expect(facts).to_contain_text("150 ms")
        tab.get_by_label("Neuron (2 in the file)").click()
        tab.get_by_role("option", name=re.compile("PD")).click()
        sync_api.expect(facts).to_contain_text("90 ms")


@pytest.mark.slow
def test_what_the_encoder_does_not_know_is_reported_before_anything_is_made(
    browser, app
):
    rng = np.random.default_rng(0)
    times = np.cumsum(3 + rng.exponential(60, 400))
    with opened(browser, app) as tab:
        upload(tab, "poisson.csv", b"time_ms\n" + column(times))
        verdict = tab.get_by_test_id("verdict")
        sync_api.expect(verdict).to_contain_text("is unlike anything the encoder")
    with opened(browser, app) as tab:
        open_example(tab)
        verdict = tab.get_by_test_id("verdict")
        sync_api.expect(verdict).to_contain_text("nothing odd")


@pytest.fixture
def sorting(tmp_path) -> pathlib.Path:
    """The folder of a sorting, in another, beside what is large and not read."""
    top = tmp_path / "July 4"
    top.mkdir()
    (top / "recording.dat").write_bytes(b"x" * 1000)
    (top / "notes").mkdir()
    (top / "notes" / "params.py").write_text("sample_rate = 1.0")
    return kilosort(top / "sorted", group=GROUPS).parent


def _shows_the_sorting(tab, name: str) -> None:
    tab.wait_for_url("**/recording/*")
    sync_api.expect(tab.get_by_label("Neuron (2 in the file)")).to_be_visible()
    sync_api.expect(tab.get_by_test_id("facts")).to_contain_text("50.1 ms")
    assert tab.get_by_text(name, exact=True).first.is_visible()


@pytest.mark.slow
def test_a_folder_of_kilosort_is_chosen(browser, app, sorting):
    with opened(browser, app) as tab:
        for folder, name in ((sorting, "sorted"), (sorting / "sorted", "sorted")):
            tab.goto(app.url)
            with tab.expect_file_chooser() as caught:
                tab.get_by_role("button", name="A folder of Kilosort").click()
            caught.value.set_files(folder)
            _shows_the_sorting(tab, name)
        tab.goto(app.url)
        files = [*(sorting / "sorted").iterdir(), sorting / "recording.dat"]
        tab.get_by_test_id("upload").locator("input").set_input_files(files)
        _shows_the_sorting(tab, "kilosort")
        tab.goto(app.url)
        with tab.expect_file_chooser() as caught:
            tab.get_by_role("button", name="A folder of Kilosort").click()
        caught.value.set_files(sorting / "notes")
        notice = tab.get_by_test_id("notice")
        sync_api.expect(notice).to_contain_text("notes is no folder of Kilosort")


def test_a_folder_of_kilosort_is_dropped(browser, app, sorting):
    with opened(browser, app) as tab:
        tab.get_by_test_id("runs").get_by_text(
            re.compile("None yet|model neurons")
        ).first.wait_for()
        box = tab.get_by_text("Drop a recording here").bounding_box()
        assert box is not None
        drag = {"items": [], "files": [str(sorting)], "dragOperationsMask": 1}
        session = tab.context.new_cdp_session(tab)
        for kind in ("dragEnter", "dragOver", "drop"):
            place = {"type": kind, "x": box["x"] + 5, "y": box["y"] + 5, "data": drag}
            session.send("Input.dispatchDragEvent", place)
        _shows_the_sorting(tab, "sorted")


@pytest.mark.slow
def test_what_no_model_can_do_is_refused_where_one_looks(browser, app):
    times = b"".join(b"%.3f\n" % (5000.0 * i + 1) for i in range(60))
    with opened(browser, app) as tab:
        upload(tab, "slow.csv", b"time_ms\n" + times)
        tab.wait_for_url("**/recording/*")
        tab.get_by_label("How many model neurons").fill("")
        tab.get_by_test_id("generate").click()
        notice = tab.get_by_test_id("notice")
        sync_api.expect(notice).to_contain_text("must be a number from 1")
        generate(tab, "4", "fast")
        message = tab.get_by_test_id("message")
        message.wait_for(timeout=PATIENCE)
        assert "outside what stg can do" in message.inner_text()
        assert "--" not in message.inner_text()
        tab.get_by_text("Back to the recording").click()
        tab.get_by_test_id("generate").wait_for()


@pytest.mark.slow
def test_a_refused_run_offers_what_may_help(browser, app):
    with opened(browser, app) as tab:
        open_example(tab)
        generate(tab, "4", "fast")
        message = tab.get_by_test_id("message")
        message.wait_for(timeout=PATIENCE)
        refused = tab.url
        use = tab.get_by_test_id("use-model")
        assert "slow" in use.inner_text()
        use.click()
        tab.wait_for_url(lambda url: "/run/" in url and url != refused)
        headline = tab.get_by_test_id("headline")
        headline.wait_for(timeout=PATIENCE)
        assert headline.inner_text().startswith("4 of 4")


def test_a_run_of_the_command_line_shows_what_it_holds(browser, app, made):
    other = app.folder / "command_line"
    shutil.copytree(
        app.folder / "made", other, ignore=shutil.ignore_patterns("recording.npz")
    )
    period = f"{float(made.target.period):.0f}"
    with opened(browser, app) as tab:
        tab.goto(f"{app.url}/run/{other.name}")
        sync_api.expect(tab.get_by_text("made on the command line")).to_be_visible()
        sync_api.expect(tab.get_by_test_id("features")).to_contain_text(period)
        lead = tab.get_by_text(re.compile(f"{len(made.train.times)} spikes in"))
        sync_api.expect(lead).to_be_visible()


def test_a_run_with_a_drive_says_what_is_compared(browser, app):
    driven, folder = make_driven(), app.folder / "driven"
    folder.mkdir()
    write_population(driven, folder)
    with opened(browser, app) as tab:
        tab.goto(f"{app.url}/run/driven")
        headline = tab.get_by_test_id("headline").inner_text()
        assert headline.startswith(f"{driven.num_accepted} of 12 model neurons")
        assert headline.endswith("or as far as its own stretches differ")
        for words in ("The input of model neurons", "at most", "with other noise"):
            sync_api.expect(tab.get_by_text(words).first).to_be_visible()
        features = tab.get_by_test_id("features")
        sync_api.expect(features).to_contain_text("serial correlation")
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_screen_turns_dark_and_stays_so(browser, app):
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('.js-plotly-plot .xtick text').style.fill"
    with opened(browser, app) as tab:
        open_example(tab)
        tab.locator(".js-plotly-plot .xtick text").first.wait_for()
        light = tab.evaluate(paper), tab.evaluate(ink)
        tab.get_by_test_id("dark").click()
        tab.wait_for_function(f"{ink} !== '{light[1]}'")
        dark = tab.evaluate(paper), tab.evaluate(ink)
        assert dark[0] != light[0]
        tab.reload()
        tab.locator(".js-plotly-plot .xtick text").first.wait_for()
        assert (tab.evaluate(paper), tab.evaluate(ink)) == dark


def test_pages_that_are_not_there_say_so(browser, app):
    with opened(browser, app) as tab:
        for address, said in (
            ("recording/999", "no longer open"),
            ("run/nothing", "no such run"),
            ("run/..%2F..", "no such run|Not Found|not found"),
        ):
            tab.goto(f"{app.url}/{address}")
            sync_api.expect(tab.locator("body")).to_contain_text(re.compile(said))
        assert tab.request.get(f"{app.url}/report/nothing").status == 404
        strange = {"Host": "elsewhere.example"}
        assert tab.request.get(app.url, headers=strange).status == 400


@pytest.mark.slow
def test_a_port_in_use_is_refused_in_a_sentence(app, tmp_path):
    port = app.url.rpartition(":")[2]
    command = [sys.executable, "-c", "from dicjax.cli import main; main()", "app"]
    ended = subprocess.run(
        [*command, "--no-browser", "--port", port, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert "choose another with --port" in ended.stderr
    assert "Traceback" not in ended.stderr
