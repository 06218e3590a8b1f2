"""Downloads of a run, each as one file."""

import io
import pathlib
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from dicjax.app.runs import Outcome
from dicjax.neurons import MODELS
from dicjax.output import export_csv, export_neuron, export_xlsx


class Download(NamedTuple):
    label: str
    note: str
    suffix: str
    make: Callable[[Outcome], bytes]


def _table(export: Callable[..., None], suffix: str, outcome: Outcome) -> bytes:
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        path = pathlib.Path(folder) / f"models{suffix}"
        export(outcome.population, path)
        return path.read_bytes()


def _neuron(outcome: Outcome) -> bytes:
    model = str(outcome.about.get("model"))
    # A manifest is data: it may name a model that ships, and never code to run.
    if model not in MODELS:
        raise ValueError(
            f"This run is of the model {model!r}, which does not ship: export it by "
            "`dicjax export RESULTS --to neuron --model FILE.py`."
        )
    neuron = MODELS[model]()
    rows = outcome.shown
    members, g = outcome.population.members[rows], outcome.g[rows].astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="neuron-") as name:
        folder = pathlib.Path(name) / "neuron"
        drive = outcome.population.take(rows).drive
        export_neuron(neuron, g, folder, members=members.tolist(), drive=drive)
        return _zipped(folder, f"{outcome.folder.name}_neuron")


def _report(outcome: Outcome) -> bytes:
    path = outcome.folder / "report.html"
    if not path.exists():
        raise ValueError("This run has no report: take a table, which has all numbers.")
    return path.read_bytes()


def _zipped(folder: pathlib.Path, top: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(x for x in folder.rglob("*") if x.is_file()):
            archive.write(path, f"{top}/{path.relative_to(folder).as_posix()}")
    return buffer.getvalue()


_csv, _xlsx = partial(_table, export_csv, ".csv"), partial(_table, export_xlsx, ".xlsx")
_all = lambda outcome: _zipped(outcome.folder, outcome.folder.name)
DOWNLOADS = {
    "xlsx": Download("Excel", "all tables, with spikes", ".xlsx", _xlsx),
    "csv": Download("CSV", "a row for each model neuron", ".csv", _csv),
    "report": Download("Report", "a page with all figures", ".html", _report),
    "neuron": Download("NEURON", "all to run there, as a zip", "_neuron.zip", _neuron),
    "parquet": Download("All files", "the run's folder, as a zip", ".zip", _all),
}
