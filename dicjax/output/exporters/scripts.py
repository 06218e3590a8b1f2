"""Common parts of scripts for all simulators: the table of cells, templates, files."""

import csv
import importlib.metadata
import importlib.resources
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jaxtyping import ArrayLike, Float

from dicjax._core import conductances_of, HasConductances, replacing
from dicjax.neurons import Neuron
from dicjax.output.exporters.equations import CALCIUM, Equations, identifiers, number, V
from dicjax.output.exporters.expressions import substitute, walk
from dicjax.spikes import SPIKE_DOWN, SPIKE_UP


Rows = list[list[str]]


def rows_of(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    members: Sequence[int] | None,
) -> Rows:
    """The number and the conductances of every cell, or a `ValueError`."""
    g = conductances_of(neuron, g)
    g = g.reshape(-1, g.shape[-1])
    members = range(len(g)) if members is None else members
    if not len(set(members)) == len(members) == len(g):
        raise ValueError(
            f"`members` must be {len(g)} different numbers, one for each cell of `g`, "
            f"got {list(members)}."
        )
    return [
        [str(member), *map(str, row)] for member, row in zip(members, g, strict=True)
    ]


def context_of(neuron: Neuron, model: Equations) -> dict[str, Any]:
    """Values for the templates of all simulators."""
    (title,) = identifiers((neuron.name,))
    return {
        "model": neuron.name,
        "version": importlib.metadata.version("dicjax"),
        "title": title,
        "suffix": f"dicjax_{title}",  # no simulator has such names
        "capacitance": number(neuron.capacitance).value,
        "threshold": SPIKE_UP,
        "rearm": SPIKE_DOWN,
        "current": float(neuron.recipe.current) if neuron.recipe else 0.0,
        "initial_V": number(neuron.initial_V).value,
        "initial_Ca": number(neuron.initial_Ca).value,
        "start": _start(neuron, model),
        "calcium_is_fixed": model.calcium_is_fixed,
        "channels": list(model.channels.items()),
        "meanings": {x.name: x.meaning for x in model.states},
        "operations": {x.op for x in walk(model.expressions)},
    }


def _start(neuron: Neuron, model: Equations) -> dict[str, float | str]:
    """Initial values of states, by name."""
    at = {V: number(neuron.initial_V), CALCIUM: number(neuron.initial_Ca)}
    return {x.name: substitute(x.initial, at).value for x in model.states}


def write_script(
    folder: pathlib.Path | str,
    simulator: str,
    rows: Rows,
    context: Mapping[str, Any],
    others: Mapping[str, str] | None = None,
) -> None:
    """Writes the files that a simulator needs, each whole or not at all.

    **Arguments:**

    - `folder`: folder to write to; created if needed.
    - `simulator`: name of its templates.
    - `rows`: the cells.
    - `context`: values for the templates.
    - `others`: templates of further files, by file name. The script, its README and
        the table are always written.
    """
    templates = {
        **(others or {}),
        "run.py": f"{simulator}.run.jinja",
        "README.txt": f"{simulator}.readme.jinja",
    }
    values = {**context, "num_cells": len(rows)}
    texts = {name: _render(template, values) for name, template in templates.items()}
    texts["conductances.csv"] = _table(rows, [c for c, _ in context["channels"]])
    for name, text in texts.items():
        path = pathlib.Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")


def _render(template: str, context: Mapping[str, Any]) -> str:
    folder = importlib.resources.files("dicjax.output.exporters")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (folder / name).read_text(encoding="utf-8")
        ),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**context)


def _table(rows: Rows, channels: Sequence[str]) -> str:
    """Conductances as a table with the same columns as populations."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["member", *(f"g_{name}" for name in channels)])
    table.writerows(rows)
    return file.getvalue()
