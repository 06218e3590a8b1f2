"""The command that explains a population."""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import jax
import numpy as np
import pyarrow as pa
from tyro.conf import arg

from dicjax._core import check_destination, Potential, Seed, Within
from dicjax.cli.common import (
    Drawings,
    FolderCommand,
    ModelsCommand,
    note,
    Progress,
    write_table,
)
from dicjax.dics import Column, column_lines, dynamic_input_conductances, threshold
from dicjax.neurons import Neuron
from dicjax.populations import (
    attribute,
    Attribution,
    Differences,
    feature_slopes,
    Identifiability,
    identifiability,
    reachability,
    ReachabilityMap,
    simulate_by_recipe,
)
from dicjax.spikes import LABELS, PATTERNS, spike_features


STEP = 0.15  # of ln g; wide enough that spikes per burst change
MAX_MEMBERS = 64  # members whose slopes are measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explain(FolderCommand, ModelsCommand):
    """Explain why the models of a table fire as they do.

    Reports how channels contribute to the dynamic input conductances, which
    conductances the spikes constrain and which they leave free and, with --map, which
    input conductances the model can have. Writes a folder with explanation.txt, tables,
    figures, and README.txt. Exit status 0: done; 1: done, but slopes of features could
    not be measured; 2: bad input.

    For example: dicjax explain results --map --out explanation
    """

    V: Annotated[
        Potential | Literal["threshold"] | None, arg(metavar="MV|threshold")
    ] = None
    """Potential of the input conductances, in mV, or each model's own threshold; the
    reference potential if not given."""
    map: bool = False
    """Also map which (g_s, g_u) the model can have, and its firing pattern there."""
    members_per_point: Annotated[int, Within(1, 100_000)] = 8
    """Number of members to try at every point of the map."""
    seed: Seed = 0
    """Seed of the members of the map."""

    def check_out(self) -> None:
        check_destination(self.out)
        if any((self.out / x).exists() for x in ("models.parquet", "models.csv")):
            raise ValueError(
                f"{self.out} holds models, which an explanation would replace: choose "
                f"another folder, such as {self.out / 'explanation'}."
            )
        super().check_out()

    def run(self) -> int:
        from dicjax.output import file_name, plots, write_manifest

        neuron, g = self.read_models()
        g = np.asarray(g, np.float32)
        attribution = attribute(neuron, g, _potential(neuron, g, self.V))
        mapped = None
        with Progress() as progress:
            if self.map:
                mapped = reachability(
                    jax.random.key(self.seed),
                    neuron,
                    num=self.members_per_point,
                    on_progress=progress,
                )
            identified = None
            if self.read_drive() is not None:
                note(
                    "these models fire under a drive that fluctuates, so the slopes of "
                    "their features cannot be measured."
                )
            else:
                identified = _identified(neuron, g, progress)
        about = f"{len(g)} {neuron.name} models of {file_name(str(self.models))}."
        paragraphs = [about, str(attribution)]
        tables = {"attribution": _attribution_columns(attribution)}
        figures = {"attribution": lambda: plots.plot_attribution(attribution)}
        if identified is not None:
            paragraphs.append(str(identified))
            tables["identifiability"] = _direction_columns(identified)
            figures["identifiability"] = lambda: plots.plot_identifiability(identified)
        if mapped is not None:
            dics = np.asarray(dynamic_input_conductances(neuron, g, neuron.V_ref))
            _, g_s, g_u = np.median(dics, axis=0)
            own = mapped.describe(float(g_s), float(g_u))
            paragraphs.append(f"{mapped}\nWhere the median model is: {own}")
            tables["reachability"] = _point_columns(mapped)
            figures["reachability"] = lambda: plots.plot_reachability(mapped, dics)
        text = "\n\n".join(paragraphs)

        def fill(folder: pathlib.Path) -> None:
            for name, columns in tables.items():
                listed = {column: _listed(x) for column, (x, *_) in columns.items()}
                write_table(listed, folder / f"{name}.csv")
            texts = {"README.txt": _readme(tables), "explanation.txt": text}
            for name, content in texts.items():
                (folder / name).write_text(content + "\n", encoding="utf-8")
            write_manifest(folder, self._about(neuron, len(g)))

        drawings: Drawings = {
            f"{name}.png": lambda path, draw=draw: draw().savefig(path, dpi=200)
            for name, draw in figures.items()
        }
        self.write(fill, drawings)
        print(text)
        print(f"Look at the figures in {self.out}.")
        return 0 if identified is not None else 1

    def _about(self, neuron: Neuron, num: int) -> dict[str, Any]:
        from dicjax.output import VERSION

        about: dict[str, Any] = {
            "version": VERSION,
            "content": "explanation",
            "model": neuron.name,
            "num_members": num,
            "V": self.V if self.V is not None else float(neuron.V_ref),
        }
        if self.map:
            about["members_per_point"] = self.members_per_point
            about["seed"] = self.seed
        return about


def _potential(
    neuron: Neuron, g: np.ndarray, V: float | str | None
) -> float | np.ndarray | None:
    if not isinstance(V, str):
        return V
    own = np.asarray(threshold(neuron, g).V)
    if missing := int(np.isnan(own).sum()):
        note(f"{missing} of {len(g)} models have no threshold and are left out.")
    return own


def _identified(
    neuron: Neuron, g: np.ndarray, progress: Progress
) -> Identifiability | None:
    """What spikes constrain in models of the commonest firing pattern.

    Returns None if no model fires or no slope can be measured.
    """
    if neuron.recipe is None:
        note(f"{neuron.name} has no recipe that says how to measure slopes.")
        return None
    some = np.unique(np.linspace(0, len(g) - 1, MAX_MEMBERS).round().astype(int))
    run = simulate_by_recipe(neuron, g[some], on_progress=progress)
    labels = np.asarray(spike_features(run.spike_times).label)
    counts = np.bincount(labels, minlength=len(LABELS))
    counts[[not pattern.compared for pattern in PATTERNS]] = 0
    if not counts.any():
        note(f"none of {len(some)} models fires, so no feature has a slope.")
        return None
    label = int(np.argmax(counts))
    alike = some[labels == label]
    if len(alike) < len(some):
        note(
            f"slopes are measured in {len(alike)} {LABELS[label]} models; "
            f"{len(some) - len(alike)} other models that were tried fire differently."
        )
    compared = PATTERNS[label].compared
    slopes = feature_slopes(
        neuron, g[alike], estimator=Differences(STEP), on_progress=progress
    )[:, : len(compared)]
    if not np.isfinite(slopes).all(axis=2).any():
        note("no feature of these models has a slope that could be measured.")
        return None
    names = [feature.words for feature in compared]
    return identifiability(slopes, neuron.channel_names, names)


Columns = dict[str, Column]


def _attribution_columns(of: Attribution) -> Columns:
    num = len(of.V)
    member = np.repeat(np.arange(num), 3)
    return {
        "member": (member, "", "number of the model in its table"),
        "V": (of.V[member], "mV", "potential; empty where there is no threshold"),
        "dic": (np.tile(["g_f", "g_s", "g_u"], num), "", "fast, slow or ultraslow"),
        "value": (of.dics.ravel(), "1", "the input conductance, sum of all shares"),
        **{
            f"share_{name}": (x, "1", f"what {name} adds to it")
            for name, x in zip(
                of.channel_names, of.shares.reshape(3 * num, -1).T, strict=True
            )
        },
    }


def _direction_columns(of: Identifiability) -> Columns:
    rank = np.arange(len(of.eigenvalues))
    reach = "length at which features leave tolerance, in log conductance; inf: never"
    return {
        "direction": (rank + 1, "", "from stiff to sloppy"),
        "eigenvalue": (of.eigenvalues, "1", "squared tolerances per squared length"),
        "reach": (of.reach, "1", reach),
        "constrained": (rank < of.num_constrained, "", "reach is below a factor of e"),
        **{
            f"loading_{name}": (x, "1", f"how much {name} takes part, in its logarithm")
            for name, x in zip(of.channel_names, of.directions.T, strict=True)
        },
    }


def _point_columns(of: ReachabilityMap) -> Columns:
    g_s, g_u = (x.ravel() for x in np.meshgrid(of.g_s, of.g_u, indexing="ij"))
    label = np.array([*LABELS, None], dtype=object)[of.commonest.ravel()]
    limits = of.limiting.argmax(axis=-1) + 1
    limits = np.where(of.limiting.any(axis=-1), limits, 0).ravel()
    limits = np.array([None, *of.channel_names], dtype=object)[limits]
    count = lambda counts, which: (counts.ravel(), "1", f"number of members {which}")
    return {
        "g_s": (g_s, "1", f"slow input conductance at {of.V_ref:g} mV"),
        "g_u": (g_u, "1", f"ultraslow input conductance at {of.V_ref:g} mV"),
        "asked": (np.full(g_s.size, of.num), "1", "number of members tried"),
        **{
            name.replace(" ", "_"): count(of.status[..., i], f"that came out {name}")
            for i, name in enumerate(of.names)
        },
        "limiting": (limits, "", "channel whose bounds most often prevented it"),
        **{
            name: count(of.labels[..., i], f"that are {name}")
            for i, name in enumerate(LABELS)
        },
        "label": (label, "", "commonest firing pattern; empty where none was built"),
        "mean_isi": (of.mean_isi.ravel(), "ms", "median of members of that pattern"),
        "period": (of.period.ravel(), "ms", "their median burst period"),
        "spikes_per_burst": (of.spikes_per_burst.ravel(), "1", "their median"),
    }


def _listed(values: Any) -> list:
    # Undefined values are empty, since spreadsheets do not know nan.
    return pa.array(values, from_pandas=True).to_pylist()


def _readme(tables: dict[str, Columns]) -> str:
    lines = ["explanation.txt  what the tables and figures here say, in sentences"]
    for name, columns in tables.items():
        lines += ["", f"{name}.csv, {name}.png", "", *column_lines(columns)]
    return "\n".join(lines)
