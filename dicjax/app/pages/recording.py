"""The page of a recording: its unit, its spikes, and settings of a run."""

import asyncio
import math

from nicegui import events, run, ui

from dicjax._core import Advice, CLEANING, in_words
from dicjax.app import figures
from dicjax.app.pages.choices import Choices
from dicjax.app.pages.findings import Findings
from dicjax.app.pages.parts import card, missing, Notice, page, text
from dicjax.app.recordings import (
    Candidate,
    COMMON_RATE,
    Glance,
    glance,
    hertz,
    question,
    Recording,
    ways_to_mend,
)
from dicjax.app.server_state import ServerState
from dicjax.app.theme import Look
from dicjax.recordings import samples_at


PAUSE = 0.15  # s without changes of the window before figures follow


async def recording_page(state: ServerState, number: int) -> None:
    recording = state.recording(number)
    with page(state, recording.upload.name if recording else "Recording") as look:
        if recording is None:
            why = "Recordings are not kept when the app ends. Open the file again."
            missing("This recording is no longer open", why)
            return
        has_unit = bool(recording.trains)
        with ui.element("div"):
            text(recording.upload.name, "over")
            title = "In which unit are the times?"
            if has_unit:
                title = "Which part of the recording should the model neurons match?"
            elif recording.fault is not None:
                title = "May its stamps be mended?"
            text(title, tag="h1")
        body = ui.element("div").classes("stack")
        await look.settle()
        seen = await run.io_bound(glance, recording) if has_unit else None
        with body:
            if recording.fault is not None:
                _Mend(recording, recording.fault)
            elif seen is None:
                _Question(recording)
            else:
                _Preview(state, look, recording, seen)


class _Question:
    """Asks for the unit, and shows the firing rate in each."""

    def __init__(self, recording: Recording):
        self.recording = recording
        candidates = recording.candidates
        options = {x.unit: self._option(x) for x in candidates if x.is_possible}
        likely = [x.unit for x in candidates if x.is_credible]
        text("The file does not state it. Choose the right firing rate:", "note")
        with card(question(recording)):
            self.unit = ui.radio(options, value=likely[0] if len(likely) == 1 else None)
            self.unit.classes("units").props('data-testid="unit"')
            self.unit.on_value_change(self._show_rate)
            self.rate = None
            if any(unit.startswith("samples") for unit in options):
                self.rate = ui.number(
                    "rate of samples or frames (Hz)", value=COMMON_RATE, min=1
                )
                self.rate.style("max-width: 14rem")
            self.notice = Notice()
            with ui.element("div").classes("line"):
                button = ui.button("Continue", on_click=self._answer)
                button.props('data-testid="continue"')
                ui.link("Open another file", "/")
        if not options:
            self.notice.say("No unit is possible: check that these are spike times.")

    def _option(self, candidate: Candidate) -> str:
        doubt = "" if candidate.is_credible else ", which is hardly possible"
        return f"{candidate.name}: the neuron fires at {hertz(candidate.rate)}{doubt}"

    def _show_rate(self) -> None:
        """Offers the rate of the chosen option, which the user may correct."""
        kind, _, rate = str(self.unit.value).partition("@")
        if kind == "samples" and rate and self.rate is not None:
            self.rate.set_value(float(rate))

    async def _answer(self) -> None:
        unit = self.unit.value
        if unit is None:
            self.notice.say("Choose a unit first.")
            return
        if unit.startswith("samples") and self.rate is not None:
            if not self.rate.value or self.rate.value <= 0:
                self.notice.say("Give the sampling rate, in Hz.")
                return
            unit = samples_at(self.rate.value)
        await self.notice.attempt(self.recording.answer, unit)
        if self.recording.trains or self.recording.fault is not None:
            ui.navigate.reload()


class _Mend:
    """Asks whether stamps that cannot be used as they are may be mended, and how."""

    def __init__(self, recording: Recording, fault: Advice):
        self.recording = recording
        with card("What is wrong"):
            text(fault.said(in_words))
            self.notice = Notice()
            with ui.element("div").classes("line"):
                for way in ways_to_mend(fault):
                    mend = lambda way=way: self._mend(way)
                    button = ui.button(CLEANING[way], on_click=mend)
                    button.props(f'data-testid="clean-{way}"')
                ui.link("Open another file", "/")

    async def _mend(self, way: str) -> None:
        await self.notice.attempt(self.recording.mend, way)
        if way in self.recording.clean:
            ui.navigate.reload()


class _Preview:
    """Spikes, intervals and warnings of a window that the user can move."""

    def __init__(
        self, state: ServerState, look: Look, recording: Recording, seen: Glance
    ):
        self.look, self.recording, self.seen = look, recording, seen
        self.train = recording.trains[recording.chosen]
        # In whole milliseconds, so that the page shows exactly the times that are used.
        self.low = math.floor(self.train.t_start) / 1e3
        self.high = math.ceil(self.train.t_stop) / 1e3
        with ui.element("div").classes("split"):
            with ui.element("div").classes("stack"):
                with card():
                    self._header()
                    self._spikes()
                with ui.element("div").classes("pair"):
                    with card("Intervals between spikes"):
                        label = "Histogram of intervals"
                        self.histogram = look.draw(label, figures.intervals, seen.train)
                    self.findings = Findings(recording, self._use, self._clean)
            self.choices = Choices(state, recording)
        show = lambda: self.findings.show(self.seen, self.choices)
        self.choices.model.on_value_change(show)
        show()

    def _header(self) -> None:
        trains = self.recording.trains
        with ui.element("div").classes("line"):
            if len(trains) > 1:
                names = (f"{x.name}: {x.num_spikes:,} spikes" for x in trains)
                select = ui.select(
                    dict(enumerate(names)),
                    value=self.recording.chosen,
                    label=f"Neuron ({len(trains)} in the file)",
                    with_input=len(trains) > 8,
                    on_change=self._choose,
                )
                select.props("outlined dense").style("min-width: 20rem")
            if self.recording.candidates:
                text(f"times in {self.recording.unit}", "note")
                again = ui.button("Change unit", on_click=self._ask_again)
                again.props('flat dense data-testid="change-unit"')

    def _spikes(self) -> None:
        draw, window = self.look.draw, self._window
        start, stop = (x / 1e3 for x in window)
        label = "All spikes of the recording"
        self.whole = draw(label, figures.overview, self.train, window)
        with ui.element("div").classes("window"):
            self.range = ui.range(
                min=self.low,
                max=self.high,
                step=max(round((self.high - self.low) / 1000, 3), 1e-3),
                value={"min": start, "max": stop},
                on_change=self._slid,
            ).props('aria-label="Window of the recording to use"')
        with ui.element("div").classes("line window"):
            text("Use from", "note")
            self.start = self._number("start (s)", start)
            text("to", "note")
            self.stop = self._number("end (s)", stop)
            everything = lambda: self._move(self.low, self.high)
            ui.button("All of it", on_click=everything).props("flat dense")
        label = "Spikes of the window, close up"
        self.near = draw(label, figures.closeup, self.seen.train).classes("draggable")

    def _number(self, label: str, value: float) -> ui.number:
        number = ui.number(value=value, format="%.3f", on_change=self._typed)
        number.style("width: 7.5rem").props(f'outlined dense aria-label="{label}"')
        return number

    @property
    def _window(self) -> tuple[float, float]:
        return self.recording.window or (self.low * 1e3, self.high * 1e3)

    def _ask_again(self) -> None:
        self.recording.ask_again()
        ui.navigate.reload()

    def _choose(self, event: events.ValueChangeEventArguments) -> None:
        self.recording.chosen, self.recording.window = event.value, None
        ui.navigate.reload()

    async def _slid(self, event) -> None:
        await self._move(event.value["min"], event.value["max"])

    async def _typed(self) -> None:
        start, stop = self.start.value, self.stop.value
        if start is not None and stop is not None and start < stop:
            await self._move(start, stop)

    async def _clean(self, way: str) -> None:
        with self.findings.warnings:
            notice = Notice()
        await notice.attempt(self.recording.mend, way)
        if way in self.recording.clean:
            ui.navigate.reload()

    async def _use(self, window: tuple[float, float]) -> None:
        await self._move(window[0] / 1e3, window[1] / 1e3)

    async def _move(self, start: float, stop: float) -> None:
        start = max(math.floor(1e3 * start + 1e-6) / 1e3, self.low)
        stop = min(math.ceil(1e3 * stop - 1e-6) / 1e3, self.high)
        is_whole = start <= self.low and stop >= self.high
        window = None if is_whole else (start * 1e3, stop * 1e3)
        if window == self.recording.window or not start < stop:
            return
        self.recording.window = window
        self.range.set_value({"min": start, "max": stop})
        self.start.set_value(start)
        self.stop.set_value(stop)
        await asyncio.sleep(PAUSE)
        if window != self.recording.window:
            return  # the window has moved since
        seen = await run.io_bound(glance, self.recording)
        if seen is not None and window == self.recording.window:
            self._show(seen)

    def _show(self, seen: Glance) -> None:
        redraw = self.look.redraw
        redraw(self.whole, figures.overview, self.train, self._window)
        if seen.facts and seen.train.num_spikes > 2:
            redraw(self.near, figures.closeup, seen.train)
            redraw(self.histogram, figures.intervals, seen.train)
        self.seen = seen
        self.findings.show(seen, self.choices)
