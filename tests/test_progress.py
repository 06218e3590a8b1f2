"""What people are told on a terminal, while they wait and then."""

import io
import os
import re
import subprocess
import sys
import time

import pytest

from dicjax._core.progress import duration, FIRST_RUN, Pace, stage
from dicjax.cli.common import as_lines, Progress


def test_time_left_follows_what_is_found_since_something_was():
    pace = Pace()
    pace.note("reading the encoder", 0, 100, 0.0)
    assert pace.seconds_left(1.0) is None
    pace.note("simulating the posterior", 0, 100, 2.0)
    assert pace.seconds_left(3.0) is None
    pace.note("correcting, round 1", 1, 100, 40.0)  # after a minute of compiling
    assert pace.seconds_left(40.0) is None
    pace.note("correcting, round 2", 9, 100, 45.0)
    assert pace.seconds_left(45.0) is None
    pace.note("correcting, round 2", 26, 100, 50.0)
    assert pace.seconds_left(50.0) == pytest.approx(74 * 10 / 25)
    pace.note("correcting, round 2", 26, 100, 58.0)  # the same, said again
    assert pace.seconds_left(60.0) == pytest.approx(74 * 10 / 25 - 10)
    assert pace.seconds_left(500.0) is None


def test_time_left_is_that_of_one_piece_of_work():
    pace = Pace()
    pace.note("widening, round 2", 50, 100, 20.0)
    pace.note("widening, round 3", 99, 100, 30.0)
    pace.note("certifying", 0, 100, 40.0)
    assert pace.seconds_left(41.0) is None
    pace.note("certifying", 20, 100, 42.0)
    pace.note("certifying", 60, 100, 44.0)
    assert pace.seconds_left(44.0) == pytest.approx(2.0)
    pace.note("certifying", 100, 100, 46.0)
    assert pace.seconds_left(46.0) is None
    pace.note("writing", 70, 100, 50.0)  # which does not count members
    pace.note("writing", 80, 100, 51.0)
    assert pace.seconds_left(51.0) is None


def test_stages_and_times_are_said_as_people_say_them():
    assert stage("correcting, round 2") == "Correcting those that missed (round 2)"
    assert stage("mapping") == "Mapping"
    assert [duration(x) for x in (5.2, 200, 7200)] == ["5 s", "3 min", "2.0 h"]


def test_a_run_is_the_first_until_the_solver_was_compiled(tmp_path):
    code = """
from dicjax.cli import _prepare
_prepare()
import dicjax as dj
from dicjax._core.progress import is_first_run
print(is_first_run())
neuron = dj.hodgkin_huxley()
dj.simulate(neuron, neuron.default_g, 50.0)
print(is_first_run())
"""
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
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
            progress("correcting, round 1", done, 50)
            time.sleep(0.15)
        progress("writing", 50, 50)
    return capture.getvalue()


def test_a_log_gets_a_line_per_stage(monkeypatch):
    lines = _followed(io.StringIO(), monkeypatch).splitlines()
    lines = [line for line in lines if not line.startswith("This is the first run")]
    assert [re.sub(r"\d+ s\)$", "0 s)", line) for line in lines] == [
        "Correcting those that missed (round 1) (0 s)",
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
