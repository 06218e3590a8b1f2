"""Text that recording programs export with a layout of their own."""

import pathlib
import re
from collections.abc import Callable

import numpy as np

from dicjax.recordings.readers.common import Times, Train
from dicjax.recordings.readers.tabular.cells import number
from dicjax.recordings.readers.units import MILLISECONDS, named_unit


Lines = list[str]
Spikes = dict[tuple[str, str], list[float]]  # of channels and units

_WAVEMARK = '"WAVMK"\t'
# MC_DataTool writes a block per channel under such a line, and units below it.
_CHANNEL = re.compile(r"t\s+Spikes\s+\d+\s+(\S+)\s*(Unit)?\s*", re.I)
MIN_STEP = 0.25  # ms between most spikes; less is between samples of cut-outs
MIN_SAMPLES = 4  # of a cut-out


def _is_wavemarks(lines: Lines) -> bool:
    return any(line.startswith(_WAVEMARK) for line in lines)


def _wavemark_trains(path: pathlib.Path, lines: Lines) -> list[Train]:
    """WaveMarks of Spike2."""
    channel, onsets, codes = "", {}, {}
    for i, line in enumerate(lines, 1):
        kind, *cells = [cell.strip().strip('"') for cell in line.split("\t")]
        if kind == "CHANNEL" and cells:
            channel = cells[0]
        elif line.startswith(_WAVEMARK):
            onsets.setdefault(channel, []).append(number(path, i, cells[0]))
            codes.setdefault(channel, set()).update(cells[1:2])
    return [
        Train(
            path.stem if len(onsets) == 1 else name,
            np.array(times, float),
            usual_unit="s",
            caution=_several(codes[name]),
        )
        for name, times in onsets.items()
    ]


def _several(codes: set[str]) -> str:
    known = sorted(codes - {""})
    if not 1 < len(known) <= 16:
        return ""
    return (
        f"holds marks of codes {', '.join(known)}; if these are different cells, "
        "export one code"
    )


def _is_mc_rack(lines: Lines) -> bool:
    return any(_CHANNEL.fullmatch(line) for line in lines[:20])


def _mc_rack_trains(path: pathlib.Path, lines: Lines) -> list[Train]:
    """Spikes of MC_Rack, exported by MC_DataTool: their times in ms, first."""
    spikes: Spikes = {}
    channel, has_units, unit = "", False, None
    for i, line in enumerate(lines, 1):
        head = _CHANNEL.fullmatch(line)
        cells = [cell.strip() for cell in line.split("\t")]
        if head:
            channel, has_units = head[1], head[2] is not None
        elif cells[0].startswith("["):
            unit = named_unit(cells[0].strip("[]"))
        elif channel and cells[0]:
            own = cells[2] if has_units and len(cells) > 2 else ""
            spikes.setdefault((channel, own), []).append(number(path, i, cells[0]))
    units = {name: sorted(u for x, u in spikes if x == name) for name, _ in spikes}
    trains = []
    for (name, own), times in spikes.items():
        label = f"{name}_{own}" if len(units[name]) > 1 else name
        train = Train(label, np.array(times), unit)
        is_cut = _are_samples(train.times * MILLISECONDS.get(unit or "ms", 1.0))
        trains.append(_without_samples(path, train) if is_cut else train)
    return trains


def _are_samples(times: Times) -> bool:
    """Whether times in ms are mostly those of the samples of cut-outs."""
    return times.size > MIN_SAMPLES and bool(np.median(np.diff(times)) < MIN_STEP)


def _without_samples(path: pathlib.Path, train: Train) -> Train:
    """The starts of cut-outs, all of which have as many samples."""
    steps = np.diff(train.times)
    step = float(np.median(steps))
    follows = np.abs(steps - step) < 0.5 * step
    starts = np.append(0, np.flatnonzero(~follows) + 1)
    lengths = np.diff(np.append(starts, train.times.size))
    sizes, counts = np.unique(lengths, return_counts=True)
    size = int(sizes[np.argmax(counts)])
    if size < MIN_SAMPLES or np.any(lengths % size):
        raise ValueError(
            f"{path.name} has cut-outs of different lengths: export it from "
            "MC_DataTool with time stamps only."
        )
    caution = (
        f"was read from its cut-outs of {size} samples: times are those of their first "
        "samples, which come before the spikes by one constant time"
    )
    return train._replace(times=train.times[::size], caution=caution)


EXPORTS: list[
    tuple[Callable[[Lines], bool], Callable[[pathlib.Path, Lines], list[Train]]]
] = [(_is_wavemarks, _wavemark_trains), (_is_mc_rack, _mc_rack_trains)]
