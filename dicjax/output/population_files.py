"""A population on disk: tables, spike times and what they mean, in one folder."""

import json
import pathlib
import platform
import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from pyarrow import csv, parquet

from dicjax._core import Advice, Overrun, Remedy, tidy, versions, write_csv
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
from dicjax.output.driven import (
    CHECKED_ANEW,
    CHECKED_ONCE_MORE,
    DISTRIBUTION_DISTANCE,
    drive_about,
    drive_columns,
    NOISE,
    within_words,
)
from dicjax.output.files import render, write_text, writing
from dicjax.output.folders import (
    FORMAT,
    MANIFEST,
    read_manifest,
    VERSION,
    write_manifest,
)
from dicjax.output.parquet_files import read_parquet
from dicjax.simulation import Drive, Run
from dicjax.spikes import spike_features


COUNTS = ("num_asked", "num_accepted", "num_simulated", "num_uncertified")

DISTANCE = "largest |ln(member / recording)| of the features that decide"
ACCEPTED = "fires like the recording {}, {}"
OTHER_START = "accepted, and still fires like the recording from another start"
ROBUSTNESS = (
    "share of other conductances, currents, noise and temperature under which it still "
    "fires like the recording; empty if not accepted"
)


def write_population(result: Generated, folder: pathlib.Path) -> None:
    """Writes a population into `folder`, which exists; each file whole or not at all.

    `models.parquet` and `models.csv` have a row per member, `spikes.parquet` its spike
    times, `manifest.json` how all came about and `README.txt` what columns mean.
    """
    columns = {
        **conductance_columns(result.neuron, result.g),
        **dic_columns(result.dics, result.V_th),
        **drive_columns(result.drive),
        **feature_columns(result.features),
        "distance": (result.distance, "1", DISTANCE),
        **_distribution_columns(result),
        "accepted": (result.accepted, "", _accepted(result)),
        **_robustness_columns(result),
    }
    clock = f"since the start of {result.duration:g} ms simulated, of which the first "
    clock += f"{result.discard:g} ms are left out"
    title = (
        f"A population of {len(result.g)} {result.neuron.name} neurons, "
        f"{result.num_accepted} of which fire like\n"
        f"{file_name(result.train.source) or 'the recording'} "
        f"{_within(result)} (made with dicjax)."
    )
    more = NOISE if result.drive is not None else ""
    about = _manifest(result)
    _write(folder, title, columns, result.spike_times, clock, about, more)


def write_simulation(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"],
    run: Run,
    folder: pathlib.Path,
    *,
    drive: Drive | None = None,
    members: Int[np.ndarray, " cells"] | None = None,
    applied: Mapping[str, Any] | None = None,
) -> None:
    """Writes simulated cells in the form of a population.

    `neuron` is their model, `g` holds maximal conductances (mS/cm²), `drive` what they
    had, if any, `members` their numbers, from 0 by default, and `folder` exists.
    `applied` is what the manifest shall say of what was applied.
    """
    columns = {
        **conductance_columns(neuron, g, members),
        **drive_columns(drive),
        **feature_columns(spike_features(run.spike_times)),
        **run_columns(run),
    }
    about = {**_about(neuron.name), "num_simulated": len(g), **(applied or {})}
    title = f"{len(g)} simulated {neuron.name} neurons (made with dicjax)."
    clock = "since the start of the simulation"
    _write(folder, title, columns, np.asarray(run.spike_times), clock, about)


def run_columns(run: Run) -> dict[str, Column]:
    return {
        "num_spikes": (run.num_spikes, "1", "number of spikes"),
        "succeeded": (run.succeeded, "", "stayed finite, and no spike was lost"),
        "overflowed": (run.overflowed, "", "fired more often than could be recorded"),
        "fell_short": (run.fell_short, "", "rose like a spike, but not up to V_spike"),
    }


def read_models(
    path: pathlib.Path | str, neuron: Neuron | None = None
) -> tuple[str, Float[np.ndarray, "cells channels"]]:
    """A model's name, and conductances (mS/cm²) in the order of its `channel_names`.

    `path` is the folder, or `models.parquet` or `models.csv` in it. Columns are matched
    by name, so their order and whatever else is in the table do not matter. `neuron` is
    the model, where the files do not say or it is none that ships. A `ValueError`
    refuses a table that is missing or of an unknown model, and conductances that are
    missing, of no channel, or not finite, non-negative numbers.
    """
    path = models_file(pathlib.Path(path))
    table = read_table(path)
    neuron = neuron if neuron is not None else _neuron_of(path, table)
    wanted = [f"g_{name}" for name in neuron.channel_names]
    found = [c for c in table.column_names if c.startswith("g_")]
    found = [c for c in found if c in wanted or c not in DICS]
    for problem, wrong in (
        ("lacks", {*wanted} - {*found}),
        ("must not have", {*found} - {*wanted}),
        ("has more than once", Counter(found) - Counter(wanted)),
    ):
        if wrong:
            raise ValueError(
                f"{path} {problem} {', '.join(sorted(wrong))}: give one column for "
                f"each of {', '.join(wanted)} ({neuron.name})."
            )
    g = [_numbers(path, name, table.column(name)) for name in wanted]
    return neuron.name, np.stack(g, axis=1)


def _manifest(result: Generated) -> dict[str, Any]:
    of = lambda *names: {name: getattr(result, name) for name in names}
    settings, train = dict(result.settings), result.train
    certificate = result.certificate
    shares = certificate and {
        name: {"valid": valid, "interval": interval, "same_pattern": same}
        for name, valid, *interval, same in certificate.shares()
    }
    features = feature_columns(result.target).items()
    return {
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
            "observed": train.observed.tolist(),
            "features": {name: x.tolist()[0] for name, (x, *_) in features},
        },
        **of("tolerance", *COUNTS),
        **drive_about(result),
        "certificate": shares,
        "rounds": [vars(x) for x in result.rounds],
        **of("participation_ratio", "duration", "discard", "seconds"),
        "started": settings.pop("started", None),
        "finished": settings.pop("finished", None),
        "settings": settings,
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
    more: str = "",
) -> None:
    metadata = {name: str(about[name]) for name in ("format", "version", "model")}
    spikes: dict[str, Column] = {
        "member": (columns["member"][0], "", "as in models.parquet"),
        "spike_times": (spike_lists(spike_times), "ms", clock),
    }
    lines = column_lines(columns)
    more = textwrap.fill(more, 88)
    texts = {"title": title, "clock": clock, "columns": lines, "more": more}
    write_text(folder / "README.txt", render("population.readme.jinja", texts))
    for name, write, table in (
        ("models.parquet", parquet.write_table, columns),
        ("models.csv", write_csv, columns),
        ("spikes.parquet", parquet.write_table, spikes),
    ):
        with writing(folder / name) as path:
            write(table_of(table, metadata), path)
    write_manifest(folder, _plain(about))


def _accepted(result: Generated) -> str:
    is_driven = result.drive is not None
    checked = CHECKED_ANEW if is_driven else CHECKED_ONCE_MORE
    return ACCEPTED.format(_within(result), checked)


def _within(result: Generated) -> str:
    return within_words(f"{result.tolerance:.0%}", result.agreement)


def _distribution_columns(result: Generated) -> dict[str, Column]:
    """How far intervals are from the recording's, where members are judged by it."""
    if result.agreement is None:
        return {}
    distance = np.asarray(result.distribution_distance)
    return {"distribution_distance": (distance, "1", DISTRIBUTION_DISTANCE)}


def _robustness_columns(result: Generated) -> dict[str, Column]:
    """What accepted members stay valid under, as far as it was tried."""
    certificate, accepted = result.certificate, result.accepted
    columns: dict[str, Column] = {}
    if certificate and (start := certificate.along("start")):
        from_there = np.zeros(len(accepted), bool)
        from_there[accepted] = start.valid[:, 0]
        columns["from_another_start"] = (from_there, "", OTHER_START)
    if certificate and np.isfinite(certificate.robustness).all():
        share = np.full(len(accepted), np.nan)
        share[accepted] = certificate.robustness
        columns["robustness"] = (share, "1", ROBUSTNESS)
    return columns


def models_file(path: pathlib.Path) -> pathlib.Path:
    """The table of models in a folder, or at `path` itself, or a `ValueError`."""
    tables = [path / "models.parquet", path / "models.csv"] if path.is_dir() else [path]
    for table in tables:
        if table.suffix in (".parquet", ".csv") and table.exists():
            return table
    raise ValueError(
        f"{path} holds no table of models: give a folder that dicjax wrote, or its "
        "models.parquet or models.csv."
    )


def read_table(path: pathlib.Path) -> pa.Table:
    """A table of CSV or Parquet, or a `ValueError` if it cannot be read."""
    try:
        if path.suffix == ".csv":
            return csv.read_csv(path)
        return read_parquet(path)
    except (pa.ArrowException, OSError, UnicodeError, MemoryError, Overrun) as error:
        reason = tidy([*str(error).splitlines(), "there is no memory for it"][0])
        raise ValueError(
            f"{path} cannot be read as a table ({reason.strip(' .:')}): write it again."
        ) from error


def _neuron_of(path: pathlib.Path, table: pa.Table) -> Neuron:
    name = (table.schema.metadata or {}).get(b"model", b"").decode()
    name = name or str(read_manifest(path.parent).get("model") or "")
    if name not in MODELS:
        problem = f"is of the model {name!r}" if name else "does not say of which model"
        raise ValueError(
            Advice(
                f"{path} {problem}: keep it beside its {MANIFEST}, or name its model "
                "by ",
                Remedy("model"),
                f": one of {', '.join(MODELS)}, or a Python file that declares it.",
            )
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
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _plain(x: Any) -> Any:
    """As JSON holds it, which knows neither arrays nor numbers that are not finite."""
    to_text = lambda x: x.tolist() if hasattr(x, "tolist") else str(x)
    return json.loads(json.dumps(x, default=to_text), parse_constant=lambda _: None)
