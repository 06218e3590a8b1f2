"""The result of a run: figures, tables and downloads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nicegui import ui

from dicjax._core import duration
from dicjax.app import figures
from dicjax.app.canvas import Plot
from dicjax.app.downloads import DOWNLOADS
from dicjax.app.labels import model_name
from dicjax.app.pages.parts import card, cells, Notice, numbers, table, text
from dicjax.app.recordings import seconds
from dicjax.app.runs import Outcome
from dicjax.app.theme import Look
from dicjax.generation import failures_of, main_failures, Round
from dicjax.output import (
    distances_in_words,
    drive_rows,
    feature_rows,
    layouts,
    NONE,
    within_words,
)
from dicjax.populations import OTHER_START, Perturbation
from dicjax.spikes import LABELS


MIN_STEADY = 0.8  # share of model neurons below which there is an alert


class Panel(NamedTuple):
    """A card with a figure, and what the figure is called for screen readers."""

    figure: Callable[..., Plot]
    title: str
    note: str
    label: str
    terms: tuple[str, ...] = ()

    def show(self, outcome: Outcome, look: Look) -> ui.element:
        with card(self.title, self.note, self.terms) as box:
            look.draw(self.label, self.figure, outcome)
        return box


RASTERS = Panel(
    figures.rasters,
    "The recording and the model neurons",
    "Each row starts at its first whole burst or spike. Compare the rhythm: it is "
    "normal that model neurons drift apart.",
    "Spikes of the recording and of model neurons",
)
POTENTIALS = Panel(
    figures.potentials,
    "Simulated potentials",
    "Up to three model neurons, those whose conductances differ most. The recording "
    "cannot check the potential between spikes; it is a prediction.",
    "Simulated potentials of model neurons",
)
INTERVALS = Panel(
    figures.interval_bands,
    "Intervals between spikes",
    "How often each interval occurs. The orange line should lie in the band.",
    "Intervals of the recording and of model neurons",
)
FEATURES = Panel(
    figures.feature_bands,
    "Features",
    "The features in bold decide whether a model neuron matches. Values in the shaded "
    "range count as the same.",
    "Features of model neurons relative to the recording",
    ("valid", "tolerance"),
)
POSTERIOR = Panel(
    figures.posterior,
    "What the recording says about the neuron",
    "Feedback of the membrane on a slow and on an ultraslow timescale, as far as "
    "spikes show it. For about 90 % of neurons, the truth lies within the outer line. "
    "Model neurons may lie to one side of it.",
    "Posterior of the input conductances",
    ("dynamic-input-conductance", "posterior"),
)
CONDUCTANCES = Panel(
    figures.conductances,
    "Different conductances, same activity",
    "Every line is a model neuron. Lines that cross are different solutions to the "
    "same task. The numbers below each channel hold 90 % of them, in mS/cm².",
    "Spread of conductances",
    ("degeneracy",),
)
CORRELATIONS = Panel(
    figures.correlations,
    "Which conductances go together",
    "Orange pairs rise together, blue pairs trade off, pale pairs are independent.",
    "Correlations between conductances",
)
YIELDS = Panel(
    figures.yields,
    "Candidates, and why others failed",
    "The line below each bar is the 95 % interval of the valid share.",
    "Valid candidates per round",
)


def show(outcome: Outcome, look: Look, notes: Sequence[str]) -> None:
    num, num_asked = outcome.num_accepted, outcome.about["num_asked"]
    share = f"{100 * outcome.tolerance:g}\u202f%"
    within = within_words(share, outcome.limits)
    headline = f"{num} of {num_asked} model neurons fire like the recording, "
    with ui.element("div"):
        text(outcome.title, "over")
        title = text(f"{headline}{within}", tag="h1")
        title.props('data-testid="headline"')
        text(_lead(outcome), "lead")
    for alert in (*notes, *_alerts(outcome)):
        text(alert, "alert").props('role="note"')
    numbers(_numbers(outcome), "boxed")
    with ui.element("div").classes("split"):
        RASTERS.show(outcome, look)
        _downloads(outcome)
    if outcome.train is None:
        text(
            "This run was made on the command line. Its folder holds no spikes of the "
            "recording, no potentials and no posterior. They are only in its report.",
            "alert good",
        )
    with ui.element("div").classes("pair"):
        if outcome.traces is not None:
            POTENTIALS.show(outcome, look)
        with INTERVALS.show(outcome, look):
            _distances(outcome)
    _drives(outcome)
    _features(outcome, look)
    with ui.element("div").classes("pair"):
        if outcome.inference is not None:
            POSTERIOR.show(outcome, look)
        if len(outcome.g):
            CONDUCTANCES.show(outcome, look)
    with ui.element("div").classes("pair"):
        if len(outcome.shown) > 2:
            CORRELATIONS.show(outcome, look)
        with YIELDS.show(outcome, look):
            _failures(outcome)
    _robustness(outcome)


def _lead(outcome: Outcome) -> str:
    lead = f"Kind of neuron: {model_name(str(outcome.about['model']))}. "
    source = outcome.about.get("source") or {}
    if outcome.target is not None and source.get("t_stop") is not None:
        pattern = LABELS[int(outcome.target.label)]
        ends = source.get("observed") or [[source["t_start"], source["t_stop"]]]
        length = seconds(sum(stop - start for start, stop in ends))
        num = f"{source['num_spikes']:,} spikes in {length}"
        lead += f"The recording is {pattern}: {num}. "
    if outcome.limits is not None:
        return lead + (
            "Every model neuron has an input that fluctuates. It was simulated, and "
            "again at half the time step, on a run twice as long with other noise."
        )
    return lead + "Every model neuron was simulated, and again at half the time step."


def _alerts(outcome: Outcome) -> list[str]:
    about, num = outcome.about, outcome.num_accepted
    settings = about.get("settings") or {}
    alerts = []
    if settings.get("interrupted"):
        alerts.append("This run was stopped. It shows what was found until then.")
    if num < about["num_asked"] and about["rounds"]:
        found = f"Only {num} of {about['num_asked']} model neurons were found."
        none = "None fires like the recording. The nearest candidates are shown."
        why = main_failures([Round(**x) for x in about["rounds"]])
        alerts.append(f"{found if num else none} {why}".rstrip())
    start = _certificate(outcome).get(OTHER_START)
    if start and start["valid"] < MIN_STEADY:
        alerts.append(
            f"Only {start['valid']:.0%} of model neurons still match from another "
            "start. What the others do depends on how they begin."
        )
    return alerts + [str(x) for x in settings.get("warnings") or ()]


def _numbers(outcome: Outcome) -> list[tuple[str, str]]:
    about = outcome.about
    directions = f"directions, of {len(outcome.channels)}, that conductances vary in"
    known = {
        "model neurons that fire like it": f"{outcome.num_accepted}",
        "candidates simulated": f"{about['num_simulated']:,}",
    }
    if (ratio := about.get("participation_ratio")) is not None:
        known[directions] = f"{ratio:.1f}"
    if start := _certificate(outcome).get(OTHER_START):
        same = "of the model neurons still match from another start"
        known[same] = f"{start['valid']:.0%}"
    known["of computing"] = duration(float(about["seconds"]))
    return [*known.items()]


def _downloads(outcome: Outcome) -> None:
    with card("Take it with you"):
        with ui.element("div").classes("downloads"):
            notice = Notice()
            for name in DOWNLOADS:
                _button(outcome, notice, name)
        ui.link("Open the report", f"/report/{outcome.folder.name}", new_tab=True)
        text(f"All of it is in {outcome.folder}", "note").style("word-break: break-all")


def _button(outcome: Outcome, notice: Notice, name: str) -> None:
    label, note, suffix, make = DOWNLOADS[name]

    async def take() -> None:
        content = await notice.attempt(make, outcome)
        if content is not None:
            ui.download.content(content, f"{outcome.folder.name}{suffix}")

    props = f'outline aria-label="{label}" data-testid="download-{name}"'
    with ui.button(on_click=take).props(props):
        text(label, tag="span")
        text(note, tag="small")


def _features(outcome: Outcome, look: Look) -> None:
    target = outcome.target
    if target is None:
        return
    how = outcome.tolerance, outcome.limits
    rows = feature_rows(target, outcome.features, outcome.shown, *how)
    num = sum(row.decides and row.median != NONE for row in rows)
    is_whole = num == len(layouts.allowed(target, *how))
    layout = "pair uneven" if is_whole else "stack"
    with (
        card(FEATURES.title, FEATURES.note, FEATURES.terms),
        ui.element("div").classes(layout),
    ):
        if is_whole:
            look.draw(FEATURES.label, FEATURES.figure, outcome)
        header = ("feature", "recording", "model neurons' median", "range", "allowed")
        lines = (cells(row[:-1], "decides" * row.decides) for row in rows)
        table(header, lines).props('data-testid="features"')


def _distances(outcome: Outcome) -> None:
    """How far intervals of members with a drive are from the recording's."""
    distances = outcome.distribution_distance
    if distances is not None:
        furthest = float(outcome.about["agreement"]["furthest"])
        text(distances_in_words(distances, furthest), "note")


def _drives(outcome: Outcome) -> None:
    """The input currents of members, where they have any."""
    drive = outcome.population.drive
    if drive is None:
        return
    note = (
        "Each model neuron receives a current of its own, which fluctuates. The "
        "recording does not show it: it is part of the hypothesis."
    )
    with card("The input of model neurons", note, ("drive", "agreement")):
        header = ("input current", "median", "range")
        rows = drive_rows(drive, outcome.shown)
        table(header, map(cells, rows)).classes("narrow")


def _failures(outcome: Outcome) -> None:
    failed = failures_of(outcome.rounds)
    if failed:
        header = ("why candidates failed (first reason that applies)", "how many")
        table(header, (cells((why, f"{sum(num)}")) for why, num in failed))


def _certificate(outcome: Outcome) -> Mapping[Perturbation, dict[str, Any]]:
    """The shares that passed each check, as the manifest holds them."""
    shares = outcome.about.get("certificate") or {}
    return {Perturbation.from_words(name): of for name, of in shares.items()}


def _robustness(outcome: Outcome) -> None:
    """The share that stays valid under each change, if several were tried."""
    certificate = _certificate(outcome)
    if len(certificate) < 2:
        return
    rows = []
    for of, share in certificate.items():
        name = of.with_sign("\u2212") if of.is_lower else of.words
        interval = " to ".join(f"{end:.0%}" for end in share["interval"])
        valid, same = f"{share['valid']:.0%}", f"{share['same_pattern']:.0%}"
        rows.append(cells((name, valid, interval, same)))
    title = "Changes under which model neurons stay valid"
    note = "How many still match the recording when one thing changes."
    with card(title, note, ("certification", "half-step")):
        header = ("what changes", "still match", "95 % interval", "same pattern")
        table(header, rows).classes("narrow")
