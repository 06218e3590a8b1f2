"""What people are told on a terminal, while they wait and then."""

import functools
import io
import os
import pickle
import re
import subprocess
import sys
import time
from typing import Any, cast

import pytest

import dicjax as dj
from dicjax._core.progress import (
    as_progress,
    duration,
    FIRST_RUN,
    Pace,
    renamed,
    Stage,
    stage_words,
)
from dicjax.cli.common import as_lines, Progress


def test_time_left_follows_what_is_found_since_something_was():
    pace = Pace()
    pace.note(Stage("reading_the_encoder"), 0, 100, 0.0)
    assert pace.seconds_left(1.0) is None
    pace.note(Stage("simulating_the_posterior"), 0, 100, 2.0)
    assert pace.seconds_left(3.0) is None
    pace.note(
        Stage("correcting", "round 1"), 1, 100, 40.0
    )  # after a minute of compiling
    assert pace.seconds_left(40.0) is None
    pace.note(Stage("correcting", "round 2"), 9, 100, 45.0)
    assert pace.seconds_left(45.0) is None
    pace.note(Stage("correcting", "round 2"), 26, 100, 50.0)
    assert pace.seconds_left(50.0) == pytest.approx(74 * 10 / 25)
    pace.note(Stage("correcting", "round 2"), 26, 100, 58.0)  # the same, said again
    assert pace.seconds_left(60.0) == pytest.approx(74 * 10 / 25 - 10)
    assert pace.seconds_left(500.0) is None


def test_time_left_is_that_of_one_piece_of_work():
    pace = Pace()
    pace.note(Stage("widening", "round 2"), 50, 100, 20.0)
    pace.note(Stage("widening", "round 3"), 99, 100, 30.0)
    pace.note(Stage("certifying"), 0, 100, 40.0)
    assert pace.seconds_left(41.0) is None
    pace.note(Stage("certifying"), 20, 100, 42.0)
    pace.note(Stage("certifying"), 60, 100, 44.0)
    assert pace.seconds_left(44.0) == pytest.approx(2.0)
    pace.note(Stage("certifying"), 100, 100, 46.0)
    assert pace.seconds_left(46.0) is None
    pace.note(Stage("writing"), 70, 100, 50.0)  # which does not count members
    pace.note(Stage("writing"), 80, 100, 51.0)
    assert pace.seconds_left(51.0) is None


def test_stages_and_times_are_said_as_people_say_them():
    correcting = Stage("correcting", "round 2")
    assert stage_words(correcting) == "Correcting candidates that missed (round 2)"
    assert stage_words(Stage("measuring_slopes")) == "Measuring slopes"
    assert [duration(x) for x in (5.2, 200, 7200)] == ["5 s", "3 min", "2.0 h"]


def test_a_stage_prints_as_words_and_is_compared_by_its_name():
    stage = Stage("halving_the_time_step")
    assert (str(stage), stage.name) == (
        "halving the time step",
        "halving_the_time_step",
    )
    training = Stage("training", loss=0.123456)
    assert str(training) == "training, loss 0.12" and training.loss == 0.123456
    emulating = training.named("learning_to_emulate")
    assert (emulating.name, emulating.detail) == ("learning_to_emulate", "loss 0.12")
    again = pickle.loads(pickle.dumps(emulating))
    assert (again, again.name, again.loss) == (emulating, emulating.name, 0.123456)


def test_a_part_of_some_work_is_reported_as_a_stage_of_it():
    calls = []
    report = renamed(lambda *call: calls.append(call), "mapping")
    assert report is not None and renamed(None, "mapping") is None
    report(Stage("simulating", "round 1"), 2, 5)
    assert calls == [("mapping, round 1", 2, 5)]


class _Follower:
    """An object whose methods follow progress, in the old way and the new."""

    def __init__(self):
        self.calls = []

    def old(self, done, total):
        self.calls.append((done, total))

    def new(self, stage, done, total):
        self.calls.append((stage.name, done, total))


def test_callbacks_of_two_arguments_still_work_and_are_deprecated():
    follower = _Follower()
    with pytest.warns(DeprecationWarning, match="stage, done, total"):
        report = as_progress(follower.old)
    assert report is not None
    report(Stage("simulating"), 1, 2)
    with pytest.warns(DeprecationWarning):
        report = as_progress(
            lambda done, total, calls=follower.calls: calls.append((done, total))
        )
    assert report is not None
    report(Stage("simulating"), 2, 2)
    assert follower.calls == [(1, 2), (2, 2)]


def test_callbacks_of_three_arguments_are_taken_as_they_are():
    follower = _Follower()
    anything = lambda *call: follower.calls.append(call)
    named = functools.partial(follower.new, Stage("refining"))
    with pytest.warns(DeprecationWarning):  # two are left to give
        assert as_progress(named) is not named
    for callback in (follower.new, anything, None):
        assert as_progress(callback) == callback


def test_public_functions_take_callbacks_of_either_kind():
    neuron = dj.hodgkin_huxley()
    follower = _Follower()
    dj.simulate(neuron, neuron.default_g, 50.0, on_progress=follower.new)
    with pytest.warns(DeprecationWarning):
        old = cast(Any, follower.old)
        dj.simulate(neuron, neuron.default_g, 50.0, on_progress=old)
    half = len(follower.calls) // 2
    assert {name for name, *_ in follower.calls[:half]} == {"simulating"}
    assert follower.calls[half - 1][1:] == follower.calls[-1]


@pytest.mark.slow
def test_a_run_is_the_first_until_the_solver_was_compiled(tmp_path):
    code = """
from dicjax.cli import configure_jax
configure_jax()
import dicjax as dj
from dicjax._core.progress import is_first_run
print(is_first_run())
neuron = dj.hodgkin_huxley()
dj.simulate(neuron, neuron.default_g, 50.0)
print(is_first_run())
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        # Optimised, since what compiles at once is not kept.
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["True", "False"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _followed(capture, monkeypatch) -> str:
    monkeypatch.setattr("sys.stderr", capture)
    with Progress() as progress:
        for done in (0, 10, 30):
            progress(Stage("correcting", "round 1"), done, 50)
            time.sleep(0.15)
        progress(Stage("writing"), 50, 50)
    return capture.getvalue()


def test_a_log_gets_a_line_per_stage(monkeypatch):
    lines = _followed(io.StringIO(), monkeypatch).splitlines()
    lines = [line for line in lines if not line.startswith("This is the first run")]
    assert [re.sub(r"\d+ s\)$", "0 s)", line) for line in lines] == [
        "Correcting candidates that missed (round 1) (0 s)",
        "Writing tables, figures and the report (0 s)",
    ]


def test_a_terminal_gets_one_line_that_is_wiped(monkeypatch):
    said = _followed(_Terminal(), monkeypatch)
    assert "(round 1): 30 of 50 (0 s, about 0 s to go)" in said
    assert said.endswith("\r\x1b[K")
    assert "\n" not in said.replace(f"{FIRST_RUN}\n", "")


def test_a_table_is_read_downward_on_a_terminal():
    columns = {"unit": ["LP", "PD", "IN9"], "rate": [8.954649925, 1 / 3, float("nan")]}
    assert as_lines(columns, 80).splitlines() == [
        "unit     LP      PD  IN9",
        "rate  8.955  0.3333  nan",
    ]
    assert as_lines(columns, 22).splitlines() == [
        "unit     LP      PD",
        "rate  8.955  0.3333",
        "",
        "unit  IN9",
        "rate  nan",
    ]
