"""A population on disk: tables, spike times and what they mean, in one folder."""

import datetime
import json
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from pyarrow import csv, parquet

from dicjax._core import replacing, replacing_folder, versions
from dicjax.dics import (
    Column,
    column_lines,
    conductance_columns,
    dic_columns,
    DICS,
    feature_columns,
    spike_lists,
    table_of,
)
from dicjax.generation import Generated
from dicjax.neurons import MODELS, Neuron
from dicjax.populations import Certificate
from dicjax.simulation import Run
from dicjax.spikes import spike_features


FORMAT = "dicjax-population"
VERSION = 1
MANIFEST = "manifest.json"


def write_population(result: Generated, folder: pathlib.Path) -> None:
    """Writes a population into `folder`, which exists; each file whole or not at all.

    `models.parquet` and `models.csv` have a row per member, `spikes.parquet` its spike
    times, `manifest.json` how all came about and `README.txt` what columns mean.
    """
    columns = _columns(result)
    clock = f"since the start of {result.duration:g} ms simulated, of which the first "
    clock += f"{result.discard:g} ms are left out"
    title = (
        f"A population of {len(result.g)} {result.neuron.name} neurons, "
        f"{result.num_accepted} of which fire like\n"
        f"{file_name(result.train.source) or 'the recording'} within "
        f"{result.tolerance:.0%} (made with dicjax)."
    )
    _write(folder, title, columns, result.spike_times, clock, manifest(result))


def write_simulation(
    model: str,
    g: Float[np.ndarray, "cells channels"],
    run: Run,
    folder: pathlib.Path,
) -> None:
    """Writes simulated cells in the form of a population.

    **Arguments:**

    - `model`: name of the model that ships.
    - `g`: maximal conductances, in mS/cm².
    - `run`: what came of simulating them.
    - `folder`: to write into; it exists.
    """
    columns: dict[str, Column] = {
        **conductance_columns(MODELS[model](), g),
        **feature_columns(spike_features(run.spike_times)),
        **run_columns(run),
    }
    about = {**_about(model), "num_simulated": len(g)}
    title = f"{len(g)} simulated {model} neurons (made with dicjax)."
    clock = "since the start of the simulation"
    _write(folder, title, columns, run.spike_times, clock, _as_json(about))


def run_columns(run: Run) -> dict[str, Column]:
    """The columns of how often cells fired, and whether their simulation failed."""
    return {
        "num_spikes": (run.num_spikes, "1", "number of spikes"),
        "succeeded": (run.succeeded, "", "stayed finite, and no spike was lost"),
        "overflowed": (run.overflowed, "", "fired more often than could be recorded"),
    }


def read_models(
    path: pathlib.Path | str, neuron: Neuron | None = None
) -> tuple[str, Float[np.ndarray, "cells channels"]]:
    """Reads the conductances of a population back.

    **Arguments:**

    - `path`: the folder, or `models.parquet` or `models.csv` in it. Columns are matched
        by name, so their order and whatever else is in the table do not matter.
    - `neuron`: the model, where the files do not say or it is none that ships.

    **Returns:**

    The model's name, and conductances in mS/cm², ordered as its `channel_names`.

    **Raises:**

    - `ValueError`: if there is no such table, its model is unknown, or a conductance is
        missing, of no channel, or not a finite, non-negative number.
    """
    path = models_file(pathlib.Path(path))
    table = read_table(path)
    neuron = neuron if neuron is not None else _neuron_of(path, table)
    wanted = [f"g_{name}" for name in neuron.channel_names]
    found = [c for c in table.column_names if c.startswith("g_")]
    extra = [c for c in found if c not in (*wanted, *DICS)]
    for problem, names in (
        ("lacks", [c for c in wanted if c not in found]),
        ("has, beyond the channels of the model,", extra),
        ("has more than once", [c for c in wanted if found.count(c) > 1]),
    ):
        if names:
            raise ValueError(
                f"{path} {problem} {', '.join(names)}: give one column for each of "
                f"{', '.join(wanted)} ({neuron.name})."
            )
    g = [_numbers(path, name, table.column(name)) for name in wanted]
    return neuron.name, np.stack(g, axis=1)


def check_folder(folder: pathlib.Path | str, overwrite: bool) -> pathlib.Path:
    """The absolute path of `folder`, or a `ValueError` if it may not be written."""
    path = pathlib.Path(folder).resolve()
    if not path.exists():
        return path
    if not path.is_dir():
        raise ValueError(f"{folder} is a file: choose another folder to write to.")
    if not any(path.iterdir()):
        return path
    if not _is_ours(path):
        raise ValueError(
            f"{folder} holds files that are not a population of dicjax, which would be "
            "lost: choose a folder that is empty or new."
        )
    if not overwrite:
        raise ValueError(
            f"{folder} already holds a population: choose another folder, or pass "
            "`--overwrite` to replace it."
        )
    return path


def write_folder(
    folder: pathlib.Path | str,
    overwrite: bool,
    write: Callable[[pathlib.Path], None],
) -> None:
    """Makes a folder whole or not at all.

    `write` fills a temporary folder beside it, which takes its place once complete. An
    older population is replaced only with `overwrite`, and only then.

    **Arguments:**

    - `folder`: the folder to make; parents are made as needed.
    - `overwrite`: whether a population that is there may be replaced. Folders with
        anything else in them never are.
    - `write`: what writes the files, given the temporary folder.

    **Raises:**

    - `ValueError`: if `folder` may not be written.
    """
    path = check_folder(folder, overwrite)
    with replacing_folder(path) as partial:
        write(partial)
        check_folder(folder, overwrite)  # writing took time


def manifest(result: Generated) -> dict[str, Any]:
    """How a population came about, as JSON can say it."""
    settings = dict(result.settings)
    train, target = result.train, result.target
    about = {
        **_about(result.neuron.name),
        "channels": result.neuron.channel_names,
        "V_ref": float(result.neuron.V_ref),
        "source": {
            "file": file_name(train.source),
            "sha256": settings.pop("source_sha256", None),
            "unit": train.name,
            "num_spikes": train.num_spikes,
            "t_start": train.t_start,
            "t_stop": train.t_stop,
            "features": {
                name: x.tolist()[0] for name, (x, *_) in feature_columns(target).items()
            },
        },
        "tolerance": result.tolerance,
        "num_asked": result.num_asked,
        "num_accepted": result.num_accepted,
        "num_simulated": result.num_simulated,
        "num_uncertified": result.num_uncertified,
        "certificate": _shares_by_check(result.certificate),
        "rounds": [vars(x) for x in result.rounds],
        "participation_ratio": result.participation_ratio,
        "duration": result.duration,
        "discard": result.discard,
        "seconds": result.seconds,
        "started": settings.pop("started", None),
        "finished": settings.pop("finished", None),
        "settings": settings,
    }
    return _as_json(about)


def _shares_by_check(certificate: Certificate | None) -> dict[str, Any] | None:
    if certificate is None:
        return None
    return {
        name: {"valid": valid, "interval": interval, "same_pattern": same}
        for name, valid, *interval, same in certificate.shares()
    }


def file_name(source: str) -> str:
    """The last part of a path of any system, so that folders stay private."""
    return pathlib.PureWindowsPath(source).name


def _about(model: str) -> dict[str, Any]:
    made_with = versions()
    return {
        "format": FORMAT,
        "version": VERSION,
        "dicjax": made_with["dicjax"],
        "versions": {"python": platform.python_version(), **made_with},
        "model": model,
        "units": {"time": "ms", "potential": "mV", "conductance": "mS/cm2"},
    }


def _write(
    folder: pathlib.Path,
    title: str,
    columns: dict[str, Column],
    spike_times: Float[np.ndarray, "cells spikes"],
    clock: str,
    about: dict[str, Any],
) -> None:
    metadata = {name: str(about[name]) for name in ("format", "version", "model")}
    models, spikes = table_of(columns, metadata), _spikes(spike_times, clock, metadata)
    with replacing(folder / "models.parquet") as path:
        parquet.write_table(models, path)
    with replacing(folder / "models.csv") as path:
        csv.write_csv(models, path)
    with replacing(folder / "spikes.parquet") as path:
        parquet.write_table(spikes, path)
    with replacing(folder / "README.txt") as path:
        path.write_text(_readme(title, clock, columns), encoding="utf-8")
    with replacing(folder / MANIFEST) as path:
        text = json.dumps(about, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def _columns(result: Generated) -> dict[str, Column]:
    return {
        **conductance_columns(result.neuron, result.g),
        **dic_columns(result.dics, result.V_th),
        **feature_columns(result.features),
        "distance": (
            result.distance,
            "1",
            "largest |ln(member / recording)| of the features that decide",
        ),
        "accepted": (
            result.accepted,
            "",
            "fires like the recording within tolerance, at half the time step too",
        ),
        **_robustness_columns(result),
    }


def _robustness_columns(result: Generated) -> dict[str, Column]:
    """What accepted members stay valid under, as far as it was tried."""
    certificate, accepted = result.certificate, result.accepted
    columns: dict[str, Column] = {}
    if certificate is None:
        return columns
    if start := certificate.along("start"):
        from_there = np.zeros(len(accepted), bool)
        from_there[accepted] = start.valid[:, 0]
        meaning = "accepted, and fires like the recording from another start too"
        columns["from_another_start"] = (from_there, "", meaning)
    if np.isfinite(certificate.robustness).all():
        share = np.full(len(accepted), np.nan)
        share[accepted] = certificate.robustness
        meaning = (
            "share of other conductances, currents, noise and temperature under which "
            "it still fires like the recording; empty if not accepted"
        )
        columns["robustness"] = (share, "1", meaning)
    return columns


def _spikes(times: np.ndarray, clock: str, about: dict[str, str]) -> pa.Table:
    rows = spike_lists(times)
    member = pa.array(np.arange(len(times), dtype=np.int32))
    fields = [
        pa.field("member", member.type, metadata={"meaning": "as in models.parquet"}),
        pa.field("spike_times", rows.type, metadata={"unit": "ms", "meaning": clock}),
    ]
    schema = pa.schema(fields, metadata=about)
    return pa.Table.from_arrays([member, rows], schema=schema)


def _readme(title: str, clock: str, columns: dict[str, Column]) -> str:
    lines = [
        title,
        "",
        "models.parquet, models.csv  a row per member, whose columns are below",
        "spikes.parquet              spike times of each member, in ms",
        "manifest.json               how it was made: settings, versions, yield",
        "",
        f"Spike times count {clock}.",
        "",
        *column_lines(columns),
    ]
    return "\n".join(lines) + "\n"


def models_file(path: pathlib.Path) -> pathlib.Path:
    """The table of models in a folder, or at `path` itself, or a `ValueError`."""
    if not path.is_dir():
        if not path.exists() or path.suffix not in (".parquet", ".csv"):
            raise ValueError(
                f"{path} is no table of models: give a folder that dicjax wrote, or "
                "its models.parquet or models.csv."
            )
        return path
    for name in ("models.parquet", "models.csv"):
        if (path / name).exists():
            return path / name
    raise ValueError(f"{path} holds neither models.parquet nor models.csv.")


def read_table(path: pathlib.Path) -> pa.Table:
    """A table of CSV or Parquet, or a `ValueError` if it cannot be read."""
    try:
        if path.suffix == ".csv":
            return csv.read_csv(path)
        return parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a table: {reason}") from error


def _neuron_of(path: pathlib.Path, table: pa.Table) -> Neuron:
    metadata = table.schema.metadata or {}
    name = metadata.get(b"model", b"").decode() or read_manifest(path.parent).get(
        "model"
    )
    if name not in MODELS:
        problem = f"is of the model {name!r}" if name else "does not say of which model"
        raise ValueError(
            f"{path} {problem}: keep it beside its {MANIFEST}, or name one of "
            f"{', '.join(MODELS)}."
        )
    return MODELS[name]()


def _numbers(path: pathlib.Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    values = column.to_numpy() if is_number else np.full(len(column), np.nan)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{name} is {column[row].as_py()} in row {row} of {path}, but conductances "
            "must be finite, non-negative numbers of mS/cm²."
        )
    return values.astype(values.dtype if values.dtype.kind == "f" else np.float64)


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of a folder, empty where there is none."""
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _is_ours(folder: pathlib.Path) -> bool:
    return read_manifest(folder).get("format") == FORMAT


def _as_json(x: Any) -> Any:
    if isinstance(x, dict):
        return {str(key): _as_json(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_as_json(value) for value in x]
    if hasattr(x, "tolist"):
        return _as_json(x.tolist())
    if isinstance(x, float):
        return x if np.isfinite(x) else None
    if isinstance(x, datetime.datetime | pathlib.PurePath):
        return str(x)
    return x if x is None or isinstance(x, (str, int, bool)) else repr(x)
