"""Commands from recordings to populations, and from tables of models to spikes."""

import dataclasses
import functools
import math
import operator
import pathlib
from typing import Annotated, Any, Literal

import jax
import numpy as np
from tyro.conf import arg

from dicjax._core import (
    advice_of,
    as_option,
    check_simulation,
    Count,
    Current,
    in_words,
    Milliseconds,
    Noise,
    Potential,
    Seed,
    Stage,
    Tolerance,
    Within,
)
from dicjax.cli.common import (
    Command,
    Flat,
    FolderCommand,
    ModelsCommand,
    note,
    Progress,
    say,
    TableCommand,
)
from dicjax.cli.recording import Recording
from dicjax.dics import DICS, dynamic_input_conductances, feature_columns, threshold
from dicjax.generation import generate, GenerateConfig, infer, suit, UNLIKE
from dicjax.inference import Posterior
from dicjax.recordings import checksum, listing, pattern_shares, steady_stretches
from dicjax.simulation import AbstractStimulus, NoisyCurrent, simulate, Step
from dicjax.spikes import LABELS, spike_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderCommand(Command):
    """A command that reads recordings with an encoder."""

    source: Flat[Recording]
    model: Annotated[str, arg(metavar="MODEL")] = "auto"
    """stg, stg-prinz, da, a folder that `dicjax adapt` wrote, or auto for the
    stomatogastric model that suits each spike train. For a neuron of your own,
    name its Python file in that folder: FOLDER/neuron.py. The file is run, so name only
    files that you trust."""
    checkpoint: Annotated[pathlib.Path | None, arg(metavar="FOLDER")] = None
    """A trained encoder, instead of the encoder that ships with dicjax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(FolderCommand, EncoderCommand):
    """Generate a population of models that fire like RECORDING.

    Writes a folder with models.parquet and models.csv (a row per model),
    spikes.parquet, manifest.json and report.html. Models that shall fire irregularly
    have an input current that fluctuates (see `--drive`). Exit status 0: done; 1: done,
    but with fewer valid models than `--members`; 2: bad input.

    For example: dicjax generate recording.csv --unit ms --out results
    """

    members: Count = 100
    """Number of valid models to find."""
    tolerance: Annotated[Tolerance, arg(metavar="SHARE")] = 0.10
    """Largest relative error of each feature."""
    seed: Seed = 0
    """The same seed gives the same population."""
    search: Flat[GenerateConfig] = GenerateConfig()

    def run(self) -> int:
        from dicjax.output import write_population, write_report

        train = self.source.read_one()
        source_sha256 = checksum(self.source.recording)
        with Progress() as progress:
            result = generate(
                jax.random.key(self.seed),
                train,
                model=self.model,
                num=self.members,
                tolerance=self.tolerance,
                config=self.search,
                checkpoint=self.checkpoint,
                on_progress=progress,
            )
            progress(Stage("writing"), result.num_accepted, self.members)
            warned = [advice_of(x) for x in result.settings["warnings"]]
            settings = result.settings | {
                "warnings": [x.said(in_words) for x in warned],
                "seed": self.seed,
                "source_sha256": source_sha256,
                "window_ms": self.source.window_of(train),
                "clean": self.source.clean,
            }
            result = dataclasses.replace(result, settings=settings)
            self.write(
                lambda folder: write_population(result, folder),
                {"report.html": lambda path: write_report(result, path)},
            )
        for warning in warned:
            note(warning.said(as_option))
        if result.settings["interrupted"]:
            say("Stopped: the models found so far are written.")
        print(result.report())
        print(f"Look at {self.out / 'report.html'}.")
        return 0 if result.num_accepted >= self.members else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infer(TableCommand, EncoderCommand):
    """Infer the dynamic input conductances of every neuron in RECORDING.

    Writes a CSV with a row per neuron: medians and 90 % intervals of the slow,
    ultraslow and fast input conductances and of the threshold (mV), and whether the
    recording resembles the encoder's training data.

    For example: dicjax infer recording.csv --out dics.csv
    """

    prior: Literal["recipe", "box", "any"] = "any"
    """Prior over neurons: neurons that the model's recipe draws (recipe), neurons with
    uniform conductances (box), or both with more rare neurons (any)."""

    def run(self) -> int:
        trains = self.source.read()
        is_auto = self.model == "auto"
        models = [suit(x) if is_auto else self.model for x in trains]
        rows: list[dict[str, Any]] = [{} for _ in trains]
        for model in dict.fromkeys(models):
            own = [i for i, name in enumerate(models) if name == model]
            found = infer(
                [trains[i] for i in own],
                model,
                prior=self.prior,
                checkpoint=self.checkpoint,
            )
            for i, row in zip(own, _inferred(found), strict=True):
                rows[i] = row
        columns: dict[str, Any] = {
            "unit": [train.name for train in trains],
            "num_spikes": [train.num_spikes for train in trains],
            "model": models,
        }
        for name in dict.fromkeys(name for row in rows for name in row):
            columns[name] = [row.get(name, math.nan) for row in rows]
        self.write_table(columns | self.source.windows_of(trains))
        known = columns["in_distribution"]
        strange = [x.name for x, ok in zip(trains, known, strict=True) if not ok]
        if strange:
            note(f"{listing(strange)} {UNLIKE}.")
        return 0


def _inferred(found: Posterior) -> list[dict[str, Any]]:
    """The columns of a row per train: medians and intervals, and whether to trust."""
    columns: dict[str, Any] = {}
    for one, names in ((found, ("g_s", "g_u")), (found.fast, ("g_f", "V_th"))):
        if one is None:
            continue
        median, interval = np.asarray(one.median), np.asarray(one.interval(0.9))
        for i, name in enumerate(names):
            columns[name] = median[:, i]
            columns[f"{name}_5"] = interval[:, i, 0]
            columns[f"{name}_95"] = interval[:, i, 1]
    columns["in_distribution"] = np.asarray(found.in_distribution)
    values = zip(*(x.tolist() for x in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features(TableCommand):
    """Measure every spike train in RECORDING and name its firing pattern.

    The columns share_... hold the share of the time that each pattern takes.

    For example: dicjax features recording.nwb --out features.csv
    """

    source: Flat[Recording]

    def run(self) -> int:
        trains = self.source.read()
        measured = jax.tree.map(np.asarray, spike_features(trains))
        columns = {name: x for name, (x, *_) in feature_columns(measured).items()}
        names = [train.name for train in trains]
        first = {"unit": names, "label": columns.pop("label")}
        for name in ("num_spikes", "num_bursts", "cv2", "lv"):
            first[name] = getattr(measured, name)
        shares = [pattern_shares(steady_stretches(train)) for train in trains]
        for name in LABELS:
            columns[f"share_{name}"] = [share.get(name, 0.0) for share in shares]
        self.write_table(first | columns | self.source.windows_of(trains))
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate(FolderCommand, ModelsCommand):
    """Simulate every model of a table, and write spike times and features.

    MODELS has a column g_<channel> (mS/cm²) per channel. It may also be a folder that
    `generate` wrote. Models that have a drive (columns I_mean and so on) receive it,
    with noise that follows from `--seed` and the number of the model.

    For example: dicjax simulate results --current 2 --out simulated
    """

    duration: Annotated[Milliseconds, arg(metavar="MS")] = 6000.0
    """Simulated time, in ms."""
    discard: Annotated[Milliseconds, arg(metavar="MS")] = 3000.0
    """Time left out at the start, in ms."""
    dt: Annotated[float, arg(metavar="MS")] = 0.05
    """Time step, in ms."""
    current: Annotated[Current | None, arg(metavar="UA/CM2")] = None
    """Applied current, in µA/cm², from `start` to `stop`; by default the current of
    the model's recipe, if any. Models with a drive receive it on top of the drive."""
    start: Annotated[Milliseconds, arg(metavar="MS")] = 0.0
    """Start of the applied current, in ms."""
    stop: Annotated[
        float, arg(metavar="MS"), Within(0, unit="ms", or_infinite=True)
    ] = math.inf
    """End of the applied current, in ms; by default the end of the simulation."""
    noise: Annotated[Noise, arg(metavar="UA/CM2")] = 0.0
    """Standard deviation of an applied noise current, in µA/cm²."""
    drive: bool = True
    """Apply the drive that the table gives its models, if any."""
    seed: Seed = 0
    """Seed of the noise, and of the drive's fluctuations."""

    def run(self) -> int:
        from dicjax.output import write_simulation

        check_simulation(self.duration, self.discard, self.dt)
        neuron, g = self.read_models()
        driven = self.read_drive() if self.drive else None
        drive, members = driven or (None, None)
        current = self.current
        if current is None and drive is not None:
            current = 0.0  # the mean of a drive holds the current of the recipe
        if current is None:
            current = neuron.recipe.current if neuron.recipe is not None else 0.0
        if not self.start < self.stop:
            raise ValueError(
                f"A current from {self.start:g} to {self.stop:g} ms never flows: give "
                "`--stop` after `--start`."
            )
        parts: list[AbstractStimulus] = []
        if drive is not None:
            parts.append(drive.stimulus(jax.random.key(self.seed), members))
        if current:
            parts.append(Step(current, self.start, self.stop))
        if self.noise:
            parts.append(NoisyCurrent(jax.random.key(self.seed), self.noise))
        stimulus = functools.reduce(operator.add, parts) if parts else None
        with Progress() as progress:
            run = simulate(
                neuron,
                np.asarray(g, np.float32),
                self.duration,
                discard=self.discard,
                dt=self.dt,
                stimulus=stimulus,
                on_progress=progress,
            )
        about: dict[str, Any] = {"drive": drive, "members": members}
        if drive is not None:
            about["applied"] = {"drive": {"seed": self.seed}}
        self.write(lambda folder: write_simulation(neuron, g, run, folder, **about))
        failed = int((~run.succeeded).sum())
        print(f"{len(g)} models simulated, {failed} failed -> {self.out}")
        if drive is not None:
            print(
                "They received the drive of their table, with fluctuations of the seed "
                f"{self.seed}. Their spike times differ from those of other seeds."
            )
        if short := int((run.fell_short & (run.num_spikes == 0)).sum()):
            level = float(neuron.V_spike)
            print(
                f"{short} did not fire, but rose like a spike and fell below {level:g} "
                "mV again: a lower `V_spike` of the neuron would count that."
            )
        return 1 if failed else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dic(TableCommand, ModelsCommand):
    """Compute the dynamic input conductances and the threshold of every model.

    For example: dicjax dic results/models.csv --V -50 --out dics.csv
    """

    V: Annotated[Potential | None, arg(metavar="MV")] = None
    """Potential, in mV; the model's reference potential if not given."""

    def run(self) -> int:
        neuron, g = self.read_models()
        g = np.asarray(g, np.float32)
        V = float(neuron.V_ref) if self.V is None else self.V
        dics = np.asarray(dynamic_input_conductances(neuron, g, V))
        own = threshold(neuron, g)
        columns = {
            "member": range(len(g)),
            "V": [V] * len(g),
            **dict(zip(DICS, dics.T, strict=True)),
            "V_th": own.V,
            "threshold": np.array(own.names)[np.asarray(own.status)],
        }
        self.write_table(columns)
        return 0
