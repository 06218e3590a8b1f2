"""Runs: generates populations, saves them in folders and reads them back."""

import dataclasses
import datetime
import functools
import pathlib
import re
from collections.abc import Container
from typing import Any, NamedTuple

import jax
import numpy as np

from dicjax._core import advice_of, in_words, Remedy, Stage
from dicjax.app.jobs import Job, LOG
from dicjax.generation import generate, GenerateConfig, Generated, grouped, Round
from dicjax.output import (
    layouts,
    potentials,
    read_manifest,
    read_population,
    shown,
    StoredPopulation,
    Traces,
    write_folder,
    write_population,
    write_report,
)
from dicjax.recordings import best_stretch
from dicjax.spikes import (
    FEATURES,
    Features,
    features_of,
    LABELS,
    spike_features,
    SpikeTrain,
)


RECORDING = "recording.npz"  # its spikes, the posterior, potentials of members


@dataclasses.dataclass(frozen=True)
class Order:
    train: SpikeTrain
    sha256: str
    window: tuple[float, float] | None = None
    model: str = "auto"
    members: int = 100
    tolerance: float = 0.10
    seed: int = 0
    config: GenerateConfig = GenerateConfig()
    clean: tuple[str, ...] = ()

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
                if value == "auto":
                    best = best_stretch(self.train)
                    value = best.start, best.stop
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
    now, number = f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}", 1
    name = f"{now}_{stem}"
    while name in taken or (folder / name).exists():
        number += 1
        name = f"{now}_{number}_{stem}"
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
    write = lambda path: _write(result, path, job.notes)
    write_folder(folder / job.name, False, write, rescue=False)  # the job keeps it
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
        "clean": order.clean,
        "started": started,
        "finished": datetime.datetime.now(datetime.UTC),
    }
    return dataclasses.replace(result, settings=settings)


def _write(result: Generated, folder: pathlib.Path, notes: list[str]) -> None:
    """Writes all files. If a file other than the tables fails, the others are kept."""
    write_population(result, folder)
    traces = functools.cache(lambda: potentials(result))
    for name, write, file in (
        ("figures of the recording", _write_view, RECORDING),
        ("report", write_report, "report.html"),
    ):
        try:
            write(result, folder / file, traces())
        except Exception:
            LOG.exception("The %s of %s could not be written", name, folder)
            notes.append(f"The {name} could not be written. The tables are complete.")


def _write_view(result: Generated, path: pathlib.Path, traces: Traces) -> None:
    dics, train = result.dics[shown(result.accepted)], result.train
    inference = layouts.inference_of(result.posterior, dics, float(result.neuron.V_ref))
    parts = inference._asdict() | traces._asdict()
    parts |= {"ts": np.float32(traces.ts), "V": np.float16(traces.V)}
    np.savez_compressed(path, times=train.times, span=train.observed, **parts)


class Summary(NamedTuple):
    name: str
    title: str
    model: str
    num_accepted: int
    num_asked: int
    written: datetime.datetime

    @property
    def address(self) -> str:
        return f"/run/{self.name}"


def summaries(folder: pathlib.Path) -> list[Summary]:
    """All runs that the folder holds, the newest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        about = read_manifest(path) if path.is_dir() else {}
        if path.name.startswith(".") or "num_asked" not in about:
            continue
        when = datetime.datetime.fromtimestamp((path / "manifest.json").stat().st_mtime)
        model, num = str(about.get("model")), int(about.get("num_accepted") or 0)
        title, num_asked = _title(about), int(about["num_asked"] or 0)
        found.append(Summary(path.name, title, model, num, num_asked, when))
    return sorted(found, key=lambda run: run.written, reverse=True)


def _title(about: dict[str, Any]) -> str:
    source = about.get("source") or {}
    return title_of(source.get("file") or "recording", source.get("unit") or "")


def run_folder(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The folder of a run, or None if no run has this name."""
    # Only listed names: the name comes from an address, which anyone may type.
    if name in {run.name for run in summaries(folder)}:
        return folder / name
    return None


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
    inference: layouts.Inference | None
    traces: Traces | None

    @property
    def about(self) -> dict[str, Any]:
        return self.population.about

    @property
    def num_accepted(self) -> int:
        return int(self.accepted.sum())

    @property
    def tolerance(self) -> float:
        return float(self.about["tolerance"])

    @property
    def limits(self) -> dict[str, float] | None:
        """How far features may be off where members have a drive; else `None`."""
        agreement = self.about.get("agreement")
        return None if agreement is None else dict(agreement["limits"])

    @property
    def distribution_distance(self) -> np.ndarray | None:
        """Of the members shown; `None` where they have no drive."""
        if self.limits is None:
            return None
        column = self.population.models["distribution_distance"]
        return column.to_numpy().astype(np.float64)[self.shown]

    @property
    def rounds(self) -> list[Round]:
        """What was simulated, in order, in few rounds."""
        return grouped([Round(**x) for x in self.about["rounds"]])

    @property
    def spike_times(self) -> tuple[np.ndarray, ...]:
        return self.population.spike_times or ()

    @property
    def shown(self) -> np.ndarray:
        """Rows of accepted members, or of all members if none is accepted."""
        return shown(self.accepted)


def read_run(folder: pathlib.Path) -> Outcome:
    """Reads a run back; fields are None if the folder lacks their data."""
    population = read_population(folder)
    about, models = population.about, population.models
    channels = tuple(about.get("channels") or ())
    column = lambda name: models[name].to_numpy().astype(np.float64)
    features = spike_features(population.spike_times or ())
    train, inference, traces = _read_view(folder / RECORDING, about)
    return Outcome(
        folder=folder,
        title=_title(about),
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
    source = about.get("source") or {}
    recorded = source.get("features") or {}
    if recorded.get("label") not in LABELS:
        return None
    known = {x.name: recorded.get(x.name) for x in dataclasses.fields(Features)}
    known = {name: np.nan if x is None else x for name, x in known.items()}
    parts = [recorded.get(x.name) for x in FEATURES.values() if x.quartile is not None]
    known["isi_quartiles"] = [np.nan if x is None else x for x in parts]
    known["label"] = LABELS.index(recorded["label"])
    known |= {"num_spikes": int(source.get("num_spikes") or 0), "num_bursts": 0}
    return Features(**{name: np.asarray(x) for name, x in known.items()})


def _read_view(path: pathlib.Path, about: dict[str, Any]):
    if not path.exists():
        return None, None, None  # a run of the command line
    source = about.get("source") or {}
    with np.load(path, allow_pickle=False) as stored:
        found = dict(stored)
    unit, file = (str(source.get(x) or "") for x in ("unit", "file"))
    observed = found["span"].reshape(-1, 2)
    train = SpikeTrain(found["times"], unit, file, observed=observed)
    found["V"] = found["V"].astype(np.float32)
    part = lambda kind: kind(**{x: found[x] for x in kind._fields if x in found})
    return train, part(layouts.Inference), part(Traces)
