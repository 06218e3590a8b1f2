"""The first page: opens a recording, and lists all runs."""

import html

from nicegui import events, ui

from dicjax._core import stage_words
from dicjax.app.jobs import Job, State
from dicjax.app.labels import model_name
from dicjax.app.pages.folders import folders
from dicjax.app.pages.parts import card, Notice, page, table, text
from dicjax.app.recordings import open_recording
from dicjax.app.runs import summaries
from dicjax.app.server_state import example, ServerState
from dicjax.app.uploads import accepted, MAX_BYTES, safe_name, Upload
from dicjax.recordings import TIMES


STEPS = (
    "Drop a file with spike times; answer in which unit they are, if it does not say.",
    "Look at the spikes and choose a steady stretch of them.",
    "Press Generate: models of the neuron are built, simulated and compared with it.",
    "See how they fire and what they are made of; take them to Excel or NEURON.",
)
FORMATS = (
    "Text, CSV and Excel, MATLAB, NumPy and pynapple, NWB, what neo reads (.nex, .plx, "
    ".nev, .smr, .nix and others), and the folder of Kilosort or phy: itself, its "
    "files together, or as a zip."
)
_DROP = """
<div class="drop">
  <q-icon name="upload_file" size="2.6rem"></q-icon>
  <strong>Drop a recording here</strong>
  <div class="line">
  <q-btn type="a" color="primary" unelevated no-caps label="Choose a file"
    @click="props.pickFiles" @keydown.enter="props.pickFiles" tabindex="0"
    aria-label="Choose a file with spike times">
    <q-uploader-add-trigger></q-uploader-add-trigger>
  </q-btn>
  <q-btn type="a" color="primary" outline no-caps label="A folder of Kilosort"
    onclick="dicjaxFolders.choose()" tabindex="0"
    onkeydown="if (event.key === 'Enter') dicjaxFolders.choose()"></q-btn>
  </div>
</div>
"""


async def home(state: ServerState) -> None:
    """Draws the page."""
    with page(state, "") as look:
        with ui.element("div"):
            text("Spike times in, model neurons out", tag="h1")
            text(
                "From the spikes of one neuron, dicjax finds many model neurons that "
                "fire like it, each with other ion channels, and says how sure it is.",
                "lead",
            )
        with ui.element("div").classes("split"):
            with ui.element("div").classes("stack"):
                _drop_zone(state)
            with card("How it goes"):
                steps = "".join(f"<li>{html.escape(x)}</li>" for x in STEPS)
                ui.html(steps, tag="ol", sanitize=False).classes("steps")
        with card("Runs"):
            rows = ui.element("div").props('data-testid="runs"')
        await look.settle()
        _Runs(state, rows)


def _drop_zone(state: ServerState) -> None:
    folder = [""]  # name of the folder of the next files

    async def open_upload(upload: Upload) -> None:
        recording = await notice.attempt(open_recording, upload)
        if recording is not None:
            state.keep(recording)
            ui.navigate.to(f"/recording/{recording.number}")

    async def receive(event: events.MultiUploadEventArguments) -> None:
        uploader.reset()
        name, folder[0] = folder[0], ""
        size = sum(file.size() for file in event.files)
        if size > MAX_BYTES:
            too_large()
            return
        files = {file.name: await file.read() for file in event.files}
        upload = await notice.attempt(accepted, files, name)
        if upload is not None:
            notice.say(f"Reading {upload.name} …", "good")
            await open_upload(upload)

    def receive_folder(event: events.GenericEventArguments) -> None:
        folder[0] = str(event.args["name"])
        if not event.args["num"]:
            notice.say(
                f"{safe_name(folder[0])} is no folder of Kilosort, as it holds no "
                f"{TIMES}: choose a file instead."
            )

    async def open_example() -> None:
        upload = await notice.attempt(example)
        if upload is not None:
            await open_upload(upload)

    def too_large() -> None:
        notice.say(
            f"There are more than the {MAX_BYTES / 2**20:.0f} MB that are read: "
            "export only spike times."
        )

    uploader = ui.upload(
        multiple=True,
        on_multi_upload=receive,
        on_rejected=too_large,
        auto_upload=True,
        max_file_size=MAX_BYTES,
        max_total_size=MAX_BYTES,
    )
    uploader.add_slot("header", _DROP)
    uploader.props('data-testid="upload"')
    ui.add_body_html(f"<script>{folders(uploader.id)}</script>")
    ui.on("folder", receive_folder)
    notice = Notice()
    text(FORMATS, "note")
    with ui.element("div").classes("line"):
        button = ui.button(
            "Try it with an example", icon="science", on_click=open_example
        )
        button.props("outline").props('data-testid="example"')
        text("A slowly bursting crab neuron, one minute.", "note")


class _Runs:
    """The list of runs, kept up to date."""

    def __init__(self, state: ServerState, box: ui.element):
        self.state, self.box, self.shown = state, box, None
        self.update()
        ui.timer(1.0, self.update)

    def update(self) -> None:
        """Draws the list again if something changed."""
        known = self.state.jobs.known.values()
        jobs = [x for x in known if x.state is not State.DONE]
        rows = [_job_row(self.state, job) for job in reversed(jobs)]
        for run in summaries(self.state.folder):
            rows.append(
                _row(
                    run.name,
                    run.title,
                    model_name(run.model),
                    f"{run.num_accepted} of {run.num_asked} members",
                    f"{run.written:%d %b %Y, %H:%M}",
                )
            )
        if rows == self.shown:
            return
        self.shown = rows
        self.box.clear()
        with self.box:
            if rows:
                table(("recording", "model", "result", "when"), rows, "words")
            else:
                text("None yet. They stay here, also when you close the tab.", "note")


def _job_row(state: ServerState, job: Job) -> str:
    model = model_name(job.order.model)
    if job.state is State.WAITING:
        ahead = state.jobs.num_ahead(job)
        status = f"waiting behind {ahead}" if ahead else "getting ready"
    elif job.state is State.RUNNING:
        status = stage_words(job.pace.stage)
    else:
        status = job.state.value
    return _row(job.name, job.title, model, status, "now")


def _row(name: str, title: str, *rest: str) -> str:
    link = f'<a href="/run/{html.escape(name)}">{html.escape(title)}</a>'
    return (
        f"<tr><td>{link}</td>{''.join(f'<td>{html.escape(x)}</td>' for x in rest)}</tr>"
    )
