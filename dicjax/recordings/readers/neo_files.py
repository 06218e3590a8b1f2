"""Reads files of recording systems with neo: spike trains of all segments."""

import importlib.util
import pathlib
from collections.abc import Sequence

from dicjax.recordings.readers import neo_worker
from dicjax.recordings.readers.common import read_apart, Train


WITHOUT_NEO = (
    "{} is not one of {}: export it as one; all else, such as {}, is read by neo: "
    'pip install "dicjax[neo]".'
)
UNKNOWN = "{} is not one of {}, and neo does not know it: export it as one."
UNREADABLE = "neo cannot read {} ({}): export {}."
_REMEDIES = {
    ".smrx": "export text, .mat or a NEO file (.nix) from Spike2",
    ".pl2": "export .plx or .nex from Plexon's programs",
    ".pkl": "save .npz, as to read a pickle is to run it",
    ".pickle": "save .npz, as to read a pickle is to run it",
}


def read_neo(path: pathlib.Path, known: Sequence[str]) -> list[Train]:
    name, own = path.name, ", ".join(known)
    check_readable(path)
    has_neo = importlib.util.find_spec("neo") is not None
    if not has_neo and not path.is_dir():
        raise ValueError(WITHOUT_NEO.format(name, own, ".nex, .plx or .nix"))
    look = neo_worker.look_into
    found = read_apart(look, path) if has_neo else neo_worker.Found([])
    if found.trains:
        return neo_trains(found.trains)
    if found.has_traces:
        raise ValueError(
            f"{name} has traces and no spike trains: sort its spikes first, and give "
            "their times."
        )
    if found.reasons:
        reasons = "; ".join(found.reasons[:3])
        raise ValueError(UNREADABLE.format(name, reasons, "its spike times as text"))
    if path.is_dir():
        raise ValueError(
            f"{str(path)!r} is not a file, nor a folder that Kilosort wrote (with "
            "spike_times.npy): give the path of a recording."
        )
    raise ValueError(UNKNOWN.format(name, own))


def check_readable(path: pathlib.Path) -> None:
    """Refuses what no reader of neo reads, or only by running it."""
    remedy = _REMEDIES.get(path.suffix.lower())
    if remedy:
        raise ValueError(f"{path.name} cannot be read here: {remedy}.")


def neo_trains(found: Sequence[neo_worker.SpikeTimes]) -> list[Train]:
    return [Train(name, times, "ms", span=span) for name, times, span in found]
