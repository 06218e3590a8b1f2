"""The command that tests members under other conditions."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from dicjax.cli.common import File, Flat, models_of, Progress, write_table
from dicjax.cli.recording import Recording


Axis = Literal["step", "start", "conductances", "current", "noise", "temperature"]


@dataclasses.dataclass(frozen=True)
class Certify:
    """Test whether MODELS still match RECORDING when something changes.

    Prints the number of matching models at half the time step, from another start, with
    each conductance a fifth lower and higher, with other currents, with noise and 10 °C
    warmer. Exit status 0: done; 2: bad input.
    """

    models: Annotated[File, tyro.conf.arg(metavar="MODELS")]
    """models.parquet, models.csv, or their folder."""
    recording: Annotated[File, tyro.conf.arg(metavar="RECORDING")]
    """Spike times of one neuron: text, Excel, NumPy, MATLAB, NWB, a Kilosort folder, or
    a format that neo reads."""
    out: pathlib.Path | None = None
    """CSV to write, with a row per model and a column per check; none if not given."""
    model: str | None = None
    """A model's name, a Python file that declares a neuron, or a checkpoint's folder;
    needed if the table does not name its model."""
    tolerance: float = 0.10
    """Largest relative error of each feature."""
    axes: tuple[Axis, ...] = (
        "step",
        "start",
        "conductances",
        "current",
        "noise",
        "temperature",
    )
    """What to change."""
    seed: int = 0
    """Seed of the noise."""
    source: Flat[Recording] = dataclasses.field(default_factory=Recording)

    def run(self) -> int:
        """Tests and writes; returns the exit status."""
        import jax
        import numpy as np

        from dicjax.populations import certify

        neuron, g = models_of(self.models, self.model)
        train = self.source.read_one(self.recording)
        with Progress() as progress:
            certificate = certify(
                neuron,
                np.asarray(g, np.float32),
                train,
                tolerance=self.tolerance,
                axes=self.axes,
                key=jax.random.key(self.seed),
                on_progress=progress,
            )
        if self.out is not None:
            columns = {"member": list(range(len(g)))}
            columns |= dict(
                zip(certificate.names, certificate.valid.T.tolist(), strict=True)
            )
            if np.isfinite(certificate.robustness).all():
                columns["robustness"] = certificate.robustness.tolist()
            write_table(columns, self.out)
        print(certificate)
        return 0
