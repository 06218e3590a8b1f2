"""Options that select the spikes that a command reads."""

import dataclasses
import pathlib
import warnings
from typing import Annotated, Literal

from tyro.conf import arg, Positional

from dicjax._core import Advice
from dicjax.recordings import examine, read_spike_trains, Window
from dicjax.spikes import SpikeTrain


Cleaning = Literal["order", "doubles", "negative", "overflow", "pauses"]
MOST_WARNINGS = 10  # of a file with many neurons


@dataclasses.dataclass(frozen=True)
class Recording:
    """The spikes to read from a file."""

    recording: Annotated[Positional[pathlib.Path], arg(metavar="RECORDING")]
    """Spike times: text, Excel, NumPy, MATLAB, NWB, a Kilosort folder, or a format that
    neo reads."""
    unit: Annotated[str | None, arg(metavar="UNIT")] = None
    """Unit of the times in RECORDING: ms, s, us, min, or samples@RATE (in Hz). Needed
    only if the file does not state its unit."""
    unit_id: Annotated[str | None, arg(metavar="NEURON")] = None
    """Neuron to read from a file with several."""
    window: Annotated[Window | None, arg(metavar="START STOP|auto")] = None
    """Start and stop, in ms, of the part to use; or auto, for the stretch where the
    neuron fires steadily."""
    clean: tuple[Cleaning, ...] = ()
    """What to mend: sort stamps (order), drop spikes that were detected twice (doubles)
    or stamps below zero (negative), count on where 32 bits overflow (overflow), or take
    silences as pauses of the recording (pauses)."""

    def read(self) -> list[SpikeTrain]:
        """The spike trains of the file, cut to the window; warns of odd ones."""
        trains = self._read()
        odd = [(train, finding) for train in trains for finding in examine(train)]
        for train, finding in odd[:MOST_WARNINGS]:
            name = f"{train.name}: " if len(trains) > 1 else ""
            warnings.warn(Advice(name, finding.message), stacklevel=2)
        if odd[MOST_WARNINGS:]:
            num = len({train.name for train, _ in odd[MOST_WARNINGS:]})
            more = f"{num} more neurons look odd: read one with --unit-id to see why."
            warnings.warn(more, stacklevel=2)
        return trains

    def _read(self) -> list[SpikeTrain]:
        return read_spike_trains(
            self.recording,
            unit=self.unit,
            unit_id=self.unit_id,
            window=self.window,
            clean=self.clean,
        )

    def window_of(self, train: SpikeTrain) -> tuple[float, float] | None:
        """The part of a train that is used (ms), unless it is all."""
        return (train.t_start, train.t_stop) if self.window == "auto" else self.window

    def windows_of(self, trains: list[SpikeTrain]) -> dict[str, list[float]]:
        """Columns of the stretches that were taken, where each train has its own."""
        if self.window != "auto":
            return {}
        return {
            "window_start": [train.t_start for train in trains],
            "window_stop": [train.t_stop for train in trains],
        }

    def read_one(self) -> SpikeTrain:
        """The only spike train of the file; a `ValueError` if there are several."""
        trains = self._read()
        if len(trains) > 1:
            names = ", ".join(repr(train.name) for train in trains[:8])
            raise ValueError(
                f"{self.recording} holds {len(trains)} neurons; choose one with "
                f"--unit-id: {names}."
            )
        return trains[0]
