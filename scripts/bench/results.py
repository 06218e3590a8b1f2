"""What every benchmark yields, and how it is shown and stored.

A line of the file has the benchmark and its settings, what was measured, the values
with their unit, the machine, the versions, the commit and the date.
"""

import abc
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from scripts.bench.processes import cores, devices_of_jax, ROOT


Case = Mapping[str, str | int | float]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One quantity of one case.

    - `table`: what was measured, which is the heading of a table.
    - `case`: what distinguishes this row of the table from others, by name.
    - `quantity`, `unit`: the column. Shares and counts have no unit.
    - `values`: one for each repetition, seed or target.
    - `note`: why there are no values, such as a peer that is not installed.
    """

    table: str
    case: Case
    quantity: str = ""
    unit: str = ""
    values: tuple[float, ...] = ()
    note: str = ""

    @property
    def column(self) -> str:
        """The heading of the column."""
        return f"{self.quantity}, {self.unit}" if self.unit else self.quantity

    @property
    def cell(self) -> str:
        """The value; of several, the median with the smallest and the largest."""
        values = [x for x in self.values if not math.isnan(x)]
        if not values:
            return "-"
        median, *ends = (f(values) for f in (statistics.median, min, max))
        if min(values) == max(values):
            return in_digits(median)
        return f"{in_digits(median)} ({' to '.join(map(in_digits, ends))})"


def in_digits(x: float, digits: int = 4) -> str:
    """A number with so many significant digits, without an exponent if it has none."""
    if x == round(x) and abs(x) < 1e15:
        return f"{round(x):,}"
    if not math.isfinite(x) or abs(x) < 1e-4:
        return f"{x:.{digits - 1}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{x:,.{places}f}"


Values = float | Sequence[float]


def row(
    table: str, case: Case, columns: Mapping[tuple[str, str], Values]
) -> Iterator[Measurement]:
    """A measurement for each column, which is a quantity and its unit."""
    for (quantity, unit), values in columns.items():
        if isinstance(values, Sequence):
            many = tuple(float(x) for x in values)
        else:
            many = (float(values),)
        yield Measurement(table, case, quantity, unit, many)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(abc.ABC):
    """A command: its fields are its options, and its docstring is its help."""

    out: pathlib.Path | None = None
    """File to which measurements are appended, as lines of JSON."""

    @abc.abstractmethod
    def measure(self) -> Iterator[Measurement]:
        """Measures, and yields each result as soon as it is known."""

    def status(self, measurements: Sequence[Measurement]) -> int:
        """The exit status of the command."""
        del measurements
        return 0


def run(name: str, benchmark: Benchmark) -> int:
    """Measures, prints tables and appends to the file; the exit status."""
    own = dataclasses.asdict(benchmark)
    settings = {key: x for key, x in own.items() if key != "out"}
    about = {"benchmark": name, "settings": settings, **provenance()}
    on = *map(_in_one_line, (about["machine"], about["versions"])), about["commit"]
    print(f"{name}: {'; '.join(on)}", flush=True)
    measurements = []
    try:
        for x in _with_progress(benchmark.measure()):
            measurements.append(x)
            if benchmark.out is not None:
                append(benchmark.out, x, about)
    finally:  # also of a benchmark that was stopped
        print_tables(measurements)
    return benchmark.status(measurements)


def _in_one_line(about: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {x}" for key, x in about.items())


def _with_progress(measurements: Iterable[Measurement]) -> Iterator[Measurement]:
    """The same; each row is shown on standard error as it becomes complete."""
    pending: list[Measurement] = []

    def show() -> None:
        if pending:
            cells = ", ".join(f"{x.column} {x.cell}" for x in pending if x.quantity)
            where = ", ".join((pending[0].table, *map(str, pending[0].case.values())))
            print(f"  {where}: {cells or pending[0].note}", file=sys.stderr, flush=True)

    for x in measurements:
        if pending and (x.table, x.case) != (pending[0].table, pending[0].case):
            show()
            pending.clear()
        pending.append(x)
        yield x
    show()


def append(path: pathlib.Path, x: Measurement, about: Mapping[str, object]) -> None:
    """Appends one measurement to a file, with what it was measured on."""
    line = {**about, "date": _now(), "load": _load(), **dataclasses.asdict(x)}
    # JSON has no number for what is missing.
    line["values"] = [v if math.isfinite(v) else None for v in x.values]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, default=str, allow_nan=False) + "\n")


def print_tables(measurements: Iterable[Measurement]) -> None:
    """Prints a table for each heading, in the order in which they first came."""
    tables: dict[str, list[Measurement]] = {}
    for x in measurements:
        tables.setdefault(x.table, []).append(x)
    for title, of in tables.items():
        print(f"\n{title}\n")
        known = [x for x in of if not x.note]
        if known:
            print_aligned(*pivoted(known))
        for x in of:
            if x.note:
                print(": ".join((*map(str, x.case.values()), x.note)))
    sys.stdout.flush()


def pivoted(of: Sequence[Measurement]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for each case with a cell for each quantity.

    A table of a single case without a name is upright.
    """
    if not any(x.case for x in of):
        return ["quantity", "value"], [[x.column, x.cell] for x in of]
    names = list(dict.fromkeys(name for x in of for name in x.case))
    columns = list(dict.fromkeys(x.column for x in of))
    rows: dict[tuple, dict[str, str]] = {}
    for x in of:
        labels = tuple(str(x.case.get(name, "")) for name in names)
        rows.setdefault(labels, {})[x.column] = x.cell
    cells = [[*k, *(v.get(c, "-") for c in columns)] for k, v in rows.items()]
    return [*names, *columns], cells


def print_aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table whose columns are as wide as they need to be."""
    widths = [max(map(len, x)) for x in zip(headings, *rows, strict=True)]
    for line in (headings, ["-" * x for x in widths], *rows):
        cells = (x.ljust(width) for x, width in zip(line, widths, strict=True))
        print(f"| {' | '.join(cells)} |")


@functools.cache
def provenance() -> dict[str, dict | str]:
    """The machine, the versions and the commit that this process runs on."""
    devices = devices_of_jax()
    versions = {x: importlib.metadata.version(x) for x in ("jax", "numpy")}
    machine = {
        "processor": processor(),
        "cores": len(cores()),
        "device": devices[0],
        "num_devices": len(devices),
    }
    versions = {"python": platform.python_version(), "dicjax": _dicjax(), **versions}
    return {"machine": machine, "versions": versions, "commit": commit()}


def processor() -> str:
    """The model of the CPU."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The revision of the sources, if they are under version control."""
    command = ["git", "describe", "--dirty", "--always"]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        return ""


def _dicjax() -> str:
    import dicjax

    return dicjax.__version__


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _load() -> float | None:
    """Processes that were running, as a mean over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
