"""The progress of a run, with the remaining time and a button to stop it."""

import time
from collections.abc import Awaitable, Callable

from nicegui import ui

from dicjax._core import duration, FIRST_RUN, Remedy, stage_words
from dicjax.app.jobs import Job, State
from dicjax.app.labels import button_for, model_name
from dicjax.app.pages.parts import card, text
from dicjax.app.runs import job_for
from dicjax.app.server_state import ServerState


class Progress:
    """Follows a job until it ends, and then calls `then` or shows why it failed."""

    def __init__(
        self, state: ServerState, job: Job, then: Callable[[], Awaitable[None]]
    ):
        self.state, self.job, self.then = state, job, then
        with card() as self.box:
            order = job.order
            is_open = order.model == "auto"
            model = "model chosen for you" if is_open else model_name(order.model)
            text(
                f"{order.members} members, {model}, within {100 * order.tolerance:g} %",
                "note",
            )
            self.stage = text("", tag="h2").props('data-testid="stage"')
            self.compiling = text(FIRST_RUN, "note")
            self.bar = ui.linear_progress(0.0, show_value=False, size="12px")
            self.bar.props('rounded aria-label="Members found"')
            with ui.element("div").classes("line"):
                self.count = text("", "note").props('data-testid="count"')
                self.left = text("", "note").props('data-testid="left"')
            with ui.element("div").classes("line"):
                self.stop = ui.button("Stop, keep what was found", on_click=self._stop)
                self.stop.props("outline").props('data-testid="cancel"')
                text("You can close this tab: the work goes on.", "note")
        self.timer = ui.timer(0.3, self.update)

    def _stop(self) -> None:
        self.state.jobs.cancel(self.job)

    def _offer(self, remedy: Remedy) -> None:
        order = self.job.order.changed(remedy)
        if order is None:
            return

        def again() -> None:
            job = job_for(order, self.state.folder, self.state.jobs.known)
            self.state.jobs.submit(job)
            ui.navigate.to(f"/run/{job.name}")

        button = ui.button(button_for(remedy), on_click=again).props("unelevated")
        button.props(f'data-testid="use-{remedy.setting}"')

    def _save_again(self) -> None:
        self.state.jobs.submit(self.job)
        ui.navigate.reload()

    async def update(self) -> None:
        """Shows the progress."""
        job, pace = self.job, self.job.pace
        is_compiling = self.state.is_first_run and not pace.done
        self.compiling.set_visibility(is_compiling)
        if job.state.is_over:
            self.timer.deactivate()
            await self._end()
            return
        if job.state is State.WAITING:
            ahead = self.state.jobs.num_ahead(job)
            self.stop.set_text("Take it out of the queue")
            if not ahead:
                self.stage.set_content("Getting ready …")
                return
            runs = "another run" if ahead == 1 else f"{ahead} other runs"
            self.stage.set_content(f"Waiting behind {runs}; it begins by itself.")
            return
        if job.is_stopping and pace.stage.name != "writing":
            stage = "Stopping: what was found until now is checked once more and kept"
        else:
            stage = stage_words(pace.stage)
        self.stage.set_content(f"{stage} …")
        self.stop.set_text("Stop, keep what was found")
        self.stop.set_enabled(not job.is_stopping and pace.stage.name != "writing")
        checking = pace.stage.name in ("certifying", "writing")
        self.bar.set_value(pace.done / pace.total if pace.total else 0.0)
        is_moving = pace.done > 0 and pace.stage.name != "writing"
        self.bar.props(remove="indeterminate") if is_moving else self.bar.props(
            "indeterminate"
        )
        found = f"{pace.done} of {pace.total} members found"
        self.count.set_content(found)
        self.count.set_visibility(bool(pace.total) and not checking)
        left = pace.seconds_left(time.time())
        self.left.set_content(
            f"{duration(job.elapsed)} so far"
            + (f", about {duration(left)} to go" if left is not None else "")
        )

    async def _end(self) -> None:
        job = self.job
        self.box.clear()
        if job.state is State.DONE:
            self.state.is_first_run = False
            self.box.delete()
            await self.then()
            return
        titles = {
            State.REFUSED: "There is no result",
            State.CANCELLED: "Stopped",
            State.FAILED: "Something went wrong",
        }
        number = next(
            (
                x.number
                for x in self.state.recordings.values()
                if x.upload.sha256 == job.order.sha256
            ),
            None,
        )
        with self.box:
            text(titles[job.state], tag="h2")
            text(job.message, "alert bad").props('role="alert"').props(
                'data-testid="message"'
            )
            with ui.element("div").classes("line"):
                for remedy in job.remedies:
                    self._offer(remedy)
                if job.unsaved is not None:
                    ui.button("Try to save it again", on_click=self._save_again)
                if number is not None:
                    ui.link("Back to the recording", f"/recording/{number}")
                ui.link("Back to the start", "/")
