"""Reads the folder that Kilosort writes and phy curates."""

import csv
import pathlib
import re

import numpy as np
from jaxtyping import Float

from dicjax.recordings.readers.common import check_size, grouped, reading, Train, vector
from dicjax.recordings.readers.units import samples_at


# Labels by people come before labels by Kilosort.
_VERDICTS = (
    ("cluster_group.tsv", "group"),
    ("cluster_info.tsv", "group"),
    ("cluster_info.tsv", "KSLabel"),
    ("cluster_KSLabel.tsv", "KSLabel"),
)
TIMES, CLUSTERS = "spike_times.npy", "spike_clusters.npy"
TEMPLATES, PARAMS = "spike_templates.npy", "params.py"
# All files that are read from the folder.
PARTS = (TIMES, CLUSTERS, TEMPLATES, PARAMS, *dict(_VERDICTS))
_RATE = re.compile(
    r"^[ \t]*sample_rate[ \t]*=[ \t]*(\d+\.?\d*(?:e\+?\d+)?)[ \t]*(?:#.*)?$",
    re.ASCII | re.MULTILINE | re.IGNORECASE,
)


def is_kilosort(path: pathlib.Path) -> bool:
    return (path / TIMES).is_file()


def read_kilosort(path: pathlib.Path) -> list[Train]:
    times = _column(path / TIMES)
    named = path / CLUSTERS
    clusters = _column(named if named.is_file() else path / TEMPLATES)
    if times.shape != clusters.shape:
        raise ValueError(
            f"{path.name}: spike_times.npy has {times.size} spikes and their clusters "
            f"are {clusters.size}: export the folder again."
        )
    rate, verdicts = _sample_rate(path), _verdicts(path)
    unit = "samples" if rate is None else samples_at(rate)
    units = grouped(path, clusters.astype(np.int64), times)
    trains = []
    for name, own in units.items():
        verdict = verdicts.get(name, "")
        caution = "is multi-unit activity by its label" if verdict == "mua" else ""
        if verdict != "noise":
            trains.append(Train(name, own, unit, caution=caution))
    return trains


def _column(path: pathlib.Path) -> Float[np.ndarray, " spikes"]:
    if not path.is_file():
        raise ValueError(
            f"{path.parent.name} has no spike_clusters.npy: give the folder that "
            "Kilosort wrote."
        )
    check_size(path, path.stat().st_size)
    with reading(path, "a NumPy file of whole numbers"), path.open("rb") as file:
        return vector(path, path.stem, np.load(file, allow_pickle=False))


def _text(path: pathlib.Path) -> str:
    check_size(path, path.stat().st_size)
    with reading(path, "open to you"):
        return path.read_text("utf-8", errors="replace")


def _sample_rate(path: pathlib.Path) -> float | None:
    params = path / PARAMS
    # It is Python code, which is not run since it could do anything.
    found = _RATE.search(_text(params)) if params.is_file() else None
    return float(found[1]) if found and 0 < float(found[1]) < np.inf else None


def _verdicts(path: pathlib.Path) -> dict[str, str]:
    for name, column in _VERDICTS:
        file = path / name
        if not file.is_file():
            continue
        lines = _text(file).splitlines()
        with reading(file, "a table of clusters"):
            rows = list(csv.DictReader(lines, delimiter="\t"))
        verdicts = {
            (row.get("cluster_id") or row.get("id") or ""): row[column].strip()
            for row in rows
            if row.get(column)
        }
        if verdicts:
            return verdicts
    return {}
