"""The result of a run: figures, tables and downloads."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from nicegui import ui

from dicjax._core import duration
from dicjax.app import figures
from dicjax.app.downloads import Download, DOWNLOADS
from dicjax.app.labels import model_name
from dicjax.app.pages.parts import card, cells, Notice, numbers, table, text
from dicjax.app.recordings import seconds
from dicjax.app.runs import Outcome
from dicjax.app.theme import Look
from dicjax.generation import failure_words, grouped, Round
from dicjax.output import compared, feature_rows, most_different
from dicjax.populations import OTHER_START, Perturbation
from dicjax.spikes import LABELS, pattern_of


def show(outcome: Outcome, look: Look, notes: Sequence[str]) -> None:
    """Draws the result of a run."""
    about, num = outcome.about, int(outcome.accepted.sum())
    within = f"{100 * float(about['tolerance']):g}\u202f%"
    with ui.element("div"):
        text(outcome.title, "over")
        text(
            f"{num} of {about['num_asked']} model neurons fire like the recording, "
            f"within {within}",
            tag="h1",
        ).props('data-testid="headline"')
        text(_lead(outcome), "lead")
    for alert in (*notes, *_alerts(outcome)):
        text(alert, "alert").props('role="note"')
    numbers(_numbers(outcome), "boxed")
    with ui.element("div").classes("split"):
        with card("The recording and the members", _RASTER_NOTE):
            _rasters(outcome, look)
        _downloads(outcome)
    if outcome.train is None:
        text(
            "This run was made on the command line. Its folder holds no spikes of the "
            "recording, no potentials and no posterior: these are in its report alone.",
            "alert good",
        )
    with ui.element("div").classes("pair"):
        if outcome.train is not None and outcome.traces is not None:
            with card("Simulated potentials", _TRACES_NOTE):
                train, traces = outcome.train, outcome.traces
                look.draw(
                    lambda colors: figures.potentials(train, traces, colors),
                    "Simulated potentials of three members",
                )
        with card("Intervals between spikes", _INTERVALS_NOTE):
            times = [outcome.spike_times[i] for i in outcome.shown]
            look.draw(
                lambda colors: figures.interval_bands(outcome.train, times, colors),
                "Intervals of the recording and of members",
            )
    _features(outcome, look)
    with ui.element("div").classes("pair"):
        _conductances(outcome, look)
    with ui.element("div").classes("pair"):
        _candidates(outcome, look)
    _robustness(outcome)


MIN_STEADY = 0.8  # share of members below which there is an alert
_NONE_VALID_ALERT = (
    "Nothing fires like the recording: shown are the nearest of what missed it."
)
_RASTER_NOTE = (
    "Each row starts at its first whole burst or spike, so look at the rhythm; it is "
    "normal for members to drift apart."
)
_TRACES_NOTE = (
    "The members whose conductances differ most. What is between spikes is the models' "
    "prediction, which the recording cannot check."
)
_INTERVALS_NOTE = (
    "How often each interval occurs. The orange line should lie in the band."
)
_POSTERIOR_NOTE = (
    "Feedback of the membrane on a slow and on an ultraslow timescale, as far as "
    "spikes show it. The outer line holds the truth for about 90 % of neurons. Models "
    "may lie to one side of it."
)
_SPREAD_NOTE = (
    "Every line is a model neuron. Lines that cross are different solutions to the "
    "same task. Below each channel, where 90 % of members lie, in mS/cm²."
)
_YIELD_NOTE = "The line below each bar is the 95 % interval of the valid share."
_ROBUSTNESS_NOTE = (
    "How many model neurons still match the recording when one thing changes."
)
_FEATURES_NOTE = "Those in bold decide; shaded is what counts as the same."
_CORRELATIONS_NOTE = (
    "Orange pairs rise together, blue ones trade off, pale ones are free."
)


def _lead(outcome: Outcome) -> str:
    about = outcome.about
    lead = f"Model: {model_name(str(about['model']))}. "
    source = about.get("source") or {}
    if outcome.target is not None and source.get("t_stop") is not None:
        pattern = LABELS[int(outcome.target.label)]
        length = seconds(source["t_stop"] - source["t_start"])
        lead += (
            f"The recording is {pattern}: {source['num_spikes']:,} spikes in {length}. "
        )
    return lead + "Every member was simulated, and again at half the time step."


def _alerts(outcome: Outcome) -> list[str]:
    about = outcome.about
    settings = about.get("settings") or {}
    alerts = []
    num, num_asked = int(outcome.accepted.sum()), int(about["num_asked"])
    if settings.get("interrupted"):
        alerts.append("It was stopped: this is what had been found until then.")
    if num < num_asked and about["rounds"]:
        failures = about["rounds"][-1]["failures"].items()
        main = sorted((x for x in failures if x[1]), key=lambda x: -x[1])[:3]
        why = ", ".join(f"{failure_words(why)} ({count})" for why, count in main)
        alerts.append(
            (
                f"Only {num} of {num_asked} members were found."
                if num
                else _NONE_VALID_ALERT
            )
            + f" Most candidates failed because: {why}."
        )
    start = _certificate(outcome).get(OTHER_START)
    if start and start["valid"] < MIN_STEADY:
        alerts.append(
            f"Only {start['valid']:.0%} of members fire so from another start too: "
            "what the others do depends on how they begin."
        )
    return alerts + [str(x) for x in settings.get("warnings") or ()]


def _numbers(outcome: Outcome) -> list[tuple[str, str]]:
    about = outcome.about
    rows = [
        ("members that fire like it", f"{int(outcome.accepted.sum())}"),
        ("candidates simulated", f"{about['num_simulated']:,}"),
    ]
    if about.get("participation_ratio") is not None:
        rows.append(
            (
                f"directions, of {len(outcome.channels)}, that conductances vary in",
                f"{about['participation_ratio']:.1f}",
            )
        )
    if start := _certificate(outcome).get(OTHER_START):
        share = start["valid"]
        rows.append(("of them do so from another start too", f"{share:.0%}"))
    rows.append(("of computing", duration(float(about["seconds"]))))
    return rows


def _rasters(outcome: Outcome, look: Look) -> None:
    times = outcome.spike_times
    members = outcome.population.members
    look.draw(
        lambda colors: figures.rasters(
            outcome.train, times, outcome.accepted, members, colors
        ),
        "Spikes of the recording and of members",
    )


def _downloads(outcome: Outcome) -> None:
    with card("Take it with you"):
        with ui.element("div").classes("downloads"):
            notice = Notice()
            for name, kind in DOWNLOADS.items():
                _button(outcome, notice, name, kind)
        ui.link("Open the report", f"/report/{outcome.folder.name}", new_tab=True).mark(
            "report"
        )
        text(f"All of it is in {outcome.folder}", "note").style("word-break: break-all")


def _button(outcome: Outcome, notice: Notice, name: str, kind: Download) -> None:
    async def take() -> None:
        content = await notice.attempt(kind.make, outcome)
        if content is not None:
            ui.download.content(content, f"{outcome.folder.name}{kind.suffix}")

    button = ui.button(on_click=take).props(f'outline aria-label="{kind.label}"')
    button.props(f'data-testid="download-{name}"')
    with button:
        label, note = html.escape(kind.label), html.escape(kind.note)
        ui.html(f"<span>{label}</span>", sanitize=False)
        ui.html(f"<small>{note}</small>", sanitize=False)


def _features(outcome: Outcome, look: Look) -> None:
    target = outcome.target
    if target is None:
        return
    tolerance = float(outcome.about["tolerance"])
    features, accepted = outcome.features, outcome.accepted
    members = outcome.population.members
    pairs = compared(target, features, tolerance)
    bands = [band for *_, band in pairs]
    is_whole = all(np.isfinite(ratio).any() for _, ratio, _ in pairs)
    names = [feature.words for feature in pattern_of(target).compared]
    band_of = dict(zip(names, bands, strict=True))
    rows = []
    for row in feature_rows(target, features, outcome.shown):
        unit = f" ({row['unit']})" if row["unit"] else ""
        band = ""
        if row["name"] in band_of:
            low, high = band_of[row["name"]]
            value = row["value"]
            band = f"{value * low:.3g} to {value * high:.3g}"
        values = (row["recorded"], row["median"], row["range"], band)
        rows.append(cells((row["name"] + unit, *values), "decides" if band else ""))
    layout = "pair uneven" if is_whole else "stack"
    with (
        card("Features", _FEATURES_NOTE, ("valid", "tolerance")),
        ui.element("div").classes(layout),
    ):
        if is_whole:
            look.draw(
                lambda colors: figures.feature_bands(
                    target, features, tolerance, accepted, members, colors
                ),
                "Features of members relative to the recording",
            )
        header = ("feature", "recording", "members' median", "range", "allowed")
        table(header, rows).props('data-testid="features"')


def _conductances(outcome: Outcome, look: Look) -> None:
    shown, members = outcome.shown, outcome.population.members
    g = outcome.g[shown]
    if outcome.inference is not None:
        terms = ("dynamic-input-conductance", "posterior")
        with card("What the recording says about the neuron", _POSTERIOR_NOTE, terms):
            inference = outcome.inference
            look.draw(
                lambda colors: figures.posterior(
                    inference, outcome.dics[shown], colors
                ),
                "Posterior of the input conductances",
            )
    if not len(g):
        return
    rows = most_different(g, 3)
    names = [f"member {members[shown[i]]}" for i in rows]
    with card("Different conductances, same activity", _SPREAD_NOTE, ("degeneracy",)):
        look.draw(
            lambda colors: figures.conductances(
                outcome.channels, g, rows, names, colors
            ),
            "Spread of conductances",
        )


def _candidates(outcome: Outcome, look: Look) -> None:
    g = outcome.g[outcome.shown]
    rounds = grouped([Round(**x) for x in outcome.about["rounds"]])
    if len(g) > 2:
        with card("Which conductances go together", _CORRELATIONS_NOTE):
            look.draw(
                lambda colors: figures.correlations(outcome.channels, g, colors),
                "Correlations between conductances",
            )
    with card("Candidates, and why others failed", _YIELD_NOTE):
        look.draw(
            lambda colors: figures.yields(rounds, colors), "Valid candidates per round"
        )
        reasons = list(dict.fromkeys(why for x in rounds for why in x.failures))
        counts = {why: [x.failures.get(why, 0) for x in rounds] for why in reasons}
        failed = sorted(
            (why for why in reasons if any(counts[why])),
            key=lambda why: -int(np.sum(counts[why])),
        )
        if failed:
            rows = [
                cells((failure_words(why), f"{sum(counts[why])}")) for why in failed
            ]
            table(
                ("why candidates failed (first reason that applies)", "how many"), rows
            )


def _certificate(outcome: Outcome) -> dict[Perturbation, dict[str, Any]]:
    """The shares of members that passed each check, as the manifest holds them."""
    shares = outcome.about.get("certificate") or {}
    return {Perturbation.from_words(name): of for name, of in shares.items()}


def _robustness(outcome: Outcome) -> None:
    """The share of members that stay valid under each change, if several were tried."""
    certificate = _certificate(outcome)
    if len(certificate) < 2:
        return
    rows = [
        cells(
            (
                of.with_sign("\u2212") if of.is_lower else of.words,
                f"{share['valid']:.0%}",
                f"{share['interval'][0]:.0%} to {share['interval'][1]:.0%}",
                f"{share['same_pattern']:.0%}",
            )
        )
        for of, share in certificate.items()
    ]
    with card(
        "Under what they stay valid", _ROBUSTNESS_NOTE, ("certification", "half-step")
    ):
        header = ("what changes", "fire like it still", "95 % interval", "same pattern")
        table(header, rows).classes("narrow")
