"""The progress of a run, with the remaining time and a button to stop it."""

import time
from collections.abc import Awaitable, Callable

from nicegui import ui

from dicjax._core import duration, FIRST_RUN, Remedy
from dicjax.app.jobs import Job, State
from dicjax.app.labels import button_for, model_name
from dicjax.app.pages.parts import card, text
from dicjax.app.server_state import ServerState


TITLES = {
    State.REFUSED: "There is no result",
    State.CANCELLED: "Stopped",
    State.FAILED: "Something went wrong",
}


class Progress:
    """Follows a job until it ends, and then calls `then` or shows why it failed."""

    def __init__(self, state: ServerState, job: Job, then: Callable[[], Awaitable]):
        self.state, self.job, self.then = state, job, then
        order = job.order
        within = f"within {100 * order.tolerance:g} %"
        with card() as self.box:
            kind = model_name(order.model)
            text(f"{order.members} model neurons, {kind}, {within}", "note")
            self.stage = text("", tag="h2").props('data-testid="stage"')
            self.compiling = text(FIRST_RUN, "note")
            with ui.element("div") as self.running:
                self.bar = ui.linear_progress(0.0, show_value=False, size="12px")
                self.bar.props('rounded aria-label="Model neurons found"')
                with ui.element("div").classes("line"):
                    self.count, self.left = text("", "note"), text("", "note")
            with ui.element("div").classes("line"):
                self.stop = ui.button(on_click=lambda: state.jobs.cancel(job))
                self.stop.props('outline data-testid="cancel"')
                text("You can close this tab. The run goes on by itself.", "note")
        self.timer = ui.timer(0.3, self.update)

    async def update(self) -> None:
        job, pace = self.job, self.job.pace
        if job.state.is_over:
            self.timer.deactivate()
            await self._end()
            return
        is_waiting, is_writing = job.state is State.WAITING, job.is_writing
        self.stage.set_content(f"{self.state.jobs.status(job)} …")
        self.compiling.set_visibility(self.state.is_first_run and not pace.done)
        stop = "Take it out of the queue" if is_waiting else "Stop, keep what was found"
        self.stop.set_text(stop)
        self.stop.set_enabled(is_waiting or not (job.is_stopping or is_writing))
        self.running.set_visibility(not is_waiting)
        self.bar.set_value(pace.done / pace.total if pace.total else 0.0)
        is_moving = pace.done > 0 and not is_writing
        self.bar.props(**{"remove" if is_moving else "add": "indeterminate"})
        self.count.set_content(f"{pace.done} of {pace.total} model neurons found")
        is_checking = is_writing or pace.stage.name == "certifying"
        self.count.set_visibility(bool(pace.total) and not is_checking)
        left = pace.seconds_left(time.time())
        to_go = "" if left is None else f", about {duration(left)} to go"
        self.left.set_content(f"{duration(job.elapsed)} so far{to_go}")

    async def _end(self) -> None:
        job = self.job
        if job.state is State.DONE:
            self.state.is_first_run = False
            self.box.delete()
            await self.then()
            return
        self.box.clear()
        with self.box:
            text(TITLES[job.state], tag="h2")
            message = text(job.message, "alert bad")
            message.props('role="alert" data-testid="message"')
            with ui.element("div").classes("line"):
                for remedy in job.remedies:
                    self._offer(remedy)
                if job.unsaved is not None:
                    ui.button("Try to save it again", on_click=self._save_again)
                for recording in self.state.recordings.values():
                    if recording.upload.sha256 == job.order.sha256:
                        ui.link("Back to the recording", recording.address)
                        break
                ui.link("Back to the start", "/")

    def _offer(self, remedy: Remedy) -> None:
        order = self.job.order.changed(remedy)
        if order is not None:
            again = lambda: ui.navigate.to(self.state.start(order).address)
            button = ui.button(button_for(remedy), on_click=again)
            button.props(f'unelevated data-testid="use-{remedy.setting}"')

    def _save_again(self) -> None:
        self.state.jobs.submit(self.job)
        ui.navigate.reload()
