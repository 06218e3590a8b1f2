"""The command line: each command parses its arguments, calls dicjax and writes."""

import dataclasses
import math
import os
import pathlib
import sys
import warnings
from typing import Literal

import jax
import numpy as np
import tyro

import dicjax
from dicjax._core import advice_of, as_option, in_words, Stage
from dicjax.cli.certifying import Certify
from dicjax.cli.common import (
    Command,
    Flat,
    FolderCommand,
    ModelsCommand,
    note,
    Progress,
    say,
    Table,
    write_table,
)
from dicjax.cli.examples import Example
from dicjax.cli.explaining import Explain
from dicjax.cli.exporting import Export
from dicjax.cli.learning import Adapt, Train
from dicjax.cli.operating import Operator
from dicjax.cli.recording import Recording
from dicjax.cli.serving import App
from dicjax.cli.sweeping import Sweep
from dicjax.dics import DICS, dynamic_input_conductances, feature_columns, threshold
from dicjax.generation import generate, GenerateConfig, infer, suit, UNLIKE
from dicjax.recordings import checksum, listing
from dicjax.simulation import NoisyCurrent, simulate, Step
from dicjax.spikes import spike_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderCommand(Command):
    """A command that reads recordings with an encoder."""

    source: Flat[Recording]
    model: str = "auto"
    """stg, stg-prinz, da, a folder that `dicjax adapt` wrote, or auto for the
    stomatogastric model that suits the first spike train."""
    checkpoint: pathlib.Path | None = None
    """A trained encoder, instead of the encoder that ships with dicjax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(FolderCommand, EncoderCommand):
    """Generate a population of models that fire like RECORDING.

    Writes a folder with models.parquet and models.csv (a row per model),
    spikes.parquet, manifest.json and report.html. Exit status 0: done; 1: done, but
    with fewer valid models than `--members`; 2: bad input.
    """

    members: int = 100
    """Number of valid models to find."""
    tolerance: float = 0.10
    """Largest relative error of each feature."""
    seed: int = 0
    """The same seed gives the same population."""
    search: Flat[GenerateConfig] = GenerateConfig()

    def run(self) -> int:
        from dicjax.output import write_population, write_report

        def fill(folder: pathlib.Path) -> None:
            write_population(result, folder)
            write_report(result, folder / "report.html")

        self.check_out()
        train = self.source.read_one()
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
                "source_sha256": checksum(self.source.recording),
                "window_ms": self.source.window,
            }
            result = dataclasses.replace(result, settings=settings)
            self.write(fill)
        for warning in warned:
            note(warning.said(as_option))
        if result.settings["interrupted"]:
            say("Stopped: the models found so far are written.")
        print(result.report())
        print(f"Look at {self.out / 'report.html'}.")
        return 0 if result.num_accepted >= self.members else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infer(EncoderCommand):
    """Infer the dynamic input conductances of every neuron in RECORDING.

    Writes a CSV with a row per neuron: medians and 90 % intervals of the slow,
    ultraslow and fast input conductances and of the threshold (mV), and whether the
    recording resembles the encoder's training data.
    """

    out: Table = None
    prior: Literal["recipe", "box", "any"] = "any"
    """Prior over neurons: neurons that the model's recipe draws (recipe), neurons with
    uniform conductances (box), or both with more rare neurons (any)."""

    def run(self) -> int:
        trains = self.source.read()
        model = suit(trains[0]) if self.model == "auto" else self.model
        found = infer(trains, model, prior=self.prior, checkpoint=self.checkpoint)
        columns: dict = {
            "unit": [train.name for train in trains],
            "num_spikes": [train.num_spikes for train in trains],
            "model": [model] * len(trains),
        }
        for one, names in ((found, ("g_s", "g_u")), (found.fast, ("g_f", "V_th"))):
            if one is None:
                continue
            median, interval = one.median, one.interval(0.9)
            for i, name in enumerate(names):
                columns[name] = median[:, i]
                columns[f"{name}_5"] = interval[:, i, 0]
                columns[f"{name}_95"] = interval[:, i, 1]
        known = columns["in_distribution"] = found.in_distribution
        write_table(columns, self.out)
        strange = [x.name for x, ok in zip(trains, known, strict=True) if not ok]
        if strange:
            note(f"{listing(strange)} {UNLIKE}.")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features(Command):
    """Measure every spike train in RECORDING and name its firing pattern."""

    source: Flat[Recording]
    out: Table = None

    def run(self) -> int:
        trains = self.source.read()
        measured = jax.tree.map(np.asarray, spike_features(trains))
        columns = {name: x for name, (x, *_) in feature_columns(measured).items()}
        names = [train.name for train in trains]
        first = {"unit": names, "label": columns.pop("label")}
        for name in ("num_spikes", "num_bursts", "cv2", "lv"):
            first[name] = getattr(measured, name)
        write_table(first | columns, self.out)
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate(FolderCommand, ModelsCommand):
    """Simulate every model of a table, and write spike times and features.

    MODELS has a column g_<channel> (mS/cm²) per channel. It may also be a folder that
    `generate` wrote.
    """

    duration: float = 6000.0
    """Simulated time, in ms."""
    discard: float = 3000.0
    """Time left out at the start, in ms."""
    dt: float = 0.05
    """Time step, in ms."""
    current: float | None = None
    """Applied current, in µA/cm², from `start` to `stop`; by default the current of
    the model's recipe, if any."""
    start: float = 0.0
    """Start of the applied current, in ms."""
    stop: float = math.inf
    """End of the applied current, in ms; by default the end of the simulation."""
    noise: float = 0.0
    """Standard deviation of an applied noise current, in µA/cm²."""
    seed: int = 0
    """Seed of the noise."""

    def run(self) -> int:
        from dicjax.output import write_simulation

        models = self.models.resolve()
        if self.out.resolve() in (models, models.parent):
            raise ValueError(
                f"{self.out} holds the models to simulate, which the result would "
                "replace: choose another folder."
            )
        self.check_out()
        neuron, g = self.read_models()
        current = self.current
        if current is None:
            current = neuron.recipe.current if neuron.recipe is not None else 0.0
        stimulus = Step(current, self.start, self.stop) if current else None
        if self.noise:
            noise = NoisyCurrent(jax.random.key(self.seed), self.noise)
            stimulus = noise if stimulus is None else stimulus + noise
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
        self.write(lambda folder: write_simulation(neuron.name, g, run, folder))
        failed = int((~run.succeeded).sum())
        print(f"{len(g)} models simulated, {failed} failed -> {self.out}")
        if short := int((run.fell_short & (run.num_spikes == 0)).sum()):
            level = float(neuron.V_spike)
            print(
                f"{short} did not fire, but rose like a spike and fell below {level:g} "
                "mV again: a lower `V_spike` of the neuron would count that."
            )
        return 1 if failed else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dic(ModelsCommand):
    """Compute the dynamic input conductances and the threshold of every model."""

    out: Table = None
    V: float | None = None
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
        write_table(columns, self.out)
        return 0


def configure_jax() -> None:
    """Keeps compiled programs between processes, unless the user has said where."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")
        cache = pathlib.Path(home) / "dicjax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _as_typed(message: object) -> str:
    return advice_of(message).said(as_option)


# Each class gives its command its name.
Populations = Generate | Infer | Features | Simulate | Dic | Certify | Explain | Export
Commands = App | Populations | Train | Adapt | Operator | Sweep | Example


def main(args: list[str] | None = None) -> None:
    """Runs `dicjax`; exits with 0 (done), 1 (done in part) or 2 (bad input)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we were started
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if (sys.argv[1:] if args is None else args) == ["--version"]:
        print(f"dicjax {dicjax.__version__}")
        return
    command = tyro.cli(
        Commands,
        args=args,
        prog="dicjax",
        description="Spike times in, validated populations of neuron models out. "
        "`dicjax --version` prints the version.",
    )
    configure_jax()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            status = command.run()
    except (ValueError, OSError) as e:
        say(f"dicjax: {_as_typed(e)}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("dicjax: stopped")
        sys.exit(130)
    for warning in caught:
        if warning.category is UserWarning:
            note(_as_typed(warning.message))
    sys.exit(status)
