"""Runs of the app: written, read back, drawn and taken away."""

import dataclasses
import pathlib
import time
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from test_tables import make_generated

from dicjax.app import figures
from dicjax.app.canvas import DARK, interval_axes, LIGHT, new_plot
from dicjax.app.downloads import DOWNLOADS
from dicjax.app.jobs import Job, State
from dicjax.app.runs import job_for, Order, Outcome, read_run, run_folder, summaries
from dicjax.app.server_state import ServerState
from dicjax.generation import GenerateConfig, Generated
from dicjax.output import read_manifest, style, write_manifest, write_population
from dicjax.recordings import read_spike_trains


SMALL = GenerateConfig(candidates_per_round=96)
EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "slow_burster.csv"


def _end_of(job: Job) -> State:
    end = time.time() + 400
    while not job.state.is_over:
        assert time.time() < end, "it took too long"
        time.sleep(0.01)
    return job.state


class Run(NamedTuple):
    """A run of the app, the job that made it, and what it found."""

    state: ServerState
    job: Job
    made: Generated


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Run]:
    """A run of the example, which cannot be saved at first."""
    train = read_spike_trains(EXAMPLE)[0]
    state = ServerState(tmp_path_factory.mktemp("x") / "results")
    state.folder.write_text("a file, where a folder should be")
    job = state.start(Order(train, "0f", None, "stg-prinz", 3, 0.1, 7, SMALL))
    assert _end_of(job) is State.REFUSED
    made = job.unsaved
    assert made is not None
    state.folder.unlink()
    state.jobs.submit(job)
    assert _end_of(job) is State.DONE, job.message
    assert job.unsaved is None
    yield Run(state, job, made)
    state.jobs.close(5.0)


@pytest.fixture(scope="module")
def outcome(run) -> Outcome:
    return read_run(run.state.folder / run.job.name)


def test_a_run_is_read_back_as_it_was_made(run, outcome):
    state, job, made = run
    (found,) = summaries(state.folder)
    num = made.num_accepted
    assert num >= 1
    assert (found.name, found.num_accepted, found.num_asked) == (job.name, num, 3)
    assert found.title == EXAMPLE.name
    assert found.address == job.address
    assert outcome.train is not None and outcome.traces is not None
    np.testing.assert_array_equal(outcome.train.times, job.order.train.times)
    assert outcome.channels == made.neuron.channel_names
    np.testing.assert_array_equal(outcome.g.astype(np.float32), made.g)
    np.testing.assert_array_equal(outcome.accepted, made.accepted)
    assert outcome.num_accepted == num
    assert outcome.about["settings"]["seed"] == 7
    assert outcome.about["settings"]["warnings"] == made.settings["warnings"]
    assert outcome.about["source"]["sha256"] == "0f"
    assert len(outcome.traces.members) == min(3, num)
    assert np.isfinite(outcome.traces.V).all()
    assert sorted(x.name for x in outcome.folder.iterdir()) == [
        "README.txt",
        "manifest.json",
        "models.csv",
        "models.parquet",
        "recording.npz",
        "report.html",
        "spikes.parquet",
    ]


def test_addresses_reach_runs_only(run):
    state, job, _ = run
    assert run_folder(state.folder, job.name) == state.folder / job.name
    for name in ("..", ".", "", f"../{state.folder.name}/{job.name}", "nothing"):
        assert run_folder(state.folder, name) is None


def test_no_two_runs_share_a_name(run):
    state, job, _ = run
    taken = {}
    for _ in range(4):
        again = job_for(job.order, state.folder, taken)
        taken[again.name] = again
    assert len(taken) == 4


def test_runs_of_the_command_line_are_read_too(outcome, tmp_path):
    for path in outcome.folder.iterdir():
        if path.name != "recording.npz":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = read_run(tmp_path)
    assert found.train is found.inference is found.traces is None
    assert len(found.spike_times) == len(outcome.g)
    assert found.target is not None
    for name in ("label", "mean_isi", "period", "spikes_per_burst", "num_spikes"):
        expected = getattr(outcome.target, name)
        np.testing.assert_allclose(getattr(found.target, name), expected, rtol=1e-6)


def test_a_download_runs_nothing_that_a_manifest_names(tmp_path):
    evil, mark = tmp_path / "evil.py", tmp_path / "ran"
    evil.write_text(f"import dicjax\nopen({str(mark)!r}, 'w')\nneuron = dicjax.stg()")
    folder = tmp_path / "run"
    folder.mkdir()
    write_population(make_generated(), folder)
    about = read_manifest(folder)
    for model in (str(evil), [str(evil)], str(tmp_path)):
        write_manifest(folder, about | {"model": model})
        with pytest.raises(ValueError, match="does not ship"):
            DOWNLOADS["neuron"].make(read_run(folder))
    assert not mark.exists()


@pytest.mark.parametrize("name", DOWNLOADS)
def test_everything_can_be_taken_away(outcome, name, tmp_path):
    content = DOWNLOADS[name].make(outcome)
    if name in ("neuron", "parquet"):
        (tmp_path / "x.zip").write_bytes(content)
        names = zipfile.ZipFile(tmp_path / "x.zip").namelist()
        wanted = "run.py" if name == "neuron" else "models.parquet"
        assert any(x.endswith(wanted) for x in names)
        assert not any(x.startswith("/") or ".." in x for x in names)
    assert len(content) > 500


@pytest.mark.parametrize("colors", (LIGHT, DARK))
def test_figures_are_drawn_in_the_colours_of_the_report(outcome, colors):
    train = outcome.train
    unrecorded = dataclasses.replace(outcome, train=None)
    plots = [
        figures.overview(train, (0.0, 5e3), colors),
        figures.closeup(train, colors),
        figures.intervals(train, colors),
        figures.rasters(outcome, colors),
        figures.rasters(unrecorded, colors),
        figures.interval_bands(outcome, colors),
        figures.interval_bands(unrecorded, colors),
        figures.potentials(outcome, colors),
        figures.feature_bands(outcome, colors),
        figures.posterior(outcome, colors),
        figures.conductances(outcome, colors),
        figures.correlations(outcome, colors),
        figures.yields(outcome, colors),
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
    plot = new_plot(LIGHT, 200)
    interval_axes(plot, np.geomspace(low, high, 40))
    assert list(plot.layout.xaxis.ticktext) == ticks


def test_thinned_lines_keep_their_peaks():
    x = np.linspace(0, 1, 20_001)
    y = np.where(np.arange(x.size) % 997 == 500, 40.0, -60.0)
    few, low = figures.thinned(x, y, 1000)
    assert len(few) <= 1000
    assert (low == 40).sum() == (y == 40).sum()
    assert (np.diff(few) > 0).all()
    assert figures.thinned(x[:10], y[:10])[0].size == 10
