"""Common parts of scripts for all simulators: the table of cells, templates, files."""

import csv
import importlib.metadata
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import ArrayLike, Float

from dicjax._core import conductances_of, HasConductances
from dicjax.neurons import Neuron
from dicjax.output.exporters.equations import (
    CALCIUM,
    Equations,
    equations,
    identifiers,
    number,
    V,
)
from dicjax.output.exporters.expressions import substitute, walk
from dicjax.output.files import render, write_text
from dicjax.spikes import SPIKE_DOWN, SPIKE_UP


class Simulator(NamedTuple):
    """A program that exported models run in.

    - `name`: of its templates.
    - `language`: in which it states equations, for messages.
    - `values_of`: what its templates alone hold, by name.
    - `others`: templates of files beside the script and the README, by file name.
    """

    name: str
    language: str
    values_of: Callable[[Equations], dict[str, Any]]
    others: Mapping[str, str] = {}


def export_scripts(
    simulator: Simulator,
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    folder: pathlib.Path | str,
    members: Sequence[int] | None,
) -> None:
    """Writes what a simulator needs to run cells, as [`dicjax.export_neuron`][]."""
    g = conductances_of(neuron, g)
    g = g.reshape(-1, g.shape[-1])
    members = range(len(g)) if members is None else members
    if not len(set(members)) == len(members) == len(g):
        raise ValueError(
            f"`members` must be {len(g)} different numbers, one for each cell of `g`, "
            f"got {list(members)}."
        )
    model = equations(neuron, simulator.language)
    values = {**_values_of(neuron, model), **simulator.values_of(model)}
    values["num_cells"] = len(g)
    templates = {
        "run.py": f"{simulator.name}.run.jinja",
        "README.txt": f"{simulator.name}.readme.jinja",
        **simulator.others,
    }
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["member", *(f"g_{name}" for name in neuron.channel_names)])
    rows.writerows(
        [member, *map(str, row)] for member, row in zip(members, g, strict=True)
    )
    texts = {"conductances.csv": table.getvalue()}
    for name, template in templates.items():
        texts[name.format(**values)] = render(f"exporters/{template}", values)
    for name, text in texts.items():
        write_text(pathlib.Path(folder) / name, text)


def _values_of(neuron: Neuron, model: Equations) -> dict[str, Any]:
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
