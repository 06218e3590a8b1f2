"""How NEURON states a neuron: a mechanism in NMODL."""

import functools
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dicjax.output.exporters.equations import CALCIUM, Equation, Equations
from dicjax.output.exporters.expressions import (
    assignments,
    constant,
    DEFINED,
    Expression,
    FUNCTIONS,
    INFIX,
    substitute,
    Syntax,
    variable,
)


TEMPORARY = re.compile(r"u\d+")
SYNTAX = Syntax(
    functions={
        **FUNCTIONS,
        **DEFINED,
        "abs": "fabs",
        "not": "!",
        # Functions that the mechanism defines as well.
        "expm1": "exp_minus_one",
        "log1p": "log_one_plus",
    },
    infix=({"or": " || "}, {"and": " && "}, *INFIX[2:-1], {"pow": "^"}),
)


def values_of(model: Equations) -> dict[str, Any]:
    gbar = {
        f"g_{c}": constant(1000.0) * variable(f"gbar_{c}")  # mS/cm², from S/cm²
        for c in model.channels.values()
    }
    parts = {name: substitute(x, gbar) for name, x in model.parts.items()}
    return {
        "states": [_state(x) for x in model.states],
        "start": _start(model, parts),
        "currents": _breakpoint(model),
        "rates": _block(assignments(parts, SYNTAX)),
    }


def _state(x: Equation) -> dict[str, Any]:
    unit = "uM" if x.name == CALCIUM else ""
    units = (unit, "ms") if x.relaxation else (f"{unit or 1}/ms",)
    return {
        "name": x.name,
        "unit": unit,
        "derivative": x.written("({inf} - {x})/{tau}", "{rate}"),
        "parts": dict(zip(x.parts, units, strict=True)),
    }


def _breakpoint(model: Equations) -> list[str]:
    currents = model.currents_of("i", "gbar")  # mA/cm², from mV times S/cm²
    total = functools.reduce(Expression.__add__, map(variable, currents))
    # States without a linear form need Newton's method.
    is_linear = all(x.relaxation for x in model.states)
    solve = f"SOLVE states METHOD {'cnexp' if is_linear else 'derivimplicit'}"
    statements = assignments({**currents, "i": total}, SYNTAX)
    return _block(statements, [solve] if model.states else [])


def _start(model: Equations, parts: Mapping[str, Expression]) -> list[str]:
    """Initial values: calcium first, since gates may depend on it."""
    known = {x: name for name, x in parts.items() if x.args}
    calcium = {x.name: x.initial for x in model.states if x.name == CALCIUM}
    rates = ["rates(v)"] if model.states else []
    first = [*_block(assignments(calcium, SYNTAX)), *rates]
    return _block(assignments(model.gates, SYNTAX, known), first)


def _block(statements: list[tuple[str, str]], first: Sequence[str] = ()) -> list[str]:
    """Lines of a block, with declarations of temporary variables first."""
    local = [name for name, _ in statements if TEMPORARY.fullmatch(name)]
    declared = textwrap.wrap(f"LOCAL {', '.join(local)}", 80) if local else []
    return [*declared, *first, *(f"{name} = {text}" for name, text in statements)]
