"""Exports neurons to other simulators: equations, a table of cells, a script."""

import csv
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Float

from dicjax._core import conductances_of, HasConductances, on_host, versions
from dicjax.neurons import Neuron
from dicjax.output.driven import drive_columns
from dicjax.output.exporters import brian2, jaxley, neuroml, neuron as nmodl
from dicjax.output.exporters.equations import (
    CALCIUM,
    Equations,
    equations,
    identifiers,
    number,
    V,
)
from dicjax.output.exporters.expressions import substitute, walk
from dicjax.output.files import render, write_text
from dicjax.simulation import Drive


@on_host()
def export_neuron(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    *,
    members: Sequence[int] | None = None,
    drive: Drive | None = None,
) -> None:
    """Writes a model for NEURON, with cells that differ in their conductances.

    The folder gets a mechanism in `mod`, the table `conductances.csv`, the script
    `run.py` (`nrnivmodl mod && python run.py`) and `README.txt`. The equations are
    traced from `neuron.vector_field`, for any channels. Gates and calcium have the form
    `x' = (inf - x)/tau`, for both fixed and adaptive steps. By default the script
    applies the current of the model's recipe.

    **Arguments:**

    - `neuron`: any model, also with your own curves.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`, or a
        [`dicjax.Population`][], whose members that are not "ok" are left out.
    - `folder`: folder to write to; created if needed. Each file is written whole or
        not at all.
    - `members`: numbers of the cells in tables; from 0 by default.
    - `drive`: the input of the cells, with a value for each, such as `drive` of a
        population. The script makes its fluctuations from a seed, with random numbers
        of its own; its mean takes the place of the recipe's current.

    **Raises:**

    - `ValueError`: if `g` cannot be conductances of `neuron`, `members` does not number
        them, `drive` has not a value for each, the model uses an operation of JAX or an
        infinite constant that exports do not write, or its current is not a sum of
        conductances times currents.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    mechanism = {"mod": "mod/{suffix}.mod"}
    _export("neuron", nmodl.values_of, neuron, g, folder, members, drive, **mechanism)


@on_host()
def export_brian2(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    *,
    members: Sequence[int] | None = None,
    drive: Drive | None = None,
) -> None:
    """Writes a model for Brian2, with cells that differ in their conductances.

    The folder gets the table `conductances.csv`, the script `run.py`, which holds the
    equations, and `README.txt`. Cells run side by side with the Runge-Kutta method
    of fourth order. `neuron`, `g` (mS/cm²), `folder`, `members`, `drive` and errors are
    as in [`dicjax.export_neuron`][].

    **Raises:**

    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    _export("brian2", brian2.values_of, neuron, g, folder, members, drive)


@on_host()
def export_jaxley(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    *,
    members: Sequence[int] | None = None,
    drive: Drive | None = None,
) -> None:
    """Writes a model for Jaxley, with cells that differ in their conductances.

    The folder gets the table `conductances.csv`, the script `run.py`, which holds a
    `Channel` for the whole membrane, and `README.txt`. In a step, states first
    relax exponentially at a fixed potential, with the midpoint rule if one depends on
    another. The potential then takes a Crank-Nicolson step. `neuron`, `g` (mS/cm²),
    `folder`, `members`, `drive` and errors are as in [`dicjax.export_neuron`][].

    **Raises:**

    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    _export("jaxley", jaxley.values_of, neuron, g, folder, members, drive)


@on_host()
def export_neuroml(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    *,
    members: Sequence[int] | None = None,
) -> None:
    """Writes a model in NeuroML 2, with cells that differ in their conductances.

    The folder gets the equations as a component type of LEMS that extends
    `baseCellMembPot` of NeuroML (`*.cell.nml`), the table `conductances.csv`, the
    script `run.py`, which writes the simulation of these cells in LEMS and runs it with
    jNeuroML, and `README.txt`. Cells have no input that fluctuates. `neuron`, `g`
    (mS/cm²), `folder`, `members` and errors are as in [`dicjax.export_neuron`][].

    **Raises:**

    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    files = {"cell": "{suffix}.cell.nml"}
    _export("neuroml", neuroml.values_of, neuron, g, folder, members, None, **files)


def _export(
    simulator: str,
    values_of: Callable[[Equations], dict[str, Any]],
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    members: Sequence[int] | None,
    drive: Drive | None,
    **others: str,
) -> None:
    """Writes the table and what the templates of a simulator make with their values.

    `others` are files beside the script and the README, by the kind of their template.
    """
    g = conductances_of(neuron, g)
    g = g.reshape(-1, g.shape[-1])
    members = range(len(g)) if members is None else members
    if not len(set(members)) == len(members) == len(g):
        raise ValueError(
            f"`members` must be {len(g)} different numbers, one for each cell of `g`, "
            f"got {list(members)}."
        )
    if drive is not None and {np.size(x) for x in jax.tree.leaves(drive)} - {1, len(g)}:
        raise ValueError(
            f"`drive` must have a value for each of {len(g)} cells of `g`, got shapes "
            f"{[np.shape(x) for x in jax.tree.leaves(drive)]}."
        )
    driven = drive_columns(drive)
    columns = {name: np.broadcast_to(x, len(g)) for name, (x, *_) in driven.items()}
    model = equations(neuron)
    values = {**_values_of(neuron, model), **values_of(model), "num_cells": len(g)}
    values["drive"] = {name: (unit, text) for name, (_, unit, text) in driven.items()}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    conductances = (f"g_{name}" for name in neuron.channel_names)
    rows.writerow(["member", *conductances, *columns])
    numbered = zip(members, g, *columns.values(), strict=True)
    rows.writerows([member, *map(str, [*row, *own])] for member, row, *own in numbered)
    texts = {"conductances.csv": table.getvalue()}
    for kind, name in {"run": "run.py", "readme": "README.txt", **others}.items():
        template = f"exporters/{simulator}.{kind}.jinja"
        texts[name.format(**values)] = render(template, values)
    for name, text in texts.items():
        write_text(pathlib.Path(folder) / name, text)


def _values_of(neuron: Neuron, model: Equations) -> dict[str, Any]:
    (title,) = identifiers((neuron.name,))
    at = {V: number(neuron.initial_V), CALCIUM: number(neuron.initial_Ca)}
    return {
        "model": neuron.name,
        "version": versions()["dicjax"],
        "title": title,
        "suffix": f"dicjax_{title}",  # no simulator has such names
        "capacitance": number(neuron.capacitance).value,
        "threshold": number(neuron.V_spike).value,
        "rearm": number(neuron.V_rearm).value,
        "current": float(neuron.recipe.current) if neuron.recipe else 0.0,
        "initial_V": at[V].value,
        "initial_Ca": at[CALCIUM].value,
        "start": {x.name: substitute(x.initial, at).value for x in model.states},
        "calcium_is_fixed": model.calcium_is_fixed,
        "channels": list(model.channels.items()),
        "meanings": {x.name: x.meaning for x in model.states},
        "operations": {x.op for x in walk(model.expressions)},
    }
