"""Exports simulated spikes as the Units of an NWB file."""

import json
import pathlib
import uuid
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from dicjax._core import on_host
from dicjax.generation import Generated
from dicjax.output.files import check_suffix, load, writing
from dicjax.output.saved_population import stored, StoredPopulation, unit_and_meaning


@on_host()
def export_nwb(
    population: StoredPopulation | Generated, path: pathlib.Path | str
) -> None:
    """Writes the simulated spikes of a population as an NWB file.

    Every member is a unit: its number is the unit's `id`, its spike times are in
    seconds, and columns hold its other values (conductances, input conductances,
    features, whether it is accepted), with unit and meaning in their descriptions. The
    file states that it holds simulations. NWB requires a start of the session: the file
    gives the time when the population was written, and states this. Needs
    pynwb: `pip install "dicjax[nwb]"`.

    **Arguments:**

    - `population`: a generated population, or one read by
        [`dicjax.read_population`][].
    - `path`: the `.nwb` file, which is written whole or not at all.

    **Raises:**

    - `ValueError`: if the population has no spike times, `path` has another suffix, or
        pynwb is not installed.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    path = check_suffix(path, ".nwb")
    pynwb = load("pynwb", "nwb")
    population = stored(population)
    if population.spike_times is None:
        raise ValueError(
            f"{population.source} has no spike times: give the folder that dicjax "
            "wrote, with its spikes.parquet."
        )
    about = population.about
    source = (about.get("source") or {}).get("file")
    like = f", made to fire like those in {source}" if source else ""
    file = pynwb.NWBFile(
        session_description=(
            f"{population.models.num_rows} {about.get('model', 'model')} neurons "
            f"simulated by dicjax {about.get('dicjax', '')}{like}. Nothing here was "
            "recorded: the session starts when the population was written to disk."
        ),
        identifier=str(uuid.uuid4()),
        session_start_time=population.written,
        keywords=["simulation", "conductance-based model"],
        notes=json.dumps(about, ensure_ascii=False),
    )
    file.units = load("pynwb.misc", "nwb").Units(
        name="units",
        description="Simulated neurons. Spike times count "
        f"{population.since or 'from the start of the simulation'}.",
    )
    _add_units(file, population)
    with (
        writing(path) as partial,
        h5py.File(partial, "w") as h5,
        pynwb.NWBHDF5IO(file=h5, mode="w") as io,
    ):
        io.write(file)


def _add_units(file: Any, population: StoredPopulation) -> None:
    models, about = population.models.drop_columns("member"), population.about
    for name in models.column_names:
        unit, meaning = unit_and_meaning(models, name)
        described = meaning or name
        file.add_unit_column(name, f"{described}, in {unit}" if unit else described)
    # The interval in which spikes were counted, if the manifest states it.
    ends = [about.get("discard"), about.get("duration")]
    span = {} if None in ends else {"obs_intervals": np.array([ends], float) / 1e3}
    columns = [_values(column) for column in models.columns]
    rows = zip(population.members, population.spike_times or (), *columns, strict=True)
    for member, times, *values in rows:
        own = dict(zip(models.column_names, values, strict=True))
        file.add_unit(id=int(member), spike_times=times / 1e3, **span, **own)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values that NWB can hold; undefined numbers become nan."""
    empty = "" if pa.types.is_string(column.type) else np.nan
    return [empty if x is None else x for x in column.to_pylist()]
