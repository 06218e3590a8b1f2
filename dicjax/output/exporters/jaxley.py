"""Exports neurons to Jaxley: a channel, and a script that runs cells with it."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import ArrayLike, Float

from dicjax._core import HasConductances
from dicjax.neurons import Neuron
from dicjax.output.exporters.equations import Equations
from dicjax.output.exporters.expressions import (
    assignments,
    Expression,
    FUNCTIONS,
    Syntax,
    variables,
)
from dicjax.output.exporters.scripts import export_scripts, Simulator


SYNTAX = Syntax(
    functions={
        **{name: f"jnp.{function}" for name, function in FUNCTIONS.items()},
        "abs": "jnp.abs",
        "max": "jnp.maximum",
        "min": "jnp.minimum",
        "and": "jnp.logical_and",
        "or": "jnp.logical_or",
        "not": "jnp.logical_not",
        "select": "jnp.where",
    },
)
RELAXED = 'exponential_euler(start["{x}"], dt, {inf}, {tau})'
MOVED = 'start["{x}"] + dt * {rate}'


def export_jaxley(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    *,
    members: Sequence[int] | None = None,
) -> None:
    """Writes a model for Jaxley, with cells that differ in their conductances.

    The folder gets the table `conductances.csv`, the script `run.py`, which holds a
    `Channel` for the whole membrane, and `README.txt`. In a step, states first
    relax exponentially at a fixed potential, with the midpoint rule if one depends on
    another. The potential then takes a Crank-Nicolson step. `neuron`, `g` (mS/cm²),
    `folder`, `members` and errors are as in [`dicjax.export_neuron`][].
    """
    export_scripts(JAXLEY, neuron, g, folder, members)


def _values_of(model: Equations) -> dict[str, Any]:
    currents = model.currents_of("I", "g")
    return {
        "following": {x.name: x.written(RELAXED, MOVED) for x in model.states},
        "is_relaxing": any(x.relaxation for x in model.states),
        "total": " + ".join(currents),
        "rates": _lines(model, model.parts),
        "currents": _lines(model, currents),
        "initial": _lines(model, model.gates),
        "gates": list(model.gates),
    }


def _lines(model: Equations, outputs: Mapping[str, Expression]) -> list[str]:
    """Statements that look up the inputs of `outputs`, and then compute them."""
    used = set().union(*map(variables, outputs.values()))
    states = {x.name for x in model.states}
    found = [
        f'{name} = {"states" if name in states else "params"}["{name}"]'
        for name in sorted(used - {"v"})
    ]
    return found + [f"{name} = {text}" for name, text in assignments(outputs, SYNTAX)]


JAXLEY = Simulator("jaxley", "Jaxley", _values_of)
