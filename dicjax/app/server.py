"""The server of the app, which only the browser that was opened can reach."""

import functools
import logging
import pathlib
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from typing import Any

import fastapi
import uvicorn
from fastapi.responses import FileResponse, HTMLResponse
from nicegui import app, ui

from dicjax.app.gate import Gate
from dicjax.app.pages.glossary import glossary_page
from dicjax.app.pages.home import home
from dicjax.app.pages.recording import recording_page
from dicjax.app.pages.run import run_page
from dicjax.app.runs import run_folder
from dicjax.app.scratch import scratch
from dicjax.app.server_state import ServerState
from dicjax.app.theme import ICON


LOG = logging.getLogger("dicjax.app")
HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
LAST_WORK = 120.0  # s that a running job has to save its result
PAGES: dict[str, Callable[..., Any]] = {
    "/": home,
    "/recording/{number}": recording_page,
    "/run/{name}": run_page,
    "/glossary": glossary_page,
}


def serve(
    folder: pathlib.Path,
    port: int = 0,
    *,
    open_browser: bool = True,
    announce: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the app until it is interrupted, with all its files in `folder`.

    Port 0 is any free one. `announce` is called with the address once the server
    listens. The address contains a token, without which nothing answers. It opens the
    app once; if it is opened again, `announce` is called with another one. A
    `ValueError` refuses a folder that is a file, or a port that is taken.
    """
    folder = folder.expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose a folder for results.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        listening = socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"Port {port} is in use or not allowed: choose another with --port."
        ) from error
    with scratch(folder) as temporary:
        before, tempfile.tempdir = tempfile.tempdir, str(temporary)
        try:
            _serve(ServerState(folder), listening, open_browser, announce)
        finally:
            tempfile.tempdir = before


def _serve(state: ServerState, listening: socket.socket, open_browser, announce):
    port = listening.getsockname()[1]
    gate = Gate(_application(state), NAMES, port, announce)
    address = gate.address()
    handler = logging.FileHandler(state.log, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    for name in ("dicjax", "nicegui", "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).propagate = False

    def ready() -> None:
        announce(address)
        if open_browser:
            webbrowser.open(address)

    app.on_startup(ready)
    if threading.current_thread() is threading.main_thread():
        # The server raises the signal again after closing; a job must be saved then.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = uvicorn.Config(
        gate,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        state.jobs.close(LAST_WORK)
        handler.close()


def _application(state: ServerState) -> fastapi.FastAPI:
    server = fastapi.FastAPI(openapi_url=None)
    for path, draw in PAGES.items():
        ui.page(path)(functools.partial(draw, state))

    @server.get("/report/{name}", response_model=None)
    def report(name: str) -> fastapi.Response:
        found = run_folder(state.folder, name)
        if found is None or not (found / "report.html").is_file():
            return HTMLResponse("This run has no report.", 404)
        return FileResponse(found / "report.html", media_type="text/html")

    @server.post("/upload/{name}", response_model=None)
    async def upload(name: str, request: fastapi.Request) -> fastapi.Response:
        return await state.inbox.receive(name, request)

    app.on_exception(lambda error: LOG.error("A page failed", exc_info=error))
    ui.run_with(
        server,
        title="dicjax",
        favicon=ICON,
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30.0,
    )
    return server
