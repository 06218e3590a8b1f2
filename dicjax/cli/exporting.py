"""The command that exports models to other tools."""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal, TYPE_CHECKING

import numpy as np
from tyro.conf import arg, FlagCreatePairsOff, Positional

from dicjax._core import check_destination, deliver, holding_interrupts, Within
from dicjax.cli.common import FolderCommand, ModelsCommand


if TYPE_CHECKING:
    from dicjax.output import StoredPopulation


Tool = Literal["neuron", "brian2", "jaxley", "neuroml", "nwb", "xlsx", "csv"]
SIMULATORS = ("neuron", "brian2", "jaxley", "neuroml")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(FolderCommand, ModelsCommand):
    """Export the models of RESULTS to other simulators, to NWB or to a spreadsheet.

    neuron, brian2, jaxley and neuroml write a folder with a script that runs the models
    and writes their spike times, the equations, a table of conductances, and a README
    with instructions. nwb writes a file with the simulated spikes as Units. xlsx writes
    a workbook with models, meanings of columns, and spikes. csv writes the table of
    models. Of a population for a recording, the members that match it are exported,
    unless `--member` or `--all` chooses otherwise. Models with a drive receive it in
    neuron, brian2 and jaxley. Exit status 0: done; 2: bad input.

    For example: dicjax export results --to neuron --member 0 3 --out for_neuron
    """

    models: Annotated[Positional[pathlib.Path], arg(metavar="RESULTS")]
    """The folder that `generate` or `simulate` wrote; except for nwb, also a table
    of models."""
    to: Tool
    """Tool to export to."""
    out: Annotated[pathlib.Path, arg(metavar="PLACE")]
    """Folder (for simulators) or file (.nwb, .xlsx, .csv) to write."""
    member: tuple[Annotated[int, Within(0)], ...] = ()
    """Numbers of the members to export, as in the column `member` of models.csv."""
    accepted: bool = False
    """Of the members that `--member` names, export only those that match the
    recording."""
    all: Annotated[bool, FlagCreatePairsOff] = False
    """Export all members, also those that do not match the recording."""
    overwrite: bool = False
    """Replace a file, or a folder of which dicjax wrote all."""

    def run(self) -> int:
        from dicjax.output import exporters, read_population, write_manifest

        population = read_population(self.models)
        rows = self.chosen_rows(population)
        chosen, export = population.take(rows), getattr(exporters, f"export_{self.to}")
        if self.to in SIMULATORS:
            neuron, g = self.read_models()
            options: dict[str, Any] = {"members": chosen.members.tolist()}
            if (drive := chosen.drive) is not None:
                if self.to == "neuroml":
                    raise ValueError(
                        f"The models of {self.models} have a drive that fluctuates, "
                        "which exports to NeuroML do not write: choose neuron, brian2 "
                        "or jaxley."
                    )
                options["drive"] = drive

            def fill(folder: pathlib.Path) -> None:
                export(neuron, g[rows], folder, **options)
                about = {"content": "export", "tool": self.to, "model": neuron.name}
                write_manifest(folder, about)

            self.write(fill)
            place = f"{self.out / 'README.txt'} says how to run them"
        else:
            write = lambda path: export(chosen, path)
            with holding_interrupts():
                deliver(self.out, write, is_folder=False)
            place = str(self.out)
        models = "model" if len(rows) == 1 else "models"
        print(f"{len(rows)} {models} exported: {place}.")
        return 0

    def chosen_rows(self, population: "StoredPopulation") -> np.ndarray:
        """Rows of the members to export: those that match, unless asked otherwise."""
        if self.all and (self.member or self.accepted):
            raise ValueError(
                "`--all` exports all members: leave it out, or else `--member` and "
                "`--accepted`."
            )
        rows = np.arange(population.models.num_rows)
        if self.member:
            rows = population.rows(self.member)
        is_judged = "accepted" in population.models.column_names
        if self.accepted or (is_judged and not self.member and not self.all):
            rows = rows[population.accepted[rows]]
        if len(rows):
            return rows
        if self.member:
            raise ValueError(
                f"No model chosen from {self.models} is accepted: leave out "
                "`--accepted` to export them all the same."
            )
        raise ValueError(
            f"None of the {population.models.num_rows} models in {self.models} matches "
            "the recording, so nothing is exported: pass `--all` to export the nearest "
            "ones all the same."
        )

    def check_out(self) -> None:
        from dicjax.output import check_suffix

        check_destination(self.out)
        out, models = self.out.resolve(), self.models.resolve()
        if out in (models, models.parent) or (out.parent == models and out.exists()):
            raise ValueError(
                f"{self.out} holds the models, which an export would replace: choose "
                "another place."
            )
        if self.to in SIMULATORS:
            super().check_out()
            return
        check_suffix(self.out, f".{self.to}")
        if out.is_dir():
            raise ValueError(f"{self.out} is a folder: name a file in it.")
        if out.exists() and not self.overwrite:
            raise ValueError(
                f"{self.out} exists already: choose another place, or pass "
                "`--overwrite` to replace it."
            )
