"""A population as one page: what was recorded, what was generated, and how.

The page holds its figures and asks for nothing from elsewhere, so that it can be kept
and sent like a document.
"""

import base64
import contextlib
import functools
import io
import json
import pathlib
import platform
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from markupsafe import Markup
from matplotlib.figure import Figure

from dicjax._core import listed, short, versions
from dicjax.generation import failures_of, Generated, grouped
from dicjax.output import plots
from dicjax.output.driven import (
    distances_in_words,
    drive_rows,
    limits_of,
    within_words,
)
from dicjax.output.files import render, write_text
from dicjax.output.glossary import glossary
from dicjax.output.plots import style
from dicjax.output.population_files import file_name
from dicjax.populations import OTHER_START, rows_of_drive, START_MORE_CA, wilson
from dicjax.simulation import applied, simulate
from dicjax.spikes import (
    BURSTING,
    FEATURES,
    Features,
    LABELS,
    Target,
    V_REARM,
    V_SPIKE,
)


PIXELS = 120  # per inch of a figure, where the page is wide enough
DPI = 200  # of figures that are smaller as pixels
MAX_SIZE = 300_000  # characters of a figure, beyond which pixels may be smaller
UNNEEDED = r'<!--.*?-->|<metadata>.*?</metadata>| xmlns[:\w]*="[^"]*"'
NUM_TRACES = 3
TERMS = (
    "model-neuron",
    "valid",
    "tolerance",
    "half-step",
    "dynamic-input-conductance",
    "posterior",
    "participation-ratio",
    "certification",
)
"""What the page explains, by the anchors of the glossary."""
DRIVEN_TERMS = ("drive", "agreement")  # as well, where members have a drive
NONE = "\u2013"  # where there is no number


class Traces(NamedTuple):
    """Potentials (mV) of some members, at times in ms, and the levels of spikes."""

    members: Int[np.ndarray, " _"]
    ts: Float[np.ndarray, " times"]
    V: Float[np.ndarray, "cells times"]
    V_spike: float = V_SPIKE
    V_rearm: float = V_REARM

    @property
    def levels(self) -> dict[str, float]:
        return {"V_spike": float(self.V_spike), "V_rearm": float(self.V_rearm)}


def write_report(
    result: Generated, path: pathlib.Path, traces: Traces | None = None
) -> None:
    """Writes the page about a population to `path`, whole or not at all.

    It shows `traces`, or else simulates up to three members again. Where a figure
    cannot be drawn, the page says so in its place, and a warning names it.
    """
    write_text(path, render("report.html.jinja", _values(result, traces)))


def _values(result: Generated, traces: Traces | None) -> dict[str, Any]:
    members, target = shown(result.accepted), result.target
    limits, share = limits_of(result.agreement), short(100 * result.tolerance)
    first, rounds = result.rounds[0], grouped(result.rounds)
    terms = TERMS if result.agreement is None else (*TERMS, *DRIVEN_TERMS)
    low, high = wilson(first.num_valid, first.num)
    return {
        "result": result,
        "name": file_name(result.train.source) or result.train.name or "the recording",
        "pattern": LABELS[int(target.label)],
        "seconds": short(result.train.duration / 1000),
        "percent": share,
        "any_accepted": result.num_accepted > 0,
        "within": within_words(f"{share} %", result.agreement),
        "driven": _driven(result, members),
        "alerts": _alerts(result),
        "first_yield": f"{low:.0%} to {high:.0%}".replace("%", "\u202f%"),
        "features": feature_rows(
            target, result.features, members, result.tolerance, limits
        ),
        "tolerances": _tolerances(result),
        "failures": failures_of(rounds),
        "rounds": [of.name for of in rounds],
        "start": _start(result),
        "perturbations": _perturbations(result),
        "num_channels": len(result.neuron.channels),
        "figures": _figures(result, members, traces),
        "variables": style.VARIABLES,
        "facts": _facts(result),
        "terms": {x: glossary()[x] for x in terms if x in glossary()},
    }


def shown(accepted: Bool[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
    """The accepted members, or all where there is none."""
    return np.flatnonzero(accepted if accepted.any() else ~accepted)


def _alerts(result: Generated) -> list[str]:
    alerts = []
    if result.num_accepted < result.num_asked:
        alerts.append(
            f"Only {result.num_accepted} of the {result.num_asked} members asked for "
            f"were found. {result.main_failures()}".rstrip()
        )
    alerts += map(str, result.settings.get("warnings", ()))
    posterior = result.posterior
    far = posterior.distance is not None and posterior.distance[0]
    if far and far > posterior.max_distance:
        alerts.append(
            "The recording lies outside what the encoder was trained on: the nearest "
            f"simulated neurons miss some feature by a factor of {float(far):.2g}. Do "
            "not rely on the inferred input conductances."
        )
    return alerts


class FeatureRow(NamedTuple):
    """A feature of a recording and of members, in words, and whether it decides."""

    name: str
    recorded: str
    median: str
    range: str
    allowed: str
    decides: bool


def feature_rows(
    target: Features,
    features: Features,
    members: Int[np.ndarray, " _"],
    tolerance: float,
    limits: Mapping[str, float] | None = None,
) -> list[FeatureRow]:
    """The features of a recording and of members, as a table.

    `limits` are those of an agreement, where members have a drive.
    """
    bands = {
        x.feature.name: x.values(float(x.feature.read(target)))
        for x in plots.layouts.allowed(target, tolerance, limits)
    }
    rows = []
    for feature in FEATURES.values():
        recorded = float(feature.read(target))
        values = np.asarray(feature.read(features), np.float64)[members]
        values = values[np.isfinite(values)]
        if not np.isfinite(recorded):
            continue
        median, *ends = NONE, NONE
        if len(values):
            median, *ends = map(short, np.quantile(values, (0.5, 0, 1)))
        allowed = map(short, bands.get(feature.name, ()))
        name = f"{feature.words} ({feature.unit})" if feature.unit else feature.words
        spans = short(recorded), median, " to ".join(ends), " to ".join(allowed)
        rows.append(FeatureRow(name, *spans, feature.name in bands))
    return rows


def _driven(result: Generated, members: Int[np.ndarray, " _"]) -> dict | None:
    """How members with a drive are judged, and what drives them."""
    agreement = result.agreement
    if agreement is None:
        return None
    patterns = [LABELS[i] for i in np.flatnonzero(agreement.patterns)]
    distances = result.distribution_distance[members]
    return {
        "features": listed([FEATURES[name].words for name in agreement.names]),
        "patterns": " or ".join(patterns),
        "furthest": f"{agreement.furthest:.2g}",
        "distance": f"{np.median(distances):.2g}" if len(members) else NONE,
        "distances": distances_in_words(distances, agreement.furthest),
        "span": short((result.duration - result.discard) / 1000),
        "rows": drive_rows(result.drive, members),
    }


def _tolerances(result: Generated) -> str:
    target = Target(result.target, result.tolerance)
    compared = target.pattern.compared
    share = f"{short(100 * result.tolerance)}\u202f%"
    rule = f"{listed([x.words for x in compared if not x.slack])} within {share}"
    for feature in compared:
        if feature.slack:
            value = float(feature.read(result.target))
            off = max(feature.slack, result.tolerance * value)
            rule += f" and {feature.words} within {short(off, 2)}"
    return rule


def _start(result: Generated) -> dict[str, str] | None:
    """How many accepted members stay valid from another start, if that was tried."""
    start = result.certificate and result.certificate.along("start")
    if start is None:
        return None
    ((_, valid, low, high, _),) = start.shares()
    return {
        "share": _percent(valid),
        "interval": f"{100 * low:.0f} to {_percent(high)}",
        "V": f"{OTHER_START.change:g}",
        "times_Ca": f"{START_MORE_CA:g}",
    }


def _perturbations(result: Generated) -> list[dict[str, str]]:
    """How many members stay valid under each change, a row for both directions."""
    certificate, pairs = result.certificate, {}
    if certificate is None:
        return []
    for of, share in zip(certificate.perturbations, certificate.shares(), strict=True):
        if of.axis not in ("step", "start"):
            pairs.setdefault((of.axis, of.channel), []).append((of, share))
    rows = []
    for pair in pairs.values():
        of, (name, *_) = pair[0]
        valid = {of.is_lower: _percent(valid) for of, (_, valid, *_) in pair}
        row = {"name": of.with_sign("± ") if len(pair) > 1 else name}
        row |= {"lower": valid.get(True, NONE), "higher": valid.get(False, NONE)}
        row["same"] = _percent(float(np.mean([share[-1] for _, share in pair])))
        rows.append(row)
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u202f%"


def _figures(result: Generated, members, traces: Traces | None) -> dict[str, Markup]:
    neuron, train, accepted = result.neuron, result.train, result.accepted
    g, times = result.g[members], result.spike_times
    dics, V_ref = result.dics[members], float(neuron.V_ref)
    shown_traces = functools.cache(lambda: traces or potentials(result))

    def draw_traces() -> Figure:
        of = shown_traces()
        names = [f"member {i}" for i in of.members]
        return plots.plot_traces(train, of.ts, of.V, names, **of.levels)

    def draw_conductances() -> Figure:
        with contextlib.suppress(Exception):
            highlight = np.searchsorted(members, shown_traces().members).tolist()
            return plots.plot_conductances(neuron, g, highlight)
        return plots.plot_conductances(neuron, g)

    compared = result.target, result.features, result.tolerance, accepted
    limits = limits_of(result.agreement)
    figures: dict[str, Callable[[], Figure]] = {
        "raster": lambda: plots.plot_raster(train, times, accepted),
        "isis": lambda: plots.plot_isis(
            train, times[members], one_by_one=result.drive is not None
        ),
        "features": lambda: plots.plot_features(*compared, limits),
        "posterior": lambda: plots.plot_posterior(result.posterior, dics, V_ref),
        "yield": lambda: plots.plot_yield(grouped(result.rounds)),
    }
    if len(g):
        figures |= {"traces": draw_traces, "conductances": draw_conductances}
    if (drive := rows_of_drive(result.drive, members)) and len(g):
        figures["drive"] = lambda: plots.plot_drive(drive)
    if len(g) > 2:
        figures["correlations"] = lambda: plots.plot_correlations(neuron, g)
    return {name: _drawn(name, draw) for name, draw in figures.items()}


def _drawn(name: str, draw: Callable[[], Figure]) -> Markup:
    """A figure as part of a page, or a sentence in its place if it cannot be drawn."""
    try:
        with style.own_style():
            return _inline(name, draw())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        warnings.warn(
            f"The report lacks its figure of {name}, which could not be drawn "
            f"({reason}).",
            stacklevel=2,
        )
        said = "This figure could not be drawn ({}). The tables are complete."
        return Markup(said).format(reason)


def potentials(result: Generated) -> Traces:
    """Potentials over some cycles of up to three members, simulated again: of those
    shown, whose conductances differ most."""
    members, target = shown(result.accepted), result.target
    if not len(members):
        return Traces(members, np.empty(0), np.empty((0, 0)))
    members = members[plots.most_different(result.g[members], NUM_TRACES)]
    is_bursting = int(target.label) == BURSTING
    cycle = float(target.period if is_bursting else 3 * target.mean_isi)
    run = simulate(
        result.neuron,
        result.g[members],
        float(np.ceil(result.discard + 5.5 * cycle)),
        discard=result.discard,
        dt=_time_step(result),
        stimulus=_input_of(result, members),
        save_every=0.1 if cycle < 2000 else 0.5,
    )
    assert run.ts is not None and run.V is not None
    levels = {name: float(x) for name, x in result.neuron.spike_levels.items()}
    return Traces(members, np.asarray(run.ts), np.asarray(run.V), **levels)


def _input_of(result: Generated, members: Int[np.ndarray, " _"]):
    """The current of the recipe or, where they have one, the drive of members."""
    if result.drive is None:
        return applied(result.neuron.required_recipe.current)
    seed = result.settings.get("seed")
    key = jax.random.key(0 if seed is None else int(seed))
    drive = rows_of_drive(result.drive, members)
    assert drive is not None
    return drive.stimulus(key, members)


def _time_step(result: Generated) -> float:
    recipe = result.neuron.recipe
    return float(result.settings.get("dt_ms", recipe.dt if recipe else 0.05))


def _facts(result: Generated) -> dict[str, dict[str, str]]:
    neuron, train, normaliser = result.neuron, result.train, result.neuron.normaliser
    divisor = f"g_{normaliser}" if isinstance(normaliser, str) else str(normaliser)
    settings = dict(result.settings)
    settings.pop("warnings", None)
    made_with = versions("matplotlib") | settings.pop("versions", {})
    return {
        "Model": {
            "name": neuron.name,
            "channels": ", ".join(neuron.channel_names),
            "reference potential V_ref": f"{float(neuron.V_ref):g} mV",
            "input conductances are divided by": divisor,
            "time step": f"{_time_step(result):g} ms",
            "simulated": f"{short(result.duration, 6)} ms, the first "
            f"{short(result.discard, 6)} ms of which are left out",
        },
        "Recording": {
            "file": file_name(train.source) or "not given",
            "unit": train.name or "not given",
            "window": f"{short(train.t_start, 6)} to {short(train.t_stop, 6)} ms",
            "spikes": f"{train.num_spikes}",
        },
        "Settings": {
            "members asked for": str(result.num_asked),
            "tolerance": f"{result.tolerance:g}",
            **{name.replace("_", " "): _in_words(x) for name, x in settings.items()},
        },
        "Versions": {"python": platform.python_version(), **made_with},
    }


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_in_words(x)}" for name, x in value.items())
    if isinstance(value, float):
        return short(value, 4) if np.isfinite(value) else "not known"
    return json.dumps(value, default=str)


def _inline(name: str, figure: Figure) -> Markup:
    """The figure as part of a page: as lines, or as pixels where lines are too many."""
    svg = _svg(name, figure)
    if len(svg) <= MAX_SIZE:
        return Markup(svg)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    png = base64.b64encode(buffer.getvalue()).decode()
    if len(svg) <= len(png):
        return Markup(svg)
    width = PIXELS * figure.get_size_inches()[0]
    return Markup(
        f'<img class="pixels" width="{width:.0f}" alt="" '
        f'src="data:image/png;base64,{png}">'
    )


def _svg(name: str, figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, dpi=DPI)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(UNNEEDED, "", svg, flags=re.DOTALL)
    # Identifiers are the page's, so no two figures may share one.
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    rounded = lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group())
    svg = re.sub(r' d="[^"]*"', rounded, svg)
    for variable, (color, _) in style.VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    width, height = PIXELS * figure.get_size_inches()
    size = f'<svg role="img" width="{width:.0f}" height="{height:.0f}"'
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*"', size, svg, count=1)
    return re.sub(r"\s+", " ", svg).replace("> <", "><")
