"""Facts and warnings of a window, and whether the encoder knows such trains."""

from collections.abc import Awaitable, Callable

from nicegui import run, ui

from dicjax._core import CLEANING
from dicjax.app.pages.choices import Choices
from dicjax.app.pages.parts import card, numbers, text
from dicjax.app.recordings import Glance, is_known, Recording
from dicjax.generation import UNKNOWN
from dicjax.recordings import Finding


Mend = Callable[[str], Awaitable[None]]
UseWindow = Callable[[tuple[float, float]], Awaitable[None]]


class Findings:
    """A card with the facts of a window, and warnings that may offer another one."""

    def __init__(self, recording: Recording, use_window: UseWindow, mend: Mend):
        self.recording, self.use_window, self.mend = recording, use_window, mend
        with card("What was recorded"):
            self.facts = ui.element("div").props('data-testid="facts"')
            self.warnings = ui.element("div").classes("stack")

    def show(self, seen: Glance, choices: Choices) -> None:
        self.facts.clear()
        with self.facts:
            numbers(seen.facts, "small")
        self.warnings.clear()
        with self.warnings:
            for note in self.recording.notes:
                text(note, "alert")
            for finding in seen.findings:
                self._warn(finding)
            if seen.obstacle:
                text(seen.obstacle, "alert bad")
            else:
                verdict = text("Comparing it with the training data …", "note")
                verdict.props('data-testid="verdict"')
                compare = lambda: self._compare(seen, choices, verdict)
                ui.timer(0, compare, once=True)
        choices.button.set_enabled(not seen.obstacle)

    def _warn(self, finding: Finding) -> None:
        window = finding.window
        with ui.element("div").classes("alert").props('role="note"'):
            text(finding.message)
            if window is not None:
                use = lambda: self.use_window(window)
                ui.button("Use this window", on_click=use).props("flat dense")
            if finding.clean is not None:
                way = finding.clean
                mend = ui.button(CLEANING[way], on_click=lambda: self.mend(way))
                mend.props(f'flat dense data-testid="clean-{way}"')

    async def _compare(self, seen: Glance, choices: Choices, verdict: ui.html) -> None:
        model = str(choices.model.value)
        known = await run.io_bound(is_known, seen.train, model)
        if verdict.is_deleted or known is None:
            return
        if known:
            odd = seen.findings or self.recording.notes
            verdict.set_content("" if odd else "The app found nothing odd in it.")
            verdict.set_visibility(not odd)
        else:
            verdict.set_content(UNKNOWN)
            verdict.classes("alert", remove="note").props('role="note"')
