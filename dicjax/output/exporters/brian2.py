"""Exports neurons to Brian2: equations, and a script that runs them."""

import pathlib
from collections.abc import Sequence
from typing import Any

from jaxtyping import ArrayLike, Float

from dicjax._core import HasConductances
from dicjax.neurons import Neuron
from dicjax.output.exporters.equations import Equation, equations
from dicjax.output.exporters.expressions import (
    assignments,
    COMPARISONS,
    FUNCTIONS,
    PRODUCT,
    SUM,
    Syntax,
    variable,
)
from dicjax.output.exporters.scripts import context_of, rows_of, write_script


BRIAN2 = Syntax(
    infix=({"or": " or "}, {"and": " and "}, COMPARISONS, SUM, PRODUCT, {"pow": "**"}),
    functions={
        **FUNCTIONS,
        "abs": "abs",
        "not": "not ",
        # Functions that the script defines, since Brian2 lacks them.
        "max": "larger",
        "min": "smaller",
        "select": "choose",
    },
    nameless=(*COMPARISONS, "and", "or", "not"),
)


def export_brian2(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    *,
    members: Sequence[int] | None = None,
) -> None:
    """Writes a model for Brian2, with cells that differ in their conductances.

    The folder gets the table `conductances.csv`, the script `run.py`, which holds the
    equations, and `README.txt`. Cells run side by side with the Runge-Kutta method
    of fourth order. Everything else is as in [`dicjax.export_neuron`][].

    **Arguments:**

    - `neuron`: any model, also with your own curves.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`, or a
        [`dicjax.Population`][], whose members that are not "ok" are left out.
    - `folder`: folder to write to; created if needed. Each file is written whole or
        not at all.
    - `members`: numbers of the cells in tables; from 0 by default.

    **Raises:**

    - `ValueError`: if `g` cannot be conductances of `neuron`, `members` does not number
        them, or one of the model's curves uses an operation that Brian2 lacks.
    """
    rows = rows_of(neuron, g, members)
    write_script(folder, "brian2", rows, _context(neuron))


def _context(neuron: Neuron) -> dict[str, Any]:
    """Values for the templates."""
    model = equations(neuron, "Brian2")
    currents = {
        f"I_{c}": variable(f"g_{c}") * model.currents[name]
        for name, c in model.channels.items()
    }
    parts = {k: x for state in model.states for k, x in state.parts.items()}
    return {
        **context_of(neuron, model),
        "states": [_state(x) for x in model.states],
        "total": " + ".join(currents),
        "subexpressions": assignments({**currents, **parts}, BRIAN2),
    }


def _state(x: Equation) -> dict[str, str]:
    first, *rest = x.parts
    relaxation = f"({first} - {x.name})/({rest[0]}*ms)" if rest else f"{first}/ms"
    return {"name": x.name, "derivative": relaxation}
