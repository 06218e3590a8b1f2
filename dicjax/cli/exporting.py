"""The command that takes models to other tools."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from dicjax.cli.common import File, models_of


Tool = Literal["neuron", "brian2", "jaxley", "nwb", "xlsx", "csv"]
SIMULATORS = ("neuron", "brian2", "jaxley")


@dataclasses.dataclass(frozen=True)
class Export:
    """Take the models of RESULTS to other simulators, to NWB or to a spreadsheet.

    neuron, brian2 and jaxley make a folder: a script that runs the models there and
    writes their spike times, the equations, a table of conductances, and a README that
    says how. nwb makes a file with the simulated spikes as Units, xlsx a workbook with
    models, what their columns mean, and spikes, csv the table of models. All members
    are taken unless told otherwise. Exit status 0: done; 2: bad input.

    For example: dicjax export results --to neuron --member 0 3 --out for_neuron
    """

    models: Annotated[File, tyro.conf.arg(metavar="RESULTS")]
    """The folder that `generate` or `simulate` wrote; for all but nwb, a table of
    models will do."""
    to: Tool
    """Where to take them."""
    out: pathlib.Path
    """Folder (neuron, brian2, jaxley) or file (.nwb, .xlsx, .csv) to write."""
    member: tuple[int, ...] = ()
    """Numbers of the members to take, as in the column `member` of models.csv."""
    accepted: bool = False
    """Take only members that fire like the recording."""
    model: str | None = None
    """A model's name, a Python file that declares a neuron, or a checkpoint's folder,
    where the table does not say; for neuron, brian2 and jaxley."""
    overwrite: bool = False
    """Replace an export that is already there."""

    def run(self) -> int:
        """Writes the export; the exit status."""
        import numpy as np

        from dicjax.output import exporters, read_population

        self._check_out()
        population = read_population(self.models)
        rows = np.arange(population.models.num_rows)
        if self.member:
            rows = population.rows(self.member)
        if self.accepted:
            rows = rows[population.accepted[rows]]
        if not len(rows):
            raise ValueError(
                f"None of the models chosen from {self.models} is accepted."
            )
        chosen, export = population.take(rows), getattr(exporters, f"export_{self.to}")
        if self.to in SIMULATORS:
            neuron, g = models_of(self.models, self.model)
            export(neuron, g[rows], self.out, members=chosen.members.tolist())
            where = f"{self.out / 'README.txt'} says how to run them"
        else:
            export(chosen, self.out)
            where = str(self.out)
        print(f"{len(rows)} models exported: {where}.")
        return 0

    def _check_out(self) -> None:
        out, models = self.out.resolve(), self.models.resolve()
        if out in (models, models.parent) or (out.parent == models and out.exists()):
            raise ValueError(
                f"{self.out} is where the models are, which an export would replace: "
                "choose another place."
            )
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        if not self.overwrite:
            raise ValueError(
                f"{self.out} is there already: choose another place, or pass "
                "`--overwrite` to replace it."
            )
        is_folder = self.to in SIMULATORS
        if out.is_dir() != is_folder or (is_folder and not (out / "run.py").exists()):
            raise ValueError(
                f"{self.out} is no earlier export to {self.to}: choose another place."
            )
