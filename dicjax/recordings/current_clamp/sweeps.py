"""Currents injected into a cell and its potential, checked."""

from typing import Any

import equinox as eqx
import numpy as np

from dicjax._core import counted, described
from dicjax.recordings.current_clamp.channels import Rows


MIN_SAMPLES = 100
MIN_EVERY, MAX_EVERY = 0.001, 5.0  # ms between samples
MAX_V = 250.0  # mV
MIN_V = 0.5  # mV; a potential that stays closer to 0 is in volts
MAX_CURRENT = 1e5  # pA


def float64(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


class Sweeps(eqx.Module):
    """What the potential of a cell did in answer to injected currents, checked.

    - `current`: injected, in pA.
    - `V`: potential, in mV.
    - `every`: time between samples, in ms. The first of each sweep is at 0 ms.
    - `name`: of the cell, as tables and figures should name it.
    """

    current: Rows = eqx.field(converter=float64)
    V: Rows = eqx.field(converter=float64)
    every: float = eqx.field(static=True)
    name: str = eqx.field(static=True, default="cell")

    def __repr__(self) -> str:
        return described(self, lambda: counted(len(self.V), "sweep"))

    def __check_init__(self):
        current, V, every = self.current, self.V, self.every
        if V.ndim != 2 or not V.size or current.shape != V.shape:
            raise ValueError(
                f"{self.name}: current and potential must both be sweeps × samples, "
                f"but have shapes {current.shape} and {V.shape}."
            )
        check_count(self.name, V.shape[1])
        if not MIN_EVERY <= every <= MAX_EVERY:
            raise ValueError(
                f"{self.name}: samples {every:.4g} ms apart are not between "
                f"{MIN_EVERY} and {MAX_EVERY} ms: correct the unit of time."
            )
        self._check(current, "current", "pA", MAX_CURRENT)
        self._check(V, "potential", "mV", MAX_V)
        if np.abs(V).max() < MIN_V:
            raise ValueError(
                f"{self.name}: the potential stays within {np.abs(V).max():.3g} mV of "
                "0: it is probably in volts: correct the unit."
            )

    def _check(self, values: Rows, what: str, unit: str, most: float) -> None:
        bad = ~(np.abs(values) <= most)  # also where it is nan
        if not bad.any():
            return
        i, j = np.argwhere(bad)[0]
        why = f", beyond ±{most:g} {unit}: it is probably in another unit: correct it"
        if not np.isfinite(values[i, j]):
            why = ": cut out what was not recorded"
        raise ValueError(
            f"{self.name}, sweep {i} (from 0) at {j * self.every:g} ms: the {what} is "
            f"{values[i, j]:.4g} {unit}{why}."
        )


def check_count(name: str, num_samples: int) -> None:
    if num_samples < MIN_SAMPLES:
        raise ValueError(
            f"{name}: {num_samples} samples in a sweep are too few: give at least "
            f"{MIN_SAMPLES}."
        )
