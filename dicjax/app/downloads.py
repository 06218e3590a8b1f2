"""Downloads of a run, each as one file."""

import io
import pathlib
import tempfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dicjax.app.runs import Outcome
from dicjax.inference import find_neuron
from dicjax.output import export_csv, export_neuron, export_xlsx


class Download(NamedTuple):
    """A kind of file: its label, its purpose, and the function that makes it."""

    label: str
    note: str
    suffix: str
    make: Callable[[Outcome], bytes]


def _csv(outcome: Outcome) -> bytes:
    return _of_file(lambda path: export_csv(outcome.population, path), ".csv")


def _xlsx(outcome: Outcome) -> bytes:
    return _of_file(lambda path: export_xlsx(outcome.population, path), ".xlsx")


def _parquet(outcome: Outcome) -> bytes:
    files = (path for path in sorted(outcome.folder.iterdir()) if path.is_file())
    return _zipped(outcome.folder.name, {path.name: path for path in files})


def _neuron(outcome: Outcome) -> bytes:
    neuron, _ = find_neuron(str(outcome.about.get("model")))
    rows = outcome.shown
    members = outcome.population.members[rows].tolist()
    with tempfile.TemporaryDirectory(prefix="neuron-") as name:
        folder = pathlib.Path(name) / "neuron"
        export_neuron(
            neuron, outcome.g[rows].astype(np.float32), folder, members=members
        )
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        named = {path.relative_to(folder).as_posix(): path for path in files}
        return _zipped(f"{outcome.folder.name}_neuron", named)


def _report(outcome: Outcome) -> bytes:
    path = outcome.folder / "report.html"
    if not path.exists():
        raise ValueError("This run has no report: the tables hold all numbers.")
    return path.read_bytes()


DOWNLOADS = {
    "xlsx": Download("Excel", "all tables, with spikes", ".xlsx", _xlsx),
    "csv": Download("CSV", "a row per member", ".csv", _csv),
    "report": Download("Report", "a page with all figures", ".html", _report),
    "neuron": Download("NEURON", "members to run, as a zip", "_neuron.zip", _neuron),
    "parquet": Download("All files", "the run's folder, as a zip", ".zip", _parquet),
}


def _of_file(write: Callable[[pathlib.Path], None], suffix: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        path = pathlib.Path(folder) / f"models{suffix}"
        write(path)
        return path.read_bytes()


def _zipped(top: str, files: dict[str, pathlib.Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            archive.write(path, f"{top}/{name}")
    return buffer.getvalue()
