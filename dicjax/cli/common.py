"""Common parts of commands."""

import pathlib
import shutil
import sys
import threading
import time

import tyro

from dicjax._core import duration, FIRST_RUN, is_first_run, Pace, Stage, stage_words


File = tyro.conf.Positional[pathlib.Path]
Flat = tyro.conf.OmitArgPrefixes


LIVE, QUIET = 1.0, 10.0  # s between lines on a terminal, and in a log


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
            if not self.is_live:
                print(self.line(time.time()), file=sys.stderr, flush=True)
                return
            width = shutil.get_terminal_size().columns - 1
            line = self.line(time.time())[:width]
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._over.wait(LIVE):
            self._show()


def say(message: str) -> None:
    """Prints a message, which is not a result, to standard error."""
    print(message, file=sys.stderr)


def models_of(path: pathlib.Path, model: str | None):
    """The neuron of a table of models, and their conductances."""
    from dicjax.inference import find_neuron
    from dicjax.output import read_models

    if model is not None:
        neuron, _ = find_neuron(model)
        return neuron, read_models(path, neuron)[1]
    name, g = read_models(path)
    return find_neuron(name)[0], g


def write_table(columns: dict[str, list], out: pathlib.Path | None) -> None:
    """Writes columns as CSV, or as readable lines on a terminal if `out` is None."""
    import pyarrow as pa
    from pyarrow import csv

    from dicjax._core import replacing

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
