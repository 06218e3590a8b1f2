"""The first page: opens a recording, and lists all runs."""

import importlib.resources
import json
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import app, events, ui
from nicegui.run import io_bound

from dicjax.app.jobs import State
from dicjax.app.labels import model_name
from dicjax.app.pages.parts import card, cells, Notice, page, table, text
from dicjax.app.recordings import open_recording
from dicjax.app.runs import summaries
from dicjax.app.server_state import example, ServerState
from dicjax.app.uploads import accepted, Files, safe_name, TOO_LARGE, Upload
from dicjax.recordings import MAX_BYTES, PARTS, TIMES


Within = Callable[..., Awaitable[Any]]
STEPS = (
    "Drop a file with spike times. If it does not state their unit, the app asks you.",
    "Look at the spikes and choose a steady stretch of them.",
    "Press Generate. The app builds model neurons, simulates them and compares them "
    "with the recording.",
    "See how they fire and what they are made of. Take them to Excel or NEURON.",
)
FORMATS = (
    "Text, CSV and Excel; MATLAB, NumPy, pynapple and NWB; files that neo reads (.nex, "
    ".plx, .nev, .smr, .nix and others); and Kilosort or phy, as a folder, as its "
    "files, or as a zip."
)
NOT_ARRIVED = "The file did not arrive: send it again."
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
    with page(state, "") as look:
        with ui.element("div"):
            text("Spike times in, model neurons out", tag="h1")
            text(
                "From the spikes of one neuron, dicjax finds many model neurons that "
                "fire like it. They differ in their ion channels. dicjax also reports "
                "how sure it is.",
                "lead",
            )
        with ui.element("div").classes("split"):
            with ui.element("div").classes("stack"):
                _drop_zone(state)
            with card("How it works"), ui.element("ol").classes("steps"):
                for step in STEPS:
                    text(step, tag="li")
        with card("Runs"):
            rows = ui.element("div").props('data-testid="runs"')
        await look.settle()
        _list_runs(state, rows)


def _drop_zone(state: ServerState) -> None:
    async def read(
        load: Callable[..., Upload], *args: Any, within: Within = io_bound
    ) -> None:
        upload = await notice.attempt(load, *args, within=within)
        if upload is None:
            return
        notice.say(f"Reading {upload.name} …", "good")
        recording = await notice.attempt(open_recording, upload, within=within)
        if recording is not None:
            state.keep(recording)
            ui.navigate.to(recording.address)

    async def receive(files: Files, folder: str) -> None:
        with client:
            notice.say("Reading …", "good")
            await read(accepted, files, folder, within=state.inbox.read)

    def refuse_folder(event: events.GenericEventArguments) -> None:
        why = (
            f"{safe_name(str(event.args))} is no folder of Kilosort. It has no {TIMES}"
        )
        notice.say(f"{why}: choose a file instead.")

    uploader = ui.upload(
        multiple=True,
        on_multi_upload=lambda: None,  # all files in one request
        on_rejected=lambda: notice.say(TOO_LARGE),
        auto_upload=True,
        max_file_size=MAX_BYTES,
        max_total_size=MAX_BYTES,
    )
    client = ui.context.client
    app.remove_route(uploader.props["url"])  # keeps small files in memory
    uploader.props["url"] = f"/upload/{client.id}"
    state.inbox.pages[client.id] = receive
    client.on_delete(lambda: state.inbox.pages.pop(client.id, None))
    uploader.on("finish", uploader.reset)  # earlier, it would abort the upload
    uploader.on(
        "failed",
        lambda event: notice.say(event.args or NOT_ARRIVED),
        js_handler="info => emit(info.xhr.responseText)",
    )
    uploader.add_slot("header", _DROP)
    uploader.props('data-testid="upload" :form-fields="() => dicjaxFolders.fields()"')
    script = (importlib.resources.files("dicjax.app.pages") / "folders.js").read_text()
    values = ", ".join(map(json.dumps, (PARTS, TIMES, uploader.id)))
    script += f"window.dicjaxFolders = foldersOf({values});"
    ui.add_body_html(f"<script>{script}</script>")
    ui.on("no-folder", refuse_folder)
    notice = Notice()
    text(FORMATS, "note")
    with ui.element("div").classes("line"):
        button = ui.button("Try it with an example", icon="science")
        button.on_click(lambda: read(example)).props("outline")
        text("One minute of a slowly bursting crab neuron.", "note")


def _list_runs(state: ServerState, box: ui.element) -> None:
    """Lists all runs, and lists them again when something changes."""
    known, shown = state.jobs.known, []

    def update() -> None:
        rows = []
        for job in reversed(known.values()):
            if job.state is not State.DONE:
                now = model_name(job.order.model), state.jobs.status(job), "now"
                rows.append(cells((job.title, *now), link=job.address))
        for run in summaries(state.folder):
            result = f"{run.num_accepted} of {run.num_asked} model neurons"
            then = model_name(run.model), result, f"{run.written:%d %b %Y, %H:%M}"
            rows.append(cells((run.title, *then), link=run.address))
        if shown == [rows]:
            return
        shown[:] = [rows]
        box.clear()
        with box:
            if rows:
                table(("recording", "kind of neuron", "result", "when"), rows, "words")
            else:
                text("None yet. Runs stay here when you close the tab.", "note")

    update()
    ui.timer(1.0, update)
