"""What lies below the pages of the app."""

import dataclasses
import io
import os
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from test_readers_kilosort import GROUPS, kilosort

import dicjax as dj
from dicjax._core.progress import Stage
from dicjax.app import downloads, figures
from dicjax.app.canvas import DARK, LIGHT, log_axis
from dicjax.app.jobs import Job, Jobs, State
from dicjax.app.labels import model_options
from dicjax.app.recordings import (
    candidates_of,
    glance,
    open_recording,
    question,
    seconds,
)
from dicjax.app.runs import job_for, make, Order, read_run, run_folder, summaries
from dicjax.app.scratch import scratch
from dicjax.app.server_state import example, ServerState
from dicjax.app.uploads import accepted, check_size, MAX_BYTES, PARTS, safe_name
from dicjax.generation.result import Round
from dicjax.output.plots import style
from dicjax.recordings.readers.common import checksum, Train


# Uploads


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../x.csv", "x.csv"),
        ("..\\..\\x.csv", "x.csv"),
        ("/etc/passwd", "passwd"),
        ("C:\\cells\\cell 3.CSV", "cell 3.CSV"),
        ("..", "recording"),
        (".csv", "csv"),
        ("", "recording"),
        ("a\x00b\n<img>.csv", "a_b__img.csv"),
        ("x.csv/", "recording"),
        ("…/ünïcode.mat", "ünïcode.mat"),
        ("a.b.c.npz", "a_b_c.npz"),
        ("x" * 500 + ".csv", "x" * 60 + ".csv"),
    ],
)
def test_names_of_uploads_are_no_paths(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ("x.exe", "x.py", "x.pkl", "x", "x.csv.html"))
def test_only_what_readers_read_is_accepted(name):
    with pytest.raises(ValueError, match="cannot be read: export"):
        accepted({name: b"1"})


def test_uploads_are_bounded_and_not_empty():
    with pytest.raises(ValueError, match="is empty"):
        accepted({"x.csv": b""})
    with pytest.raises(ValueError, match="more than the 256 MB"):
        check_size("x.csv", MAX_BYTES + 1)


def test_an_upload_is_on_disk_only_while_it_is_read():
    upload = accepted({"../../x.csv": b"1\n2\n"})
    with upload.on_disk() as path:
        assert path.read_bytes() == b"1\n2\n"
        assert path.name == "x.csv"
    assert not path.parent.exists()


def _zip(files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sorting(tmp_path_factory) -> dict[str, bytes]:
    """The files of a Kilosort folder, those that are not read among them."""
    folder = kilosort(tmp_path_factory.mktemp("x") / "sorted", group=GROUPS)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "recording.dat": b"x" * 1000, "amplitudes.npy": b"x"}


def _names(upload) -> list[str]:
    return [train.name for train in open_recording(upload).trains]


def test_a_folder_of_kilosort_comes_as_its_files(sorting):
    upload = accepted(sorting, "../../July 4")
    assert (upload.name, set(upload.files) - set(PARTS)) == ("July 4", set())
    assert _names(upload) == ["2", "11"]
    with upload.on_disk() as path:
        assert upload.sha256 == checksum(path)
    assert open_recording(upload).train.source == "July 4"
    assert _names(accepted(sorting)) == ["2", "11"]


@pytest.mark.parametrize("folder", ("", "sorted/", "a/b/sorted/", "../../", "/"))
def test_a_folder_of_kilosort_comes_as_a_zip(sorting, folder):
    files = {f"{folder}{name}": content for name, content in sorting.items()}
    upload = accepted({"July 4.zip": _zip({**files, "else/params.py": b"1"})})
    assert _names(upload) == ["2", "11"]
    assert set(upload.files) == {*sorting} - {"recording.dat", "amplitudes.npy"}
    assert upload.name == ("sorted" if "sorted" in folder else "July 4")


def test_a_recording_may_be_zipped():
    upload = accepted({"x.zip": _zip({"a/../b.csv": b"t_ms\n1\n", "a/read.me": b""})})
    assert upload == accepted({"b.csv": b"t_ms\n1\n"})


def test_several_files_that_are_no_sorting_are_refused(sorting):
    with pytest.raises(ValueError, match="of which spike_times.npy is missing"):
        accepted({"a.csv": b"1", "b.csv": b"1"})
    twice = {f"{x}/spike_times.npy": sorting["spike_times.npy"] for x in "ab"}
    for files, said in (
        (twice, "holds 2 folders of Kilosort"),
        ({"a.csv": b"1", "b.csv": b"1"}, "holds no one recording"),
        ({"x.zip": _zip({"b.csv": b"1"})}, "holds no one recording"),
        ({f"{i}": b"" for i in range(10_001)}, "over 10,000 files"),
    ):
        with pytest.raises(ValueError, match=said):
            accepted({"x.zip": _zip(files)})


def test_zips_that_unpack_to_too_much_are_refused(sorting, monkeypatch):
    bomb = _zip({"spike_times.npy": b"0" * 200_000, "params.py": b"#" * 200_000})
    monkeypatch.setattr("dicjax.app.uploads.MAX_BYTES", 300_000)
    assert len(bomb) < 2000
    with pytest.raises(ValueError, match="unpacks to more than"):
        accepted({"x.zip": bomb})
    # Also where it claims less of itself.
    size = (200_000).to_bytes(4, "little")
    with pytest.raises(ValueError, match="x.zip"):
        accepted({"x.zip": bomb.replace(size, (10).to_bytes(4, "little"))})
    assert accepted({"x.zip": _zip(sorting)}).files


@pytest.mark.parametrize("content", (b"", b"PK", b"not a zip" * 9))
def test_damaged_zips_are_refused(content):
    with pytest.raises(ValueError, match="x.zip is not a zip, or is damaged"):
        accepted({"x.zip": content})


def test_what_a_killed_app_left_goes_and_what_is_used_stays(tmp_path):
    left, fresh = tmp_path / ".temporary-left", tmp_path / ".temporary-fresh"
    for folder in (left, fresh):
        folder.mkdir()
        (folder / "upload").write_text("x")
    (left / "in-use").touch()
    (tmp_path / "a_run").mkdir()
    with scratch(tmp_path) as first:
        assert not left.exists()
        assert fresh.exists()  # it may be about to be locked
        (first / "upload").write_text("x")
        code = "import sys, pathlib; from dicjax.app.scratch import scratch\n"
        code += "with scratch(pathlib.Path(sys.argv[1])): pass"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert (first / "upload").exists()
    assert not first.exists()
    os.utime(fresh, (0, 0))
    with scratch(tmp_path):
        assert not fresh.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a_run"]


# The question of units


def _accepted(content: bytes):
    return accepted({"x.csv": content})


def _text(times, header="") -> bytes:
    return (header + "".join(f"{t:.6f}\n" for t in times)).encode()


STEADY = 5.0 + 185.0 * np.arange(98)  # ms, a tonic neuron at 5.4 Hz


def test_a_file_that_states_its_unit_raises_no_question():
    recording = open_recording(_accepted(_text(STEADY / 1e3, "time_s\n")))
    assert recording.candidates == ()
    assert recording.train.num_spikes == 98
    assert recording.train.t_stop == pytest.approx(STEADY[-1])


def test_a_file_that_does_not_say_is_asked_about_with_rates():
    recording = open_recording(_accepted(_text(STEADY + 0.25)))
    assert not recording.trains
    assert [x.unit for x in recording.candidates] == ["ms", "s", "us"]
    assert [x.is_credible for x in recording.candidates] == [True, False, False]
    assert [x.is_possible for x in recording.candidates] == [True, True, False]
    assert question(recording) == (
        "98 spikes: 5.41\u202fHz if ms, 0.00541\u202fHz if s, 5\u202f405\u202fHz if us."
    )
    recording.answer("ms")
    assert recording.train.num_spikes == 98


def test_an_impossible_answer_is_refused_and_changes_nothing():
    recording = open_recording(_accepted(_text(STEADY + 0.25)))
    with pytest.raises(ValueError, match="not plausible"):
        recording.answer("us")
    assert not recording.trains
    recording.answer("ms")
    assert recording.unit == "ms"


def test_whole_numbers_may_be_samples():
    units = {x.unit for x in candidates_of(Train("a", STEADY * 30))}
    assert units == {"ms", "s", "us", "samples@30000"}
    (only,) = candidates_of(Train("a", STEADY * 30, "samples"))
    assert only.unit == "samples@30000"
    assert only.rate == pytest.approx(5.405, rel=1e-3)
    assert candidates_of(Train("a", STEADY * 20, "samples", rate=20e3)) == ()


def test_times_of_a_usual_unit_are_asked_about_only_where_that_cannot_be():
    assert candidates_of(Train("a", STEADY / 1e3, usual_unit="s")) == ()
    found = candidates_of(Train("a", STEADY, usual_unit="s"))
    assert found[0].unit == "ms"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes(range(256)) * 20, "."),
        (b"hello\n", "."),
        (b"1.5\n2.5\n", "too few|10 spikes"),
        (b"time_ms\n" + b"".join(b"%d\n" % i for i in range(50, 0, -1)), "order|sort"),
        (_text(STEADY / 1e3, "spike_time_ms\n"), "not plausible"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(content, said):
    with pytest.raises(ValueError, match=said):
        recording = open_recording(_accepted(content))
        recording.answer("ms")


def test_a_glance_follows_the_window():
    recording = open_recording(_accepted(_text(STEADY, "time_ms\n")))
    whole = glance(recording)
    assert whole.pattern == "tonic"
    assert dict(whole.facts)["spikes"] == "98"
    assert not whole.findings
    recording.window = (0.0, 5000.0)
    part = glance(recording)
    assert dict(part.facts)["spikes"] == "28"
    assert [x.kind for x in part.findings] == ["few"]
    recording.window = (0.0, 1000.0)
    assert "too few" in glance(recording).obstacle
    recording.window = (6.0, 7.0)
    assert "too few" in glance(recording).obstacle


def test_a_pause_is_told_without_options_of_the_command_line():
    times = np.append(STEADY, STEADY + 60_000.0)
    recording = open_recording(_accepted(_text(times, "time_ms\n")))
    (finding,) = glance(recording).findings
    assert "--" not in finding.message
    assert "consider the window 60.005 to 77.95 s." in finding.message
    assert finding.window is not None


def test_lengths_of_recordings_are_never_in_powers_of_ten():
    said = [seconds(ms) for ms in (59_550.0, 999_900.0, 1_086_000.0, 36e6)]
    assert said == [
        f"{x}\u202fs" for x in ("59.55", "999.9", "1\u202f086", "36\u202f000")
    ]


# Words


def test_models_have_words():
    assert list(model_options())[0] == "auto"
    assert {"stg", "stg-prinz", "da"} <= set(model_options())


# Jobs


def _until(condition, timeout=20.0) -> None:
    end = time.time() + timeout
    while not condition():
        assert time.time() < end, "it took too long"
        time.sleep(0.005)


def test_jobs_wait_for_each_other_and_failures_stop_none(caplog):
    go, order = threading.Event(), []

    def work(job: Job) -> None:
        order.append(job.name)
        if job.name == "first":
            go.wait(20)
        if job.name == "refused":
            raise ValueError("The recording is silent, `--budget` or not.")
        if job.name == "broken":
            raise KeyError("x")

    jobs = Jobs(work, "some.log")
    made = {x: Job(x, x) for x in ("first", "taken out", "refused", "broken", "last")}
    for job in made.values():
        jobs.submit(job)
    _until(lambda: made["first"].state is State.RUNNING)
    assert [jobs.num_ahead(job) for job in made.values()] == [0, 1, 2, 3, 4]
    jobs.cancel(made["taken out"])
    assert made["taken out"].state is State.CANCELLED
    assert jobs.num_ahead(made["last"]) == 3
    go.set()
    _until(lambda: made["last"].state is State.DONE)
    assert order == ["first", "refused", "broken", "last"]
    assert made["refused"].state is State.REFUSED
    assert made["broken"].state is State.FAILED
    assert "fault of dicjax" in made["broken"].message
    assert "some.log" in made["broken"].message
    assert "KeyError" in caplog.text
    jobs.close(5.0)


def test_a_job_hears_that_it_should_stop_but_writes_what_it_has():
    began = threading.Event()

    def work(job: Job) -> None:
        began.set()
        try:
            while True:
                job.report(Stage("simulating_the_posterior"), 3, 8)
                time.sleep(0.001)
        except dj.Cancelled:
            job.report(Stage("writing"), 3, 8)

    jobs, job = Jobs(work), Job("a", "a")
    jobs.submit(job)
    assert began.wait(20)
    jobs.cancel(job)
    _until(lambda: job.state.is_over)
    assert job.state is State.DONE
    jobs.close(5.0)


def test_closing_ends_the_running_job_and_waits_for_it():
    began, kept = threading.Event(), []

    def work(job: Job) -> None:
        try:
            while True:
                began.set()
                job.report(Stage("simulating_the_posterior"), 3, 8)
                time.sleep(0.001)
        except dj.Cancelled:
            time.sleep(0.05)
            kept.append(job.name)

    jobs = Jobs(work)
    jobs.submit(Job("a", "a"))
    jobs.submit(Job("b", "b"))
    assert began.wait(20)
    jobs.close(20.0)
    assert kept == ["a"]


def test_a_job_stopped_with_nothing_says_so():
    def work(job: Job) -> None:
        job.stop()
        job.report(Stage("simulating_the_posterior"), 0, 8)

    jobs, job = Jobs(work), Job("a", "a")
    jobs.submit(job)
    _until(lambda: job.state.is_over)
    assert job.state is State.CANCELLED
    assert "before anything was found" in job.message
    jobs.close(5.0)


# Runs and figures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the example, made as the app makes it."""
    state = ServerState(tmp_path_factory.mktemp("results"))
    recording = open_recording(example())
    order = Order(
        recording.train, recording.upload.sha256, model="stg-prinz", members=6
    )
    job = job_for(order, state.folder, ())
    state.jobs.submit(job)
    _until(lambda: job.state.is_over, 400)
    assert job.state is State.DONE, job.message
    assert not job.notes
    return state, job


def test_a_run_is_read_back_as_it_was_made(run):
    state, job = run
    (found,) = summaries(state.folder)
    assert (found.name, found.num_accepted, found.num_asked) == (job.name, 6, 6)
    assert found.title == "slow_burster.csv"
    outcome = read_run(state.folder / job.name)
    assert outcome.train is not None and outcome.traces is not None
    np.testing.assert_array_equal(outcome.train.times, job.order.train.times)
    assert outcome.channels == dj.stg_prinz().channel_names
    assert outcome.accepted.all()
    assert outcome.about["settings"]["seed"] == 0
    assert outcome.about["source"]["sha256"] == job.order.sha256
    assert len(outcome.traces.members) == 3
    assert np.isfinite(outcome.traces.V).all()
    assert sorted(x.name for x in (state.folder / job.name).iterdir()) == [
        "README.txt",
        "manifest.json",
        "models.csv",
        "models.parquet",
        "recording.npz",
        "report.html",
        "spikes.parquet",
    ]


def test_what_could_not_be_written_is_kept_and_can_be(run, tmp_path):
    _, done = run
    order = dataclasses.replace(done.order, members=3)
    place = tmp_path / "results"
    place.write_text("a file, where a folder should be")
    jobs, job = Jobs(lambda job: make(job, place)), Job("a", "a", order)
    jobs.submit(job)
    _until(lambda: job.state.is_over, 300)
    assert job.state is State.REFUSED
    place.unlink()
    jobs.submit(job)
    _until(lambda: job.state.is_over, 60)
    assert job.state is State.DONE, job.message
    assert job.unsaved is None
    assert read_run(place / "a").accepted.sum() == 3
    jobs.close(5.0)


def test_addresses_reach_runs_only(run):
    state, job = run
    assert run_folder(state.folder, job.name) == state.folder / job.name
    for name in ("..", ".", "", f"../{state.folder.name}/{job.name}", "nothing"):
        assert run_folder(state.folder, name) is None


def test_no_two_runs_share_a_name(run):
    state, job = run
    taken = {}
    for _ in range(4):
        again = job_for(job.order, state.folder, taken)
        taken[again.name] = again
    assert len(taken) == 4


def test_runs_of_the_command_line_are_read_too(run, tmp_path):
    state, job = run
    for path in (state.folder / job.name).iterdir():
        if path.name != "recording.npz":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    outcome = read_run(tmp_path)
    assert outcome.train is outcome.inference is outcome.traces is None
    assert len(outcome.spike_times) == 6


@pytest.mark.parametrize("name", downloads.DOWNLOADS)
def test_everything_can_be_taken_away(run, name, tmp_path):
    state, job = run
    outcome = read_run(state.folder / job.name)
    content = downloads.DOWNLOADS[name].make(outcome)
    if name in ("neuron", "parquet"):
        (tmp_path / "x.zip").write_bytes(content)
        names = zipfile.ZipFile(tmp_path / "x.zip").namelist()
        wanted = "run.py" if name == "neuron" else "models.parquet"
        assert any(x.endswith(wanted) for x in names)
        assert not any(x.startswith("/") or ".." in x for x in names)
    assert len(content) > 500


@pytest.mark.parametrize("colors", (LIGHT, DARK))
def test_figures_are_drawn_in_the_colours_of_the_report(run, colors):
    state, job = run
    outcome = read_run(state.folder / job.name)
    train, times = outcome.train, outcome.spike_times
    assert train and outcome.target and outcome.traces and outcome.inference
    members = outcome.population.members
    plots = [
        figures.overview(train, (0.0, 5e3), colors),
        figures.closeup(train, colors),
        figures.intervals(train, colors),
        figures.rasters(train, times, outcome.accepted, members, colors),
        figures.rasters(None, times, outcome.accepted, members, colors),
        figures.interval_bands(train, times, colors),
        figures.potentials(train, outcome.traces, colors),
        figures.feature_bands(
            outcome.target, outcome.features, 0.1, outcome.accepted, members, colors
        ),
        figures.posterior(outcome.inference, outcome.dics, colors),
        figures.conductances(outcome.channels, outcome.g, [0, 1], ["a", "b"], colors),
        figures.correlations(outcome.channels, outcome.g, colors),
        figures.yields([Round(**x) for x in outcome.about["rounds"]], colors),
    ]
    for plot in plots:
        assert plot["layout"]["font"]["color"] == colors.ink
        assert not plot["config"]["displayModeBar"]
    assert LIGHT.members == style.MEMBERS
    assert DARK.members == style.DARK[style.MEMBERS]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.3, 4000.0, ["1", "10", "100", "1000"]),
        (3.0, 400.0, ["3", "10", "30", "100", "300"]),
        (20.0, 110.0, ["20", "30", "50", "100"]),
        (150.0, 230.0, ["160", "180", "200", "220"]),
    ],
)
def test_intervals_have_a_few_round_ticks(low, high, ticks):
    plot = figures.new_plot(LIGHT, 200)
    log_axis(plot, np.geomspace(low, high, 40), "interval")
    assert list(plot.layout.xaxis.ticktext) == ticks


def test_thinned_lines_keep_their_peaks():
    x = np.linspace(0, 1, 20_001)
    y = np.where(np.arange(x.size) % 997 == 500, 40.0, -60.0)
    few, low = figures.thinned(x, y, 1000)
    assert len(few) <= 1000
    assert (low == 40).sum() == (y == 40).sum()
    assert (np.diff(few) > 0).all()
    assert figures.thinned(x[:10], y[:10])[0].size == 10
