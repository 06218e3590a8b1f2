"""The page of a run: its progress, and then what came of it."""

from nicegui import ui

from dicjax.app.pages.outcome import show
from dicjax.app.pages.parts import Notice, page, text
from dicjax.app.pages.progress import Progress
from dicjax.app.runs import read_run, run_folder
from dicjax.app.server_state import Desk


async def run_page(desk: Desk, name: str) -> None:
    """Draws the page."""
    job = desk.jobs.known.get(name)
    folder = run_folder(desk.folder, name)
    with page(desk, "Run") as look:
        if job is None and folder is None:
            text("There is no such run", tag="h1")
            text(f"{desk.folder} holds none of this name.")
            ui.link("Back to the start", "/")
            return
        notice = Notice()
        body = ui.element("div").classes("stack")

        async def results() -> None:
            found = run_folder(desk.folder, name)
            outcome = found and await notice.attempt(read_run, found)
            if not outcome:
                return
            body.clear()
            with body:
                show(outcome, look, job.notes if job else ())

        await look.settle()
        if job is None or (job.state.is_over and folder is not None):
            notice.say("Reading the run …", "good")
            await results()
            return
        with body:
            text(job.title, "over")
            text("Finding model neurons that fire like the recording", tag="h1")
            Progress(desk, job, results)
