"""The page of a run: its progress, and then its result."""

from nicegui import ui

from dicjax.app.pages.outcome import show
from dicjax.app.pages.parts import missing, Notice, page, text
from dicjax.app.pages.progress import Progress
from dicjax.app.runs import read_run, run_folder
from dicjax.app.server_state import ServerState


async def run_page(state: ServerState, name: str) -> None:
    job = state.jobs.known.get(name)
    folder = run_folder(state.folder, name)
    with page(state, "Run") as look:
        if job is None and folder is None:
            missing("There is no such run", f"{state.folder} has no run of this name.")
            return
        notice = Notice()
        body = ui.element("div").classes("stack")

        async def results() -> None:
            outcome = await notice.attempt(read_run, state.folder / name)
            if outcome is not None:
                body.clear()
                with body:
                    show(outcome, look, job.notes if job else ())

        await look.settle()
        if job is None or (job.state.is_over and folder is not None):
            notice.say("Reading the run …", "good")
            await results()
        else:
            with body:
                text(job.title, "over")
                text("Finding model neurons that fire like the recording", tag="h1")
                Progress(state, job, results)
