"""The server of the app: on this computer alone, for as long as it is wanted."""

import logging
import pathlib
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable

import fastapi
import uvicorn
from fastapi.responses import FileResponse, HTMLResponse
from nicegui import app, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dicjax.app.pages.glossary import glossary_page
from dicjax.app.pages.home import home
from dicjax.app.pages.recording import recording_page
from dicjax.app.pages.run import run_page
from dicjax.app.runs import run_folder
from dicjax.app.scratch import scratch
from dicjax.app.server_state import Desk
from dicjax.app.theme import ICON


LOG = logging.getLogger("dicjax.app")
HOST = "127.0.0.1"
LAST_WORK = 120.0  # s, that a running job gets to keep what it has found


def serve(
    folder: pathlib.Path,
    port: int = 0,
    *,
    open_browser: bool = True,
    announce: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the app until it is interrupted.

    **Arguments:**

    - `folder`: where results are kept, and all else that is written; made if needed.
    - `port`: where to listen; 0 for any that is free.
    - `open_browser`: whether to show it.
    - `announce`: called with its address once it listens.

    **Raises:**

    - `ValueError`: if the folder is a file, or another program listens at the port.
    """
    folder = _usable(folder)
    listening = _socket(port)
    with scratch(folder) as temporary:
        before, tempfile.tempdir = tempfile.tempdir, str(temporary)
        try:
            _serve(Desk(folder), listening, open_browser, announce)
        finally:
            tempfile.tempdir = before


def _serve(
    desk: Desk,
    listening: socket.socket,
    open_browser: bool,
    announce: Callable[[str], None],
) -> None:
    address = f"http://{HOST}:{listening.getsockname()[1]}"
    handler = logging.FileHandler(desk.log, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    for name in ("dicjax", "nicegui", "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).propagate = False

    def ready() -> None:
        announce(address)
        if open_browser:
            webbrowser.open(address)

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    app.on_startup(ready)
    if threading.current_thread() is threading.main_thread():
        # The server hands the signal on when it has closed, and there is work to keep.
        signal.signal(signal.SIGTERM, ended)
    config = uvicorn.Config(
        _application(desk),
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        desk.jobs.close(LAST_WORK)
        handler.close()


def _application(desk: Desk) -> fastapi.FastAPI:
    server = fastapi.FastAPI(openapi_url=None)
    # A page elsewhere cannot reach this one under a name of its own.
    server.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @ui.page("/")
    async def start() -> None:
        await home(desk)

    @ui.page("/recording/{number}")
    async def recording(number: int) -> None:
        await recording_page(desk, number)

    @ui.page("/run/{name}")
    async def run(name: str) -> None:
        await run_page(desk, name)

    @ui.page("/glossary")
    def terms() -> None:
        glossary_page(desk)

    @server.get("/report/{name}", response_model=None)
    def report(name: str) -> fastapi.Response:
        found = run_folder(desk.folder, name)
        if found is None or not (found / "report.html").is_file():
            return HTMLResponse("This run has no report.", 404)
        return FileResponse(found / "report.html", media_type="text/html")

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


def _usable(folder: pathlib.Path) -> pathlib.Path:
    folder = folder.expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose a folder for results.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _socket(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ValueError(
            f"Nothing can listen at port {port} ({error}): choose another with --port."
        ) from error
    return listening
