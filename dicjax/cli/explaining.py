"""The command that explains a population."""

import dataclasses
import json
import pathlib
from typing import Any, Literal, TYPE_CHECKING

from dicjax.cli.common import File, models_of, Progress, say, write_table


if TYPE_CHECKING:
    import numpy as np

    from dicjax.neurons import Neuron
    from dicjax.populations import Attribution, Identifiability, ReachabilityMap


STEP = 0.15  # of ln g; wide enough that spikes per burst change
MAX_MEMBERS = 64  # members whose slopes are measured


@dataclasses.dataclass(frozen=True)
class Explain:
    """Explain why the models of a table fire as they do.

    Reports how channels contribute to the dynamic input conductances, which
    conductances the spikes constrain and which they leave free and, with --map, which
    input conductances the model can have. Writes a folder with explanation.txt, tables,
    figures, and README.txt. Exit status 0: done; 1: done, but slopes of features could
    not be measured; 2: bad input.
    """

    models: File
    """models.parquet, models.csv, or their folder."""
    out: pathlib.Path
    """Folder to write; it must not exist yet."""
    model: str | None = None
    """A model's name, a Python file that declares a neuron, or a checkpoint's folder;
    needed if the table does not name its model."""
    V: float | Literal["threshold"] | None = None
    """Potential of the input conductances, in mV, or each member's own threshold; the
    model's reference potential if not given."""
    map: bool = False
    """Also map which (g_s, g_u) the model can have, and its firing pattern there."""
    members_per_point: int = 8
    """Number of members to try at every point of the map."""
    seed: int = 0
    """Seed of the members of the map."""
    overwrite: bool = False
    """Replace an explanation that the folder already holds."""

    def run(self) -> int:
        """Explains and writes; returns the exit status."""
        import jax
        import numpy as np

        from dicjax.output import write_folder
        from dicjax.populations import attribute, reachability

        _check_out(self.out, self.overwrite)
        neuron, g = models_of(self.models, self.model)
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
            identified = identify(neuron, g, progress)
        text = _sentences(self.models, neuron, g, attribution, identified, mapped)
        parts = _Parts(attribution, identified, mapped)
        about = _about(neuron, len(g), self)

        def write(folder: pathlib.Path) -> None:
            parts.write(folder, neuron, g)
            (folder / "explanation.txt").write_text(text + "\n", encoding="utf-8")
            (folder / "manifest.json").write_text(about, encoding="utf-8")

        write_folder(self.out, self.overwrite, write)
        print(text)
        print(f"Look at the figures in {self.out}.")
        return 0 if identified is not None else 1


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The parts of an explanation, and the files that hold them."""

    attribution: "Attribution"
    identified: "Identifiability | None"
    mapped: "ReachabilityMap | None"

    def write(self, folder: pathlib.Path, neuron: "Neuron", g: "np.ndarray") -> None:
        from dicjax.output import plots

        tables = {"attribution": _attribution_columns(self.attribution)}
        figures = {"attribution": plots.plot_attribution(self.attribution)}
        if self.identified is not None:
            tables["identifiability"] = _direction_columns(self.identified)
            figures["identifiability"] = plots.plot_identifiability(self.identified)
        if self.mapped is not None:
            tables["reachability"] = _point_columns(self.mapped)
            figures["reachability"] = plots.plot_reachability(
                self.mapped, _dics(neuron, g)
            )
        for name, columns in tables.items():
            write_table(
                {column: _listed(x) for column, (x, *_) in columns.items()},
                folder / f"{name}.csv",
            )
            figures[name].savefig(folder / f"{name}.png", dpi=200)
        (folder / "README.txt").write_text(_readme(tables), encoding="utf-8")


def _check_out(out: pathlib.Path, overwrite: bool) -> None:
    from dicjax.output import check_folder

    if any((out / name).exists() for name in ("models.parquet", "models.csv")):
        raise ValueError(
            f"{out} holds models, which an explanation would replace: choose another "
            f"folder, such as {out / 'explanation'}."
        )
    check_folder(out, overwrite)


def _potential(neuron, g, V):
    if V != "threshold":
        return V
    import numpy as np

    from dicjax.dics import threshold

    own = threshold(neuron, g)
    missing = int(np.isnan(np.asarray(own.V)).sum())
    if missing:
        say(f"Note: {missing} of {len(g)} models have no threshold and are left out.")
    return np.asarray(own.V)


def _dics(neuron, g) -> "np.ndarray":
    """(g_f, g_s, g_u) at the reference potential."""
    import numpy as np

    from dicjax.dics import dynamic_input_conductances

    return np.asarray(dynamic_input_conductances(neuron, g, neuron.V_ref))


def identify(neuron, g, progress) -> "Identifiability | None":
    """What spikes constrain in members of the commonest firing pattern.

    Returns None if no member fires or no slope can be measured.
    """
    import numpy as np

    from dicjax.populations import Differences, feature_slopes, identifiability
    from dicjax.spikes import LABELS, PATTERNS

    if neuron.recipe is None:
        say(f"Note: {neuron.name} has no recipe that says how to measure slopes.")
        return None
    some = np.unique(np.linspace(0, len(g) - 1, MAX_MEMBERS).round().astype(int))
    labels = _labels(neuron, g[some], progress)
    counts = np.bincount(labels, minlength=len(LABELS))
    counts[[not pattern.compared for pattern in PATTERNS]] = 0
    if not counts.any():
        say(f"Note: none of {len(some)} models fires, so that no feature has a slope.")
        return None
    label = int(np.argmax(counts))
    alike = some[labels == label]
    if len(alike) < len(some):
        say(
            f"Note: slopes are those of {len(alike)} {LABELS[label]} models; "
            f"{len(some) - len(alike)} others that were tried fire differently."
        )
    compared = PATTERNS[label].compared
    slopes = feature_slopes(
        neuron,
        g[alike],
        estimator=Differences(STEP),
        on_progress=progress,
    )[:, : len(compared)]
    if not np.isfinite(slopes).all(axis=2).any():
        say("Note: no feature of these models has a slope that could be measured.")
        return None
    names = [feature.words for feature in compared]
    return identifiability(slopes, neuron.channel_names, names)


def _labels(neuron, g, progress) -> "np.ndarray":
    """The firing pattern of each model, as an index into `LABELS`."""
    import numpy as np

    from dicjax.populations import simulate_by_recipe
    from dicjax.spikes import spike_features

    run = simulate_by_recipe(neuron, g, on_progress=progress)
    return np.asarray(spike_features(run.spike_times).label)


def _sentences(models, neuron, g, attribution, identified, mapped) -> str:
    import numpy as np

    from dicjax.output import file_name

    paragraphs = [
        f"{len(g)} {neuron.name} models of {file_name(str(models))}.",
        str(attribution),
    ]
    if identified is not None:
        paragraphs.append(str(identified))
    if mapped is not None:
        _, g_s, g_u = np.median(_dics(neuron, g), axis=0)
        own = mapped.describe(float(g_s), float(g_u))
        paragraphs.append(f"{mapped}\nWhere the median model is: {own}")
    return "\n\n".join(paragraphs)


def _about(neuron: "Neuron", num: int, command: Explain) -> str:
    from dicjax.output import FORMAT, VERSION

    about: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "content": "explanation",
        "model": neuron.name,
        "num_members": num,
        "V": command.V if command.V is not None else float(neuron.V_ref),
    }
    if command.map:
        about |= {"members_per_point": command.members_per_point, "seed": command.seed}
    return json.dumps(about, indent=2) + "\n"


Columns = dict[str, tuple[Any, str, str]]  # values, unit, meaning


def _attribution_columns(of: "Attribution") -> Columns:
    import numpy as np

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
                of.channel_names,
                of.shares.reshape(3 * num, -1).T,
                strict=True,
            )
        },
    }


def _direction_columns(of: "Identifiability") -> Columns:
    import numpy as np

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


def _point_columns(of: "ReachabilityMap") -> Columns:
    import numpy as np

    from dicjax.spikes import LABELS

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
        "limiting": (limits, "", "channel whose bounds stood most often in the way"),
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
    import pyarrow as pa

    # Undefined values are empty, since spreadsheets do not know nan.
    return pa.array(values, from_pandas=True).to_pylist()


def _readme(tables: dict[str, Columns]) -> str:
    lines = ["explanation.txt  what the tables and figures here say, in sentences"]
    for name, columns in tables.items():
        width = max(len(column) for column in columns)
        lines += ["", f"{name}.csv, {name}.png", ""]
        lines += [
            f"{column:<{width}}  {f'({unit}) ' if unit not in ('', '1') else ''}{text}"
            for column, (_, unit, text) in columns.items()
        ]
    return "\n".join(lines) + "\n"
