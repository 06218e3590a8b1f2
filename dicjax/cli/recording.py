"""Which spikes commands read."""

import dataclasses
import pathlib
import warnings
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from dicjax.spikes import SpikeTrain


MOST_WARNINGS = 10  # of a file with many neurons


@dataclasses.dataclass(frozen=True)
class Recording:
    """Which spikes to read."""

    unit: str | None = None
    """Unit of the times in RECORDING: ms, s, us, min, or samples@RATE (in Hz). Needed
    only where the file does not say."""
    unit_id: str | None = None
    """Which neuron to take from a file that holds several."""
    window: tuple[float, float] | None = None
    """Start and stop, in ms, of the stretch to use."""

    def read(self, path: pathlib.Path) -> "list[SpikeTrain]":
        """The spike trains of a file, cut to the window; warns of what is odd there."""
        from dicjax._core import Advice
        from dicjax.recordings import examine

        trains = self._read(path)
        odd = [(train, finding) for train in trains for finding in examine(train)]
        for train, finding in odd[:MOST_WARNINGS]:
            name = f"{train.name}: " if len(trains) > 1 else ""
            warnings.warn(Advice(name, finding.message), stacklevel=2)
        if odd[MOST_WARNINGS:]:
            names = {train.name for train, _ in odd[MOST_WARNINGS:]}
            more = (
                f"{len(names)} more neurons are odd: read one by --unit-id to see how."
            )
            warnings.warn(more, stacklevel=2)
        return trains

    def _read(self, path: pathlib.Path) -> "list[SpikeTrain]":
        from dicjax.recordings import read_spike_trains

        trains = read_spike_trains(path, unit=self.unit, unit_id=self.unit_id)
        if self.window is not None:
            trains = [train.window(*self.window) for train in trains]
        return trains

    def read_one(self, path: pathlib.Path) -> "SpikeTrain":
        """The only spike train of a file, or a `ValueError` that says how to choose."""
        trains = self._read(path)
        if len(trains) > 1:
            names = ", ".join(repr(train.name) for train in trains[:8])
            raise ValueError(
                f"{path} holds {len(trains)} neurons; choose one with --unit-id: "
                f"{names}."
            )
        return trains[0]
