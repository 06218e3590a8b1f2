"""Exports neurons to Jaxley: a channel, and a script that runs cells with it."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import ArrayLike, Float

from dicjax._core import HasConductances
from dicjax.neurons import Neuron
from dicjax.output.exporters.equations import CALCIUM, Equation, Equations, equations
from dicjax.output.exporters.expressions import (
    assignments,
    COMPARISONS,
    Expression,
    FUNCTIONS,
    PRODUCT,
    SUM,
    Syntax,
    variable,
    variables,
)
from dicjax.output.exporters.scripts import context_of, rows_of, write_script


JAXLEY = Syntax(
    infix=(COMPARISONS, SUM, PRODUCT, {"pow": "**"}),
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
    another. The potential then takes a Crank-Nicolson step. Everything else is as in
    [`dicjax.export_neuron`][].

    **Arguments:**

    - `neuron`: any model, also with your own curves.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`, or a
        [`dicjax.Population`][], whose members that are not "ok" are left out.
    - `folder`: folder to write to; created if needed. Each file is written whole or
        not at all.
    - `members`: numbers of the cells in tables; from 0 by default.

    **Raises:**

    - `ValueError`: if `g` cannot be conductances of `neuron`, `members` does not number
        them, or one of the model's curves uses an operation that has no text.
    """
    rows = rows_of(neuron, g, members)
    write_script(folder, "jaxley", rows, _context(neuron))


def _context(neuron: Neuron) -> dict[str, Any]:
    """Values for the templates."""
    model = equations(neuron, "Jaxley")
    currents = {
        f"I_{c}": variable(f"g_{c}") * model.currents[name]
        for name, c in model.channels.items()
    }
    parts = {k: x for state in model.states for k, x in state.parts.items()}
    gates = {x.name: x.initial for x in model.states if x.name != CALCIUM}
    return {
        **context_of(neuron, model),
        "states": [{"name": x.name, "next": _next(x)} for x in model.states],
        "is_relaxing": any(x.relaxation for x in model.states),
        "total": " + ".join(currents),
        "rates": _lines(model, parts),
        "currents": _lines(model, currents),
        "initial": _lines(model, gates),
        "gates": list(gates),
    }


def _next(x: Equation) -> str:
    """The next value of a state."""
    first, *rest = x.parts
    if rest:
        return f'exponential_euler(start["{x.name}"], dt, {first}, {rest[0]})'
    return f'start["{x.name}"] + dt * {first}'


def _lines(model: Equations, outputs: Mapping[str, Expression]) -> list[str]:
    """Statements that look up the inputs of `outputs`, and then compute them."""
    used = set().union(*map(variables, outputs.values()))
    states = {x.name for x in model.states}
    found = [
        f'{name} = {"states" if name in states else "params"}["{name}"]'
        for name in sorted(used - {"v"})
    ]
    return found + [f"{name} = {text}" for name, text in assignments(outputs, JAXLEY)]
