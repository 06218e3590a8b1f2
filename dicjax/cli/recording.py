"""Options that select the spikes that a command reads."""

import dataclasses
import pathlib
import warnings
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from dicjax.spikes import SpikeTrain


MOST_WARNINGS = 10  # of a file with many neurons


@dataclasses.dataclass(frozen=True)
class Recording:
    """The spikes to read from a file."""

    unit: str | None = None
    """Unit of the times in RECORDING: ms, s, us, min, or samples@RATE (in Hz). Needed
    only if the file does not state its unit."""
    unit_id: str | None = None
    """Neuron to read from a file with several."""
    window: tuple[float, float] | None = None
    """Start and stop, in ms, of the part to use."""

    def read(self, path: pathlib.Path) -> "list[SpikeTrain]":
        """The spike trains of a file, cut to the window, with warnings of odd ones."""
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
        """The only spike train of a file; raises `ValueError` if there are several."""
        trains = self._read(path)
        if len(trains) > 1:
            names = ", ".join(repr(train.name) for train in trains[:8])
            raise ValueError(
                f"{path} holds {len(trains)} neurons; choose one with --unit-id: "
                f"{names}."
            )
        return trains[0]
