"""Exports neurons to Brian2: equations, and a script that runs them."""

import pathlib
from collections.abc import Sequence
from typing import Any

from jaxtyping import ArrayLike, Float

from dicjax._core import HasConductances
from dicjax.neurons import Neuron
from dicjax.output.exporters.equations import Equations
from dicjax.output.exporters.expressions import (
    assignments,
    COMPARISONS,
    DEFINED,
    FUNCTIONS,
    Syntax,
)
from dicjax.output.exporters.scripts import export_scripts, Simulator


SYNTAX = Syntax(
    functions={**FUNCTIONS, **DEFINED, "abs": "abs", "not": "not "},
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
    of fourth order. `neuron`, `g` (mS/cm²), `folder`, `members` and errors are as in
    [`dicjax.export_neuron`][].
    """
    export_scripts(BRIAN2, neuron, g, folder, members)


def _values_of(model: Equations) -> dict[str, Any]:
    currents = model.currents_of("I", "g")
    return {
        "derivatives": {
            x.name: x.written("({inf} - {x})/({tau}*ms)", "{rate}/ms")
            for x in model.states
        },
        "total": " + ".join(currents),
        "subexpressions": assignments({**currents, **model.parts}, SYNTAX),
    }


BRIAN2 = Simulator("brian2", "Brian2", _values_of)
