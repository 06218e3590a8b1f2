"""The command that tests members under other conditions."""

import dataclasses
from typing import Annotated

import jax
import numpy as np
from tyro.conf import arg

from dicjax._core import Seed, Tolerance
from dicjax.cli.common import Flat, ModelsCommand, Progress, Table, TableCommand
from dicjax.cli.recording import Recording
from dicjax.populations import AXES, Axis, certify


CHECKS = "CSV to write, with a row per model and a column per check; none if not given."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certify(TableCommand, ModelsCommand):
    """Test whether MODELS still match RECORDING when something changes.

    Prints the number of matching models at half the time step, from another start, with
    each conductance a fifth lower and higher, with other currents, with noise and 10 °C
    warmer. Exit status 0: done; 2: bad input.

    For example: dicjax certify results recording.csv --axes noise temperature
    """

    source: Flat[Recording]
    out: Annotated[Table, arg(help=CHECKS, metavar="TABLE")] = None
    tolerance: Annotated[Tolerance, arg(metavar="SHARE")] = 0.10
    """Largest relative error of each feature."""
    axes: tuple[Axis, ...] = AXES
    """What to change."""
    seed: Seed = 0
    """Seed of the noise."""

    def run(self) -> int:
        neuron, g = self.read_models()
        if self.read_drive() is not None:
            raise ValueError(
                f"The models of {self.models} fire under a drive that fluctuates, and "
                "are judged by their variability, which certify cannot do: `dicjax "
                "generate` tried each on a run of its own, and `dicjax simulate --seed "
                "1` makes another."
            )
        train = self.source.read_one()
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
            checks = dict(zip(certificate.names, certificate.valid.T, strict=True))
            columns = {"member": range(len(g)), **checks}
            if np.isfinite(certificate.robustness).all():
                columns["robustness"] = certificate.robustness
            self.write_table(columns)
        print(certificate)
        return 0
