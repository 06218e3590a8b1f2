"""The command line and an example recording, for tests of whole runs."""

import pathlib
from collections.abc import Sequence

import pytest

import dicjax as dj
from dicjax.cli import main


EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "slow_burster.csv"


def dicjax(*args: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    return int(stopped.value.code or 0)


def example_train() -> dj.SpikeTrain:
    (train,) = dj.read_spike_trains(EXAMPLE)
    return train


def write_csv(path: pathlib.Path, times: Sequence[object]) -> pathlib.Path:
    """A recording of one cell, even of times that are none."""
    path.write_text("\n".join(["spike_time_ms", *map(str, times)]) + "\n")
    return path
