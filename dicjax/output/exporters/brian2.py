"""How Brian2 states a neuron: equations."""

from typing import Any

from dicjax.output.exporters.equations import Equations
from dicjax.output.exporters.expressions import (
    assignments,
    COMPARISONS,
    DEFINED,
    FUNCTIONS,
    Syntax,
)


SYNTAX = Syntax(
    functions={**FUNCTIONS, **DEFINED, "abs": "abs", "not": "not "},
    nameless=(*COMPARISONS, "and", "or", "not"),
)


def values_of(model: Equations) -> dict[str, Any]:
    currents = model.currents_of("I", "g")
    return {
        "derivatives": {
            x.name: x.written("({inf} - {x})/({tau}*ms)", "{rate}/ms")
            for x in model.states
        },
        "total": " + ".join(currents),
        "subexpressions": assignments({**currents, **model.parts}, SYNTAX),
    }
