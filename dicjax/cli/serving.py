"""The command that opens the app."""

import dataclasses
import importlib.util
import os
import pathlib
from typing import Annotated

from tyro.conf import arg

from dicjax._core import Within
from dicjax.cli import cache_folder
from dicjax.cli.common import Command


RESULTS = pathlib.Path("dicjax-results")
NEEDED = ("nicegui", "plotly")


@dataclasses.dataclass(frozen=True, kw_only=True)
class App(Command):
    """Open dicjax in the browser: recordings in, pictures and models out.

    Only this computer can reach it. It does not use the internet and writes only into
    one folder. Ctrl-C ends it; an unfinished run then saves what was found so far.

    For example: dicjax app --folder results
    """

    folder: Annotated[pathlib.Path, arg(metavar="FOLDER")] = pathlib.Path(
        "dicjax-results"
    )
    """Folder of results; the app lists results that it already holds."""
    port: Annotated[int, arg(metavar="PORT"), Within(0, 65_535)] = 0
    """Port to listen at; any free port if 0."""
    browser: bool = True
    """Open a browser."""

    def run(self) -> int:
        lacking = " and ".join(x for x in NEEDED if importlib.util.find_spec(x) is None)
        if lacking:
            raise ValueError(f'The app needs {lacking}: pip install "dicjax[app]".')
        if (cache := cache_folder()) is not None:
            os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))
        from dicjax.app import serve

        once = [f"Results are kept in {self.folder.resolve()}"]

        def announce(address: str) -> None:
            print(f"dicjax is at {address} (Ctrl-C ends it)", flush=True)
            while once:
                print(once.pop(), flush=True)

        serve(self.folder, self.port, open_browser=self.browser, announce=announce)
        return 0
