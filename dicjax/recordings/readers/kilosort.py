"""Reads the folder that Kilosort writes and phy curates."""

import csv
import pathlib
import re
import warnings
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float

from dicjax.recordings.readers.common import (
    check_size,
    grouped,
    listing,
    reading,
    Train,
    vector,
)
from dicjax.recordings.readers.units import is_rate, samples_at


# Labels by people come before labels by Kilosort, for each cluster. Old versions of phy
# write the names that end in .csv, with tabs in spite of it.
_BY_PEOPLE = (
    ("cluster_group.tsv", "group"),
    ("cluster_groups.csv", "group"),
    ("cluster_group.csv", "group"),
    ("cluster_info.tsv", "group"),
    ("cluster_info.csv", "group"),
)
_BY_KILOSORT = (
    ("cluster_KSLabel.tsv", "KSLabel"),
    ("cluster_KSLabel.csv", "KSLabel"),
    ("cluster_info.tsv", "KSLabel"),
    ("cluster_info.csv", "KSLabel"),
)
_LEFT_OUT = ("noise", "unsorted")
TIMES, CLUSTERS = "spike_times.npy", "spike_clusters.npy"
TEMPLATES, PARAMS = "spike_templates.npy", "params.py"
# All files that are read from the folder.
PARTS = (TIMES, CLUSTERS, TEMPLATES, PARAMS, *dict(_BY_PEOPLE + _BY_KILOSORT))
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
    rate, unit = _sample_rate(path), "samples"
    if rate is not None:
        unit = samples_at(rate)
    units = grouped(path, clusters.astype(np.int64), times)
    by_people = _verdicts(path, _BY_PEOPLE, units)
    # Some programs mark every cluster so before anybody has looked at one.
    by_hand = {x: v for x, v in by_people.items() if v != "unsorted"}
    unsorted = {x: v for x, v in by_people.items() if v == "unsorted" and by_hand}
    verdicts = unsorted | _verdicts(path, _BY_KILOSORT, units) | by_hand
    trains = []
    for name, own in units.items():
        verdict, caution = verdicts.get(name), ""
        if verdict == "mua":
            caution = "is multi-unit activity by its label"
        elif verdict is None and by_hand:
            caution = "has no label, unlike others: nobody may have looked at it"
        if verdict not in _LEFT_OUT:
            trains.append(Train(name, own, unit, caution=caution))
    _warn(path, verdicts, bool(by_hand), [*units])
    if not trains:
        raise ValueError(
            f"{path.name}: every cluster is labelled noise or unsorted: label the "
            "neurons in phy, as good or mua."
        )
    return trains


def _warn(
    path: pathlib.Path, verdicts: dict[str, str], is_curated: bool, names: list[str]
) -> None:
    """Says what was left out, and what nobody has looked at."""
    left_out = [f"{x} ({verdicts[x]})" for x in names if verdicts.get(x) in _LEFT_OUT]
    if not is_curated:
        by = "only Kilosort has labelled" if verdicts else "nothing labels"
        left = f", without {listing(left_out)}" if left_out else ""
        message = (
            f"{path.name}: {by} its clusters, and nobody has curated them{left}: "
            "noise and several cells may be among them. Curate the folder in phy."
        )
    elif left_out:
        message = f"{path.name}: left out by their labels: {listing(left_out)}."
    else:
        return
    warnings.warn(message, stacklevel=6)


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
    return float(found[1]) if found and is_rate(float(found[1])) else None


def _verdicts(
    path: pathlib.Path, tables: Sequence[tuple[str, str]], names: Collection[str]
) -> dict[str, str]:
    """The label of each cluster, in small letters, in the first table that has one."""
    found = {}
    for name, column in tables:
        file = path / name
        if not file.is_file():
            continue
        lines = _text(file).lstrip("\ufeff").splitlines()
        mark = "\t" if "\t" in "".join(lines[:1]) else ","
        with reading(file, "a table of clusters"):
            rows = list(csv.DictReader(lines, delimiter=mark))
        for row in rows:
            cells = {(key or "").strip().casefold(): row[key] for key in row if key}
            label = (cells.get(column.casefold()) or "").strip().casefold()
            cluster = (cells.get("cluster_id") or cells.get("id") or "").strip()
            if label and cluster in names:
                found.setdefault(cluster, label)
    return found
