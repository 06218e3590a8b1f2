"""Common parts of commands."""

import abc
import dataclasses
import json
import pathlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv
from tyro.conf import arg, OmitArgPrefixes, Positional

from dicjax._core import (
    duration,
    FIRST_RUN,
    is_first_run,
    Pace,
    replacing,
    Stage,
    stage_words,
)
from dicjax.inference import find_neuron
from dicjax.neurons import Neuron


Flat = OmitArgPrefixes
Table = Annotated[
    pathlib.Path | None, arg(help="CSV to write; the terminal if not given.")
]
LIVE, QUIET = 1.0, 10.0  # s between lines on a terminal, and in a log


class Command(abc.ABC):
    """A command; its fields are its options."""

    @abc.abstractmethod
    def run(self) -> int:
        """Runs the command; returns the exit status: 0, or 1 if done in part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderCommand(Command):
    """A command that writes a folder, whole or not at all."""

    out: pathlib.Path
    """Folder to write; it must not exist yet."""
    overwrite: bool = False
    """Replace the content of the folder."""

    def check_out(self) -> None:
        """Raises `ValueError` if the folder may not be written."""
        from dicjax.output import check_folder

        check_folder(self.out, self.overwrite)

    def write(self, fill: Callable[[pathlib.Path], None]) -> None:
        """Makes the folder; `fill` writes its files."""
        from dicjax.output import write_folder

        write_folder(self.out, self.overwrite, fill)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelsCommand(Command):
    """A command that reads a table of models."""

    models: Annotated[Positional[pathlib.Path], arg(metavar="MODELS")]
    """models.parquet, models.csv, or their folder."""
    model: str | None = None
    """A model's name, a Python file that declares a neuron, or a checkpoint's folder;
    needed if the table does not name its model."""

    def read_models(self) -> tuple[Neuron, np.ndarray]:
        """The neuron of the table, and conductances."""
        from dicjax.output import read_models

        if self.model is not None:
            neuron, _ = find_neuron(self.model)
            return neuron, read_models(self.models, neuron)[1]
        name, g = read_models(self.models)
        return find_neuron(name)[0], g


def write_manifest(folder: pathlib.Path, about: Mapping[str, Any]) -> None:
    """Writes what a folder holds, in the format that marks it as written by dicjax."""
    from dicjax.output import FORMAT

    text = json.dumps({"format": FORMAT, **about}, indent=2)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


class Progress:
    """A line on the terminal: the stage of work, its progress and remaining time."""

    def __init__(self):
        self.pace = Pace()
        self.is_live = sys.stderr.isatty()
        self._began = time.time()
        self._shown_stage, self._shown_at = "", 0.0
        self._one_at_a_time = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> "Progress":
        if is_first_run():
            say(FIRST_RUN)
        if self.is_live:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        now = time.time()
        self.pace.note(stage, done, total, now)
        wait = LIVE / 10 if self.is_live else QUIET
        if stage.name != self._shown_stage or now - self._shown_at >= wait:
            self._shown_stage, self._shown_at = stage.name, now
            self._show()

    def __exit__(self, *_) -> None:
        self._over.set()
        if self.is_live:
            with self._one_at_a_time:
                print(end="\r\x1b[K", file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        """The line to show at the time `now`, in s."""
        pace, passed = self.pace, now - self._began
        count = f": {pace.done} of {pace.total}" if 0 < pace.done < pace.total else ""
        left = pace.seconds_left(now)
        rest = "" if left is None else f", about {duration(left)} to go"
        return f"{stage_words(pace.stage)}{count} ({duration(passed)}{rest})"

    def _show(self) -> None:
        with self._one_at_a_time:
            if self._over.is_set():
                return
            line, end = self.line(time.time()), "\n"
            if self.is_live:
                width = shutil.get_terminal_size().columns - 1
                line, end = f"\r{line[:width]}", "\x1b[K"
            print(line, end=end, file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._over.wait(LIVE):
            self._show()


def say(message: str) -> None:
    """Prints a message, which is not a result, to standard error."""
    print(message, file=sys.stderr)


def note(message: str) -> None:
    """Prints what the user should know about a result."""
    say(f"Note: {message}")


def check_new(out: pathlib.Path) -> None:
    """Raises `ValueError` if a checkpoint's folder exists."""
    if out.exists():
        raise ValueError(f"{out} exists already; name another folder.")


def write_table(columns: Mapping[str, Any], out: pathlib.Path | None) -> None:
    """Writes columns as CSV, or as readable lines on a terminal if `out` is None."""
    columns = {name: np.asarray(x).tolist() for name, x in columns.items()}
    if out is None and sys.stdout.isatty():
        print(as_lines(columns, shutil.get_terminal_size().columns))
        return
    # Single precision has seven digits.
    short = lambda x: float(f"{x:.7g}") if isinstance(x, float) else x
    table = pa.table({name: [*map(short, x)] for name, x in columns.items()})
    if out is None:
        sink = pa.BufferOutputStream()
        csv.write_csv(table, sink)
        print(sink.getvalue().to_pybytes().decode(), end="")
        return
    with replacing(out) as path:
        csv.write_csv(table, path)


def as_lines(columns: dict[str, list], width: int) -> str:
    """A transposed table: a line per column, in blocks that fit `width` characters."""
    short = lambda x: f"{x:.4g}" if isinstance(x, float) else str(x)
    rows = [[name, *map(short, values)] for name, values in columns.items()]
    head, *own = (max(map(len, column)) for column in zip(*rows, strict=True))
    fit = max((width - head) // (max(own, default=1) + 2), 1)
    lines = [
        [name.ljust(head), *(x.rjust(n + 2) for x, n in zip(cells, own, strict=True))]
        for name, *cells in rows
    ]
    blocks = [
        "\n".join("".join([name, *cells[i : i + fit]]) for name, *cells in lines)
        for i in range(0, len(own), fit)
    ]
    return "\n\n".join(blocks)
