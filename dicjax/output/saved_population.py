"""Populations read back, with all that their folders say."""

import dataclasses
import datetime
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Shaped

from dicjax._core import on_host
from dicjax.generation import Generated
from dicjax.output.driven import drive_in
from dicjax.output.folders import read_manifest
from dicjax.output.population_files import models_file, read_table, write_population
from dicjax.simulation import Drive


@dataclasses.dataclass(frozen=True)
class StoredPopulation:
    """A population as its folder holds it.

    - `source`: name of the folder or the table, for messages.
    - `models`: a row per member, as in `models.parquet`; fields have their unit and
        meaning as metadata. Where the table numbers no members, rows are numbered.
    - `spike_times`: of each member, in ms; `None` for a table without them.
    - `since`: what spike times count from.
    - `about`: the manifest; empty for a table without one.
    - `written`: when the table was written.
    """

    source: str
    models: pa.Table
    spike_times: tuple[Float[np.ndarray, " _"], ...] | None
    since: str
    about: dict[str, Any]
    written: datetime.datetime

    @property
    def members(self) -> Int[np.ndarray, " cells"]:
        """The numbers that members go by."""
        return self.models["member"].to_numpy().astype(np.int64)

    @property
    def drive(self) -> Drive | None:
        """The input that members were given beside their conductances, if any.

        Its `stimulus(key, population.members)` is what [`dicjax.simulate`][] takes. A
        `ValueError` refuses numbers that no drive can have.
        """
        return drive_in(self.models, self.source)

    @property
    def accepted(self) -> Bool[np.ndarray, " cells"]:
        """Which members fire like the recording; a `ValueError` if no file says."""
        if "accepted" not in self.models.column_names:
            raise ValueError(
                f"{self.source} does not say which of its models are accepted: choose "
                "them by their numbers."
            )
        return self.models["accepted"].to_numpy().astype(bool)

    def rows(self, members: Sequence[int]) -> Int[np.ndarray, " some"]:
        """Rows of the members with these numbers, or a `ValueError`."""
        known = {int(member): row for row, member in enumerate(self.members)}
        if unknown := {*members} - {*known}:
            raise ValueError(
                f"{self.source} has no member {min(unknown)}: its {len(known)} members "
                f"are numbered {min(known)} to {max(known)}."
            )
        if len(set(members)) < len(members):
            raise ValueError("A member is named twice: name each once.")
        return np.array([known[member] for member in members], np.int64)

    def take(
        self, rows: Sequence[int] | Shaped[np.ndarray, " some"]
    ) -> "StoredPopulation":
        """Only some of the members, by their rows or by a mask such as `accepted`."""
        chosen = np.arange(self.models.num_rows)[np.asarray(rows)]
        times = self.spike_times
        return dataclasses.replace(
            self,
            models=self.models.take(chosen),
            spike_times=times and tuple(times[row] for row in chosen),
        )


@on_host()
def read_population(path: pathlib.Path | str) -> StoredPopulation:
    """Reads a population back.

    `path` is the folder that `dicjax generate` or `simulate` wrote, or a table of
    models.

    **Raises:**

    - `ValueError`: if there is no such table or it cannot be read.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    path = pathlib.Path(path)
    table = models_file(path)
    spikes, times, since = table.parent / "spikes.parquet", None, ""
    if path.is_dir() and spikes.exists():
        found = read_table(spikes)
        _, since = unit_and_meaning(found, "spike_times")
        times = tuple(np.asarray(x, float) for x in found["spike_times"].to_pylist())
    models = read_table(table)
    if "member" not in models.column_names:
        models = models.add_column(0, "member", pa.array(np.arange(models.num_rows)))
    return StoredPopulation(
        source=str(path),
        models=models,
        spike_times=times,
        since=since,
        about=read_manifest(table.parent),
        written=datetime.datetime.fromtimestamp(table.stat().st_mtime, datetime.UTC),
    )


def unit_and_meaning(table: pa.Table, column: str) -> tuple[str, str]:
    """Of a column, each empty where the table does not say."""
    known = table.field(column).metadata or {}
    return known.get(b"unit", b"").decode(), known.get(b"meaning", b"").decode()


def stored(population: StoredPopulation | Generated) -> StoredPopulation:
    """A generated population as it would be read back; one read back as it is."""
    if isinstance(population, StoredPopulation):
        return population
    with tempfile.TemporaryDirectory() as folder:
        write_population(population, pathlib.Path(folder))
        return dataclasses.replace(read_population(folder), source="the population")
