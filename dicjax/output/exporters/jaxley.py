"""How Jaxley states a neuron: a channel."""

from collections.abc import Mapping
from typing import Any

from dicjax.output.exporters.equations import Equations
from dicjax.output.exporters.expressions import (
    assignments,
    Expression,
    FUNCTIONS,
    Syntax,
)


NAMES = {**FUNCTIONS, "abs": "abs", "max": "maximum", "min": "minimum"}
NAMES |= {**{x: f"logical_{x}" for x in ("and", "or", "not")}, "select": "where"}
SYNTAX = Syntax(functions={op: f"jnp.{name}" for op, name in NAMES.items()})
RELAXED = 'exponential_euler(start["{x}"], dt, {inf}, {tau})'
MOVED = 'start["{x}"] + dt * {rate}'


def values_of(model: Equations) -> dict[str, Any]:
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
    used = set().union(*(x.variables for x in outputs.values()))
    states = {x.name for x in model.states}
    found = [
        f'{name} = {"states" if name in states else "params"}["{name}"]'
        for name in sorted(used - {"v"})
    ]
    return found + [f"{name} = {text}" for name, text in assignments(outputs, SYNTAX)]
