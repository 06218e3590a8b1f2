"""Channels of recorded sweeps: which hold time, current and potential, in what unit."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dicjax.recordings.readers.common import listing


UNEVEN = 0.01  # part of the time between samples by which it may vary

Rows = Float[np.ndarray, "sweeps samples"]
Trace = Float[np.ndarray, " samples"]
Recording = tuple[Rows, Rows, float]  # pA, mV, ms between samples


class Quantity(NamedTuple):
    name: str
    units: dict[str, float]
    words: set[str]  # that may name it


TIME = Quantity("time", {"ms": 1.0, "s": 1e3}, {"t", "time", "times"})
CURRENT = Quantity(
    "current",
    {"pA": 1.0, "nA": 1e3},
    {"i", "iinj", "inj", "injected", "current", "stim", "stimulus", "command"},
)
VOLTAGE = Quantity(
    "voltage", {"mV": 1.0, "V": 1e3}, {"v", "vm", "u", "voltage", "potential"}
)


def words_of(label: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", label.casefold())


def _factor(quantity: Quantity, label: str) -> float | None:
    *before, unit = words_of(label) or [""]
    # A lone "V" names the potential and states no unit; a lone "mV" does both.
    is_meant = quantity.words & {*before} or (not before and len(unit) == 2)
    factors = {name.casefold(): factor for name, factor in quantity.units.items()}
    return factors.get(unit) if is_meant else None


class Source(NamedTuple):
    """A file, and the names of the channels to read."""

    path: pathlib.Path
    voltage: str | None
    current: str | None

    def only(
        self, quantity: Quantity, channels: list[int], labels: list[str], remedy: str
    ) -> int:
        """Which of the channels of this quantity is the one meant."""
        what, wanted = quantity.name, getattr(self, quantity.name, None)
        chosen = [i for i in channels if wanted in (None, labels[i])]
        if not chosen:
            named = "" if wanted is None else f" named {wanted!r}"
            raise ValueError(
                f"{self.path.name} has no {what}{named} with its unit in "
                f"{listing(labels)}: {remedy}."
            )
        if len(chosen) > 1:
            raise ValueError(
                f"{self.path.name} has several channels of {what}, "
                f"{listing([labels[i] for i in chosen])}: say which, as in "
                f"{what}={labels[chosen[0]]!r}, if need be after renaming."
            )
        return chosen[0]

    def columns(self, labels: list[str]) -> list[tuple[int, float]]:
        """Where time, current and potential are, and by what their unit multiplies."""
        columns = []
        for quantity in (TIME, CURRENT, VOLTAGE):
            factors = [_factor(quantity, label) for label in labels]
            channels = [i for i, factor in enumerate(factors) if factor]
            names = " or ".join(f"{quantity.name}_{unit}" for unit in quantity.units)
            i = self.only(quantity, channels, labels, f"name one {names}")
            columns.append((i, factors[i]))
        return columns


def check_alike(
    path: pathlib.Path, values: Sequence[int | float], what: str, tolerance: float = 0.0
) -> None:
    for i, value in enumerate(values):
        if abs(value - values[0]) > tolerance * values[0]:
            raise ValueError(
                f"{path.name}: sweep {i} (from 0) has {value:.6g} {what}, and the "
                f"first has {values[0]:.6g}: export whole sweeps of one protocol."
            )


def rounded(every: float, num_samples: int) -> float:
    near = float(f"{every:.6g}")  # in float32, 0.05 ms is 0.04999999 ms
    return near if abs(near - every) * num_samples <= UNEVEN * near else every
