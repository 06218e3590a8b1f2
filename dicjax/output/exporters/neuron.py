"""Exports neurons to NEURON: a mechanism in NMODL, and a script that runs it."""

import functools
import pathlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import ArrayLike, Float

from dicjax._core import HasConductances
from dicjax.neurons import Neuron
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
from dicjax.output.exporters.scripts import export_scripts, Simulator


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


def export_neuron(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    *,
    members: Sequence[int] | None = None,
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

    **Raises:**

    - `ValueError`: if `g` cannot be conductances of `neuron`, `members` does not number
        them, or one of the model's curves uses an operation that NMODL lacks.
    """
    export_scripts(NEURON, neuron, g, folder, members)


def _values_of(model: Equations) -> dict[str, Any]:
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


def _block(
    statements: Sequence[tuple[str, str]], first: Sequence[str] = ()
) -> list[str]:
    """Lines of a block, with declarations of temporary variables first."""
    local = [name for name, _ in statements if TEMPORARY.fullmatch(name)]
    declared = textwrap.wrap(f"LOCAL {', '.join(local)}", 80) if local else []
    return [*declared, *first, *(f"{name} = {text}" for name, text in statements)]


NEURON = Simulator(
    "neuron", "NMODL", _values_of, {"mod/{suffix}.mod": "neuron.mod.jinja"}
)
