"""The page of a recording: its unit, its spikes, and settings of a run."""

import asyncio
import math

from nicegui import run, ui

from dicjax.app import figures
from dicjax.app.pages.choices import Choices
from dicjax.app.pages.findings import Findings
from dicjax.app.pages.parts import card, Notice, page, text
from dicjax.app.recordings import (
    COMMON_RATE,
    Glance,
    glance,
    hertz,
    question,
    Recording,
)
from dicjax.app.server_state import ServerState
from dicjax.app.theme import Look
from dicjax.recordings import samples_at


PAUSE = 0.15  # s without changes of the window before figures follow


async def recording_page(state: ServerState, number: int) -> None:
    """Draws the page."""
    recording = state.recordings.get(number)
    with page(state, recording.upload.name if recording else "Recording") as look:
        if recording is None:
            text("This recording is no longer open", tag="h1")
            text("Recordings are not kept when the app ends. Open the file again.")
            ui.link("Back to the start", "/")
            return
        with ui.element("div"):
            text(recording.upload.name, "over")
            title = text("", tag="h1")
        body = ui.element("div").classes("stack")
        await look.settle()
        await _draw(state, look, recording, title, body)


async def _draw(
    state: ServerState,
    look: Look,
    recording: Recording,
    title: ui.html,
    body: ui.element,
) -> None:
    is_known = bool(recording.trains)
    first = await run.io_bound(glance, recording) if is_known else None
    with body:
        if first is None:
            title.set_content("In which unit are the times?")
            _Question(recording)
        else:
            title.set_content("Which stretch should the models fire like?")
            _Preview(state, look, recording, first)


class _Question:
    """Asks for the unit, and shows the firing rate in each."""

    def __init__(self, recording: Recording):
        self.recording = recording
        options = {
            x.unit: self._option(x) for x in recording.candidates if x.is_possible
        }
        likely = [x.unit for x in recording.candidates if x.is_credible]
        text("The file does not say, and it makes all the difference:", "note")
        with card(question(recording)):
            chosen = likely[0] if len(likely) == 1 else None
            self.unit = (
                ui.radio(options, value=chosen)
                .classes("units")
                .props('data-testid="unit"')
            )
            self.rate = None
            if any(unit.startswith("samples") for unit in options):
                self.rate = ui.number("sampling rate (Hz)", value=COMMON_RATE, min=1)
                self.rate.classes("rate").style("max-width: 14rem")
            self.notice = Notice()
            with ui.element("div").classes("line"):
                ui.button("Continue", on_click=self._answer).props(
                    'data-testid="continue"'
                )
                ui.link("Open another file", "/")
        if not options:
            self.notice.say("In no unit could a neuron fire so: are these spike times?")

    def _option(self, candidate) -> str:
        doubt = "" if candidate.is_credible else ", which is hardly possible"
        return f"{candidate.name}: it fires at {hertz(candidate.rate)}{doubt}"

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
        if self.recording.trains:
            ui.navigate.reload()


class _Preview:
    """Spikes, intervals and warnings of a window that the user can move."""

    def __init__(
        self, state: ServerState, look: Look, recording: Recording, first: Glance
    ):
        self.look, self.recording = look, recording
        self.version = 0
        self.seen = first
        with ui.element("div").classes("split"):
            with ui.element("div").classes("stack"):
                self._spikes(first)
                with ui.element("div").classes("pair"):
                    with card("Intervals between spikes"):
                        self.histogram = look.draw(
                            self._of(figures.intervals, first), "Histogram of intervals"
                        )
                    self.findings = Findings(recording, self.use)
            self.choices = Choices(state, recording)
        show = lambda: self.findings.show(self.seen, self.choices)
        self.choices.model.on_value_change(show)
        show()

    def _spikes(self, first: Glance) -> None:
        recording = self.recording
        whole = recording.trains[recording.chosen]
        # In whole milliseconds, so that the page shows exactly the times that are used.
        self.low = math.floor(whole.t_start) / 1e3
        self.high = math.ceil(whole.t_stop) / 1e3
        with card():
            with ui.element("div").classes("line"):
                if len(recording.trains) > 1:
                    self._neurons()
                if recording.candidates:
                    text(f"times in {recording.unit}", "note")
                    again = ui.button("Change unit", on_click=self._ask_again)
                    again.props("flat dense").props('data-testid="change-unit"')
            self.whole = self.look.draw(self._overview, "All spikes of the recording")
            start, stop = (x / 1e3 for x in self._window)
            step = max(round((self.high - self.low) / 1000, 3), 1e-3)
            with ui.element("div").classes("window"):
                self.range = ui.range(
                    min=self.low,
                    max=self.high,
                    step=step,
                    value={"min": start, "max": stop},
                    on_change=self._slid,
                ).props('data-testid="window"')
                self.range.props('aria-label="Window of the recording to use"')
            with ui.element("div").classes("line").style("padding-left: 76px"):
                text("Use from", "note")
                self.start = self._number("start (s)", start)
                text("to", "note")
                self.stop = self._number("end (s)", stop)
                ui.button("All of it", on_click=self._all).props("flat dense")
            self.near = self.look.draw(
                self._of(figures.closeup, first), "Spikes of the window, close up"
            ).classes("draggable")

    def _neurons(self) -> None:
        names = {
            i: f"{x.name}: {x.num_spikes:,} spikes"
            for i, x in enumerate(self.recording.trains)
        }
        select = ui.select(
            names,
            value=self.recording.chosen,
            label=f"Neuron ({len(names)} in the file)",
            with_input=len(names) > 8,
            on_change=self._choose,
        )
        select.props("outlined dense").style("min-width: 20rem").props(
            'data-testid="neuron"'
        )

    def _number(self, label: str, value: float) -> ui.number:
        number = ui.number(value=value, format="%.3f", on_change=self._typed).props(
            f'outlined dense aria-label="{label}"'
        )
        number.style("width: 7.5rem")
        return number

    @property
    def _window(self) -> tuple[float, float]:
        return self.recording.window or (self.low * 1e3, self.high * 1e3)

    def _overview(self, colors):
        train = self.recording.trains[self.recording.chosen]
        return figures.overview(train, self._window, colors)

    @staticmethod
    def _of(draw, seen: Glance):
        return lambda colors: draw(seen.train, colors)

    def _ask_again(self) -> None:
        self.recording.trains, self.recording.window = (), None
        ui.navigate.reload()

    def _choose(self, event) -> None:
        self.recording.chosen, self.recording.window = event.value, None
        ui.navigate.reload()

    async def _all(self) -> None:
        await self._move(self.low, self.high)

    async def _slid(self, event) -> None:
        await self._move(event.value["min"], event.value["max"])

    async def _typed(self) -> None:
        start, stop = self.start.value, self.stop.value
        if start is not None and stop is not None and start < stop:
            await self._move(start, stop)

    async def use(self, window: tuple[float, float]) -> None:
        """Sets the window that a warning suggests."""
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
        self.version += 1
        version = self.version
        await asyncio.sleep(PAUSE)
        if version != self.version:
            return  # the window has moved since
        seen = await run.io_bound(glance, self.recording)
        if seen is not None and version == self.version:
            self._show(seen)

    def _show(self, seen: Glance) -> None:
        self.look.redraw(self.whole, self._overview)
        if seen.facts and seen.train.num_spikes > 2:
            self.look.redraw(self.near, self._of(figures.closeup, seen))
            self.look.redraw(self.histogram, self._of(figures.intervals, seen))
        self.seen = seen
        self.findings.show(seen, self.choices)
