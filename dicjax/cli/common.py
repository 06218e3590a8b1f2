"""Common parts of commands."""

import abc
import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
from tyro.conf import arg, OmitArgPrefixes, Positional
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from dicjax._core import (
    Advice,
    check_destination,
    check_numbers,
    deliver,
    duration,
    FIRST_RUN,
    Held,
    holding_interrupts,
    is_first_run,
    Pace,
    reason_of,
    Remedy,
    Stage,
    stage_words,
    write_csv,
)
from dicjax.inference import find_neuron
from dicjax.neurons import MODELS, Neuron
from dicjax.simulation import Drive


Flat = OmitArgPrefixes
Table = Annotated[
    pathlib.Path | None,
    arg(help="CSV to write; the terminal if not given.", metavar="TABLE"),
]
WORDS = ConstructorRegistry()
LIVE, QUIET = 1.0, 10.0  # s between lines on a terminal, and in a log


@WORDS.primitive_rule
def _number(of: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Numbers, which help calls NUMBER where an option has no better word."""
    if of.type not in (int, float):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER",
        instance_from_str=lambda args: of.type(args[0]),
        is_instance=lambda x: isinstance(x, int if of.type is int else (int, float)),
        str_from_instance=lambda x: [str(x)],
    )


class Command(abc.ABC):
    """A command; its fields are its options."""

    def execute(self) -> int:
        """Runs the command, once its numbers are sound and its results have a place."""
        check_numbers(self, functools.partial(_option, type(self)))
        self.check_out()
        return self.run()

    def check_out(self) -> None:  # noqa: B027
        """Raises `ValueError` if the results cannot or may not be written."""

    @abc.abstractmethod
    def run(self) -> int:
        """Runs the command; returns the exit status: 0, or 1 if done in part."""


def _option(command: type, names: tuple[str, ...]) -> str:
    """An option, from the fields that lead to its value."""
    (flat,) = get_args(Flat[int])[1:]
    first, *rest = names
    for i, name in enumerate(names[:-1]):
        hint = get_type_hints(command, include_extras=True)[name]
        if flat in getattr(hint, "__metadata__", ()):
            return ".".join([*names[:i], names[-1]])
        command = get_args(hint)[0] if get_args(hint) else hint
    return ".".join([first, *rest])


@dataclasses.dataclass(frozen=True)
class Group(Command):
    """Several commands under one name."""

    command: Any

    def execute(self) -> int:
        return self.command.execute()

    def run(self) -> int:
        return self.command.run()


Drawings = Mapping[str, Callable[[pathlib.Path], object]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderCommand(Command):
    """A command that writes a folder, whole or not at all."""

    out: Annotated[pathlib.Path, arg(metavar="FOLDER")]
    """Folder to write; it must not exist yet."""
    overwrite: bool = False
    """Replace the content of the folder, if dicjax wrote all of it."""

    def check_out(self) -> None:
        from dicjax.output import check_folder

        check_destination(self.out)
        check_apart(self, self.out)
        check_folder(self.out, self.overwrite)

    def write(
        self,
        data: Callable[[pathlib.Path], object],
        drawings: Drawings = types.MappingProxyType({}),
    ) -> None:
        """Makes the folder: `data` writes tables, and then each drawing its file.

        A drawing that fails, or that Ctrl-C ends, is left out, and a note says so.
        """
        from dicjax.output import write_folder

        lost: dict[str, str] = {}
        with holding_interrupts() as held:

            def fill(folder: pathlib.Path) -> None:
                data(folder)
                lost.clear()
                for name, draw in drawings.items():
                    if reason := _failure(draw, folder / name, held):
                        lost[name] = reason

            try:
                write_folder(self.out, self.overwrite, fill)
            finally:
                for name, reason in lost.items():
                    note(f"{name} is missing: {reason}. The tables are complete.")


def _failure(
    draw: Callable[[pathlib.Path], object], path: pathlib.Path, held: Held
) -> str:
    """Why a drawing could not be made, or nothing."""
    from dicjax.output import style

    if held.interrupted:
        return "stopped"
    try:
        with held.released(), style.own_style():
            draw(path)
    except KeyboardInterrupt:
        reason = "stopped"
    except Exception as error:
        reason = f"{type(error).__name__}: {reason_of(error)}".splitlines()[0]
    else:
        return ""
    path.unlink(missing_ok=True)
    return reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableCommand(Command):
    """A command that writes a table."""

    out: Table = None

    def check_out(self) -> None:
        if self.out is None:
            return
        check_destination(self.out)
        check_apart(self, self.out)
        if self.out.is_dir():
            raise ValueError(f"{self.out} is a folder: name a file in it.")

    def write_table(self, columns: Mapping[str, Any]) -> None:
        """Writes columns as CSV, or as readable lines on a terminal."""
        if self.out is None:
            print_table(columns)
        else:
            write = lambda path: write_table(columns, path)
            with holding_interrupts():
                deliver(self.out, write, is_folder=False)


def draw_apart(draw: Callable[[pathlib.Path], object], path: pathlib.Path) -> None:
    """Draws a figure into a file beside results that exist; a note says if it fails."""
    if reason := _failure(draw, path, Held()):
        note(f"{path} is missing: {reason}.")


def check_apart(command: Command, out: pathlib.Path) -> None:
    """Raises `ValueError` if results would replace what the command reads."""
    for path in _inputs(command):
        if out.resolve() in (path.resolve(), *path.resolve().parents):
            raise ValueError(
                Advice(
                    f"{out} holds {path}, which is read and would be replaced: choose "
                    "another ",
                    Remedy("out"),
                    ".",
                )
            )


def _inputs(settings: Any) -> Iterator[pathlib.Path]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _inputs(value)
        elif isinstance(value, pathlib.Path) and field.name not in ("out", "data"):
            yield value


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelsCommand(Command):
    """A command that reads a table of models."""

    models: Annotated[Positional[pathlib.Path], arg(metavar="MODELS")]
    """models.parquet, models.csv, or their folder."""
    model: Annotated[str | None, arg(metavar="MODEL")] = None
    """A model's name, a Python file that declares a neuron, or a checkpoint's folder;
    needed if the table does not name its model. A Python file is run, so name only
    files that you trust."""

    def read_models(self) -> tuple[Neuron, np.ndarray]:
        """The neuron of the table, and conductances."""
        from dicjax.output import read_models

        if self.model is not None:
            neuron, _ = find_neuron(self.model)
            return neuron, read_models(self.models, neuron)[1]
        name, g = read_models(self.models)
        return MODELS[name](), g

    def read_drive(self) -> tuple[Drive, np.ndarray] | None:
        """The input that the table gives its models, if any, and their numbers."""
        from dicjax.output import read_population

        population = read_population(self.models)
        drive = population.drive
        return None if drive is None else (drive, population.members)


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
                say("", end="\r\x1b[K")

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
            say(line, end)

    def _tick(self) -> None:
        while not self._over.wait(LIVE):
            self._show()


def say(message: str, end: str = "\n") -> None:
    """Prints a message, which is not a result, to standard error.

    A terminal or a pipe that is gone must not end the work.
    """
    with contextlib.suppress(OSError, ValueError):
        print(message, end=end, file=sys.stderr, flush=True)


def note(message: str) -> None:
    """Prints what the user should know about a result."""
    say(f"Note: {message}")


def check_new(out: pathlib.Path, data: pathlib.Path | None = None) -> None:
    """Raises `ValueError` if a checkpoint's folder exists or cannot be made.

    So it does if nothing can be kept in the folder `data`.
    """
    check_destination(out)
    if os.path.lexists(out):
        raise ValueError(f"{out} exists already; name another folder.")
    if data is not None:
        check_destination(data / "tried")


def print_table(columns: Mapping[str, Any]) -> None:
    """Prints columns as CSV, or as readable lines on a terminal."""
    if sys.stdout.isatty():
        columns = {name: np.asarray(x).tolist() for name, x in columns.items()}
        print(as_lines(columns, shutil.get_terminal_size().columns))
        return
    sink = pa.BufferOutputStream()
    write_csv(_table(columns), sink)
    print(sink.getvalue().to_pybytes().decode(), end="")


def write_table(columns: Mapping[str, Any], path: pathlib.Path) -> None:
    """Writes columns as CSV."""
    write_csv(_table(columns), path)


def _table(columns: Mapping[str, Any]) -> pa.Table:
    # Single precision has seven digits.
    short = lambda x: float(f"{x:.7g}") if isinstance(x, float) else x
    listed = {name: np.asarray(x).tolist() for name, x in columns.items()}
    return pa.table({name: [*map(short, x)] for name, x in listed.items()})


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
