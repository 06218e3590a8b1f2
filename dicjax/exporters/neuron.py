"""Neurons for NEURON: a mechanism in NMODL, and a script that runs it."""

import csv
import functools
import importlib.metadata
import importlib.resources
import io
import os
import pathlib
import re
import textwrap
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from dicjax._checks import check_conductances
from dicjax.exporters.equations import (
    CALCIUM,
    Equation,
    Equations,
    equations,
    identifiers,
    number,
)
from dicjax.exporters.expressions import (
    assignments,
    COMPARISONS,
    constant,
    Expression,
    FUNCTIONS,
    PRODUCT,
    substitute,
    SUM,
    Syntax,
    variable,
    variables,
    walk,
)
from dicjax.neuron import Neuron


THRESHOLD = 10.0  # mV, which a spike crosses
TEMPORARY = re.compile(r"u\d+")
NMODL = Syntax(
    infix=({"or": " || "}, {"and": " && "}, COMPARISONS, SUM, PRODUCT, {"pow": "^"}),
    functions={
        **FUNCTIONS,
        "abs": "fabs",
        "not": "!",
        # Functions of the mechanism, since NMODL has none.
        "max": "larger",
        "min": "smaller",
        "select": "choose",
        "expm1": "exp_minus_one",
        "log1p": "log_one_plus",
    },
)


def export_neuron(
    neuron: Neuron, g: Float[ArrayLike, "*cells channels"], folder: pathlib.Path | str
) -> None:
    """Writes a model for NEURON, with cells that differ in their conductances.

    The folder gets a mechanism in `mod`, the table `conductances.csv`, the script
    `run.py` (`nrnivmodl mod && python run.py`) and `README.txt`. The equations are
    those of `neuron.vector_field`, whatever the channels are made of. Gates and calcium
    read `x' = (inf - x)/tau`, for fixed and adaptive steps alike. The current that the
    model's recipe names is applied unless the script is told otherwise.

    **Arguments:**

    - `neuron`: any model, of curves of your own too.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`.
    - `folder`: where to write; made if needed. Each file is written whole or not at
        all.

    **Raises:**

    - `ValueError`: if `g` cannot be conductances of `neuron`, or one of its curves uses
        an operation that NMODL lacks.
    """
    g = np.asarray(g)
    check_conductances(neuron, g)
    g = g.reshape(-1, g.shape[-1])
    context = {**_context(neuron), "num_cells": len(g)}
    files = {
        f"mod/{context['suffix']}.mod": _render("neuron.mod.jinja", context),
        "run.py": _render("neuron.run.jinja", context),
        "README.txt": _render("neuron.readme.jinja", context),
        "conductances.csv": _table(neuron, g),
    }
    for name, text in files.items():
        _write(pathlib.Path(folder) / name, text)


def _context(neuron: Neuron) -> dict[str, Any]:
    """What the templates tell."""
    model = equations(neuron, "NMODL")
    (title,) = identifiers((neuron.name,))
    gbar = {
        f"g_{c}": constant(1000.0) * variable(f"gbar_{c}")  # mS/cm², from S/cm²
        for c in model.channels.values()
    }
    parts = {x.name: _parts(x, gbar) for x in model.states}
    everything = {k: v for part in parts.values() for k, v in part.items()}
    starts = (x.initial for x in model.states)
    used = [*model.currents.values(), *everything.values(), *starts]
    return {
        "model": neuron.name,
        "version": importlib.metadata.version("dicjax"),
        "title": title,
        "suffix": f"dicjax_{title}",  # unlike every name that NEURON has
        "capacitance": _decimal(neuron.capacitance),
        "threshold": THRESHOLD,
        "current": float(neuron.recipe.current) if neuron.recipe else 0.0,
        "initial_V": _decimal(neuron.initial_V),
        "initial_Ca": _decimal(neuron.initial_Ca),
        "calcium_is_fixed": CALCIUM not in parts
        and any(CALCIUM in variables(x) for x in used),
        "channels": list(model.channels.items()),
        "states": [_state(x, parts[x.name]) for x in model.states],
        "start": _start(model, everything),
        "currents": _breakpoint(model),
        "rates": _block(assignments(everything, NMODL)),
        "operations": {x.op for x in walk(used)},
    }


def _decimal(x: Float[Array, ""]) -> float | str:
    return number(x).value


def _parts(x: Equation, gbar: Mapping[str, Expression]) -> dict[str, Expression]:
    """What the derivative of a state is made of, by the name it gets in NMODL."""
    if x.relaxation is None:
        return {_part(x, "rate"): substitute(x.rate, gbar)}
    inf, tau = (substitute(part, gbar) for part in x.relaxation)
    return {_part(x, "inf"): inf, _part(x, "tau"): tau}


def _part(x: Equation, what: str) -> str:
    return f"{x.name}_{what}" if x.name == CALCIUM else what + x.name.removeprefix("x")


def _state(x: Equation, parts: Mapping[str, Expression]) -> dict[str, Any]:
    is_calcium = x.name == CALCIUM
    unit = "uM" if is_calcium else ""
    first, *rest = parts
    meaning = "calcium, in uM" if is_calcium else f"a state of {x.owner or 'the cell'}"
    return {
        "name": x.name,
        "unit": unit,
        "meaning": meaning,
        "derivative": f"({first} - {x.name})/{rest[0]}" if rest else first,
        "parts": {
            name: "ms" if name in rest else unit if rest else f"{unit or 1}/ms"
            for name in parts
        },
    }


def _currents(model: Equations) -> dict[str, Expression]:
    """Currents in mA/cm², which is mV times S/cm²."""
    currents = {
        f"i_{c}": variable(f"gbar_{c}") * model.currents[name]
        for name, c in model.channels.items()
    }
    total = functools.reduce(Expression.__add__, map(variable, currents))
    return {**currents, "i": total}


def _breakpoint(model: Equations) -> list[str]:
    # Without a linear form, states take Newton's method.
    is_linear = all(x.relaxation for x in model.states)
    solve = f"SOLVE states METHOD {'cnexp' if is_linear else 'derivimplicit'}"
    statements = assignments(_currents(model), NMODL)
    return _block(statements, [solve] if model.states else [])


def _start(model: Equations, parts: Mapping[str, Expression]) -> list[str]:
    """Calcium first, since the gates may follow from it."""
    known = {x: name for name, x in parts.items() if x.args}
    calcium = {x.name: x.initial for x in model.states if x.name == CALCIUM}
    gates = {x.name: x.initial for x in model.states if x.name != CALCIUM}
    rates = ["rates(v)"] if model.states else []
    first = [*_block(assignments(calcium, NMODL)), *rates]
    return _block(assignments(gates, NMODL, known), first)


def _block(
    statements: Sequence[tuple[str, str]], first: Sequence[str] = ()
) -> list[str]:
    """Lines of a block, which declares its temporary variables before all else."""
    local = [name for name, _ in statements if TEMPORARY.fullmatch(name)]
    declared = textwrap.wrap(f"LOCAL {', '.join(local)}", 80) if local else []
    return [*declared, *first, *(f"{name} = {text}" for name, text in statements)]


# Files


def _render(template: str, context: Mapping[str, Any]) -> str:
    source = importlib.resources.files("dicjax.exporters") / template
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = source.read_text(encoding="utf-8")
    return environment.from_string(text).render(**context)


def _table(neuron: Neuron, g: Float[np.ndarray, "cells channels"]) -> str:
    """Conductances as a table, with the columns that populations have too."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([f"g_{name}" for name in neuron.channel_names])
    table.writerows([[str(x) for x in row] for row in g])
    return file.getvalue()


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
