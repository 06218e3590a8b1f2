"""Runs: generates populations, saves them in folders and reads them back."""

import dataclasses
import datetime
import functools
import logging
import pathlib
import re
from collections.abc import Container
from typing import Any, NamedTuple

import jax
import numpy as np

from dicjax._core import advice_of, compiled_size, in_words, Remedy, Stage
from dicjax.app.jobs import Job
from dicjax.generation import generate, GenerateConfig, Generated
from dicjax.output import (
    density_of,
    most_different,
    potentials,
    read_manifest,
    read_population,
    shown,
    StoredPopulation,
    write_folder,
    write_population,
    write_report,
)
from dicjax.spikes import (
    Features,
    features_of,
    LABELS,
    pad_trains,
    spike_features,
    SpikeTrain,
)


LOG = logging.getLogger("dicjax.app")
RECORDING = "recording.npz"  # its spikes, the posterior, potentials of members
NUM_TRACES = 3


@dataclasses.dataclass(frozen=True)
class Order:
    """The settings of a run."""

    train: SpikeTrain
    sha256: str
    window: tuple[float, float] | None = None
    model: str = "auto"
    members: int = 100
    tolerance: float = 0.10
    seed: int = 0
    config: GenerateConfig = GenerateConfig()

    def changed(self, remedy: Remedy) -> "Order | None":
        """The order with the setting of a remedy, or None if it has no such setting."""
        value = remedy.value
        match remedy.setting:
            case "model":
                return dataclasses.replace(self, model=value)
            case "out_of_range" | "budget":
                config = dataclasses.replace(self.config, **{remedy.setting: value})
                return dataclasses.replace(self, config=config)
            case "window":
                train = self.train.window(*value)
                return dataclasses.replace(self, train=train, window=value)
        return None


def job_for(order: Order, folder: pathlib.Path, taken: Container[str]) -> Job:
    """A job with a name that no other job and no run in the folder has."""
    train = order.train
    stem = pathlib.PurePath(train.source).stem
    if train.name != stem:
        stem += f"_{train.name}"
    stem = re.sub(r"[^\w\-]+", "_", stem).strip("_")[:40] or "recording"
    now = datetime.datetime.now()
    name = f"{now:%Y-%m-%d_%H%M%S}_{stem}"
    number = 2
    while name in taken or (folder / name).exists():
        name = f"{now:%Y-%m-%d_%H%M%S}_{number}_{stem}"
        number += 1
    return Job(name, title_of(train.source, train.name), order)


def title_of(file: str, neuron: str) -> str:
    """The file, and the neuron if its name differs from the file's."""
    is_named = neuron and neuron != pathlib.PurePath(file).stem
    return f"{file}, {neuron}" if is_named else file


def make(job: Job, folder: pathlib.Path) -> None:
    """Generates a population and writes it to a folder with the job's name.

    If it cannot be written, the job keeps the result for another attempt.
    """
    if job.unsaved is None:
        job.unsaved = _generate(job)
    result: Generated = job.unsaved
    job.report(Stage("writing"), result.num_accepted, result.num_asked)
    write = functools.partial(_write, result, notes=job.notes)
    write_folder(folder / job.name, False, write)
    job.unsaved = None


def _generate(job: Job) -> Generated:
    order: Order = job.order
    started = datetime.datetime.now(datetime.UTC)
    result = generate(
        jax.random.key(order.seed),
        order.train,
        model=order.model,
        num=order.members,
        tolerance=order.tolerance,
        config=order.config,
        on_progress=job.report,
    )
    warnings = [advice_of(x).said(in_words) for x in result.settings["warnings"]]
    settings = result.settings | {
        "warnings": warnings,
        "seed": order.seed,
        "source_sha256": order.sha256,
        "window_ms": order.window,
        "started": started,
        "finished": datetime.datetime.now(datetime.UTC),
    }
    return dataclasses.replace(result, settings=settings)


def _write(result: Generated, folder: pathlib.Path, notes: list[str]) -> None:
    """Writes all files. If a file other than the tables fails, the others are kept."""
    write_population(result, folder)
    for name, write in (
        ("figures of the recording", lambda: _write_view(result, folder / RECORDING)),
        ("report", lambda: write_report(result, folder / "report.html")),
    ):
        try:
            write()
        except Exception:
            LOG.exception("The %s of %s could not be written", name, folder)
            notes.append(f"The {name} could not be written; the tables are complete.")


def _write_view(result: Generated, path: pathlib.Path) -> None:
    members = shown(result)
    different = members[most_different(result.g[members], NUM_TRACES)]
    ts, V = potentials(result, different)
    x, y, density = density_of(result.posterior, result.dics[members][:, -2:])
    floors = [
        np.asarray(result.posterior.region(level).floor)[0] for level in (0.9, 0.5)
    ]
    train = result.train
    np.savez_compressed(
        path,
        times=train.times,
        span=np.array([train.t_start, train.t_stop]),
        members=different,
        ts=ts.astype(np.float32),
        V=V.astype(np.float16),
        g_s=x,
        g_u=y,
        density=density,
        floors=np.array(floors),
        V_ref=float(result.neuron.V_ref),
    )


class Summary(NamedTuple):
    """A run in the folder, in short."""

    name: str
    title: str
    model: str
    num_accepted: int
    num_asked: int
    written: datetime.datetime


def summaries(folder: pathlib.Path) -> list[Summary]:
    """All runs that the folder holds, the newest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        about = read_manifest(path) if path.is_dir() else {}
        if path.name.startswith(".") or "num_asked" not in about:
            continue
        when = datetime.datetime.fromtimestamp((path / "manifest.json").stat().st_mtime)
        found.append(Summary(path.name, *_in_short(about), when))
    return sorted(found, key=lambda run: run.written, reverse=True)


def _in_short(about: dict[str, Any]) -> tuple[str, str, int, int]:
    source = about.get("source") or {}
    title = title_of(source.get("file") or "recording", source.get("unit") or "")
    num_accepted, num_asked = (
        int(about.get(x) or 0) for x in ("num_accepted", "num_asked")
    )
    return title, str(about.get("model")), num_accepted, num_asked


def run_folder(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The folder of a run, or None if no run has this name."""
    # Only listed names: the name comes from an address, which anyone may type.
    if name in {run.name for run in summaries(folder)}:
        return folder / name
    return None


class Inference(NamedTuple):
    """The posterior over (g_s, g_u) on a grid: log-densities, also of its levels."""

    g_s: np.ndarray
    g_u: np.ndarray
    density: np.ndarray
    floors: tuple[float, float]
    V_ref: float


class Traces(NamedTuple):
    """Potentials (mV) of some members, at times in ms."""

    members: list[int]
    ts: np.ndarray
    V: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """A run as its folder describes it, from the app or the command line."""

    folder: pathlib.Path
    title: str
    population: StoredPopulation
    channels: tuple[str, ...]
    g: np.ndarray
    dics: np.ndarray
    accepted: np.ndarray
    features: Features
    train: SpikeTrain | None
    target: Features | None
    inference: Inference | None
    traces: Traces | None

    @property
    def about(self) -> dict[str, Any]:
        return self.population.about

    @property
    def spike_times(self) -> tuple[np.ndarray, ...]:
        """Spike times of each member, in ms."""
        return self.population.spike_times or ()

    @property
    def shown(self) -> np.ndarray:
        """Rows of accepted members, or of all members if none is accepted."""
        accepted = np.flatnonzero(self.accepted)
        return accepted if len(accepted) else np.arange(len(self.g))


def read_run(folder: pathlib.Path) -> Outcome:
    """Reads a run back; fields are None if the folder lacks their data."""
    population = read_population(folder)
    about, models = population.about, population.models
    channels = tuple(str(x) for x in about.get("channels") or ())
    column = lambda name: models[name].to_numpy().astype(np.float64)
    rows = [train for train in population.spike_times or ()]
    width = compiled_size(max(map(len, rows), default=0), 128)
    features = spike_features(pad_trains(rows, width))
    train, inference, traces = _read_view(folder / RECORDING, about)
    return Outcome(
        folder=folder,
        title=_in_short(about)[0],
        population=population,
        channels=channels,
        g=np.stack([column(f"g_{name}") for name in channels], axis=1),
        dics=np.stack([column(name) for name in ("g_f", "g_s", "g_u")], axis=1),
        accepted=population.accepted,
        features=jax.tree.map(np.asarray, features),
        train=train,
        target=_features_in(about) if train is None else features_of(train),
        inference=inference,
        traces=traces,
    )


def _features_in(about: dict[str, Any]) -> Features | None:
    """The recording's features, as far as a manifest holds them."""
    recorded = (about.get("source") or {}).get("features") or {}
    if recorded.get("label") not in LABELS:
        return None
    value = lambda name: np.asarray(
        np.nan if recorded.get(name) is None else recorded[name]
    )
    num = np.asarray(int(about["source"].get("num_spikes") or 0))
    names = {field.name for field in dataclasses.fields(Features)}
    names -= {"label", "num_spikes", "num_bursts", "isi_quartiles"}
    return Features(
        label=np.asarray(LABELS.index(recorded["label"])),
        num_spikes=num,
        num_bursts=np.asarray(0),
        isi_quartiles=np.full(3, np.nan),
        **{name: value(name) for name in names},
    )


def _read_view(path: pathlib.Path, about: dict[str, Any]):
    if not path.exists():
        return None, None, None  # a run of the command line
    source = about.get("source") or {}
    with np.load(path, allow_pickle=False) as file:
        found = dict(file)
    train = SpikeTrain(
        found["times"],
        str(source.get("unit") or ""),
        str(source.get("file") or ""),
        *found["span"].tolist(),
    )
    low, middle = found["floors"].tolist()
    inference = Inference(
        found["g_s"],
        found["g_u"],
        found["density"],
        (low, middle),
        float(found["V_ref"]),
    )
    V = found["V"].astype(np.float32)
    return train, inference, Traces(found["members"].tolist(), found["ts"], V)
