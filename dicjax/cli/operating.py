"""Commands of the neural operator."""

import dataclasses
import math
import pathlib
from typing import Annotated, Literal

import tyro

from dicjax.cli.common import File, Progress, say, write_table
from dicjax.cli.joining import Distributed, join, progress_of_first
from dicjax.operator import OperatorConfig, OperatorTraining


@dataclasses.dataclass(frozen=True)
class TrainOperator:
    """Simulate members of a family of neurons and train an operator on them.

    Characterises members of the family, corrects the curves of the operator for its
    time step, trains the network that reads features, tests it on new members and
    currents, and writes a checkpoint. With the defaults this takes most of an hour on
    two cores; `--training.members 1000 --training.num-steps 1500
    --training.num-corrections 60` trains a rough operator in two minutes.
    """

    family: tyro.conf.Positional[str]
    """The family: cortical."""
    out: pathlib.Path
    """Folder of the checkpoint; it must not exist yet."""
    sweep: pathlib.Path | None = None
    """Folder of a sweep of job "operator" that has characterised members. Their number
    and seed are then the sweep's."""
    data: pathlib.Path | None = None
    """Folder of members and the state of training. With it, the same command continues
    where it was stopped."""
    distributed: Distributed = None
    """Train in several processes that all run this command: auto under Slurm or MPI;
    elsewhere process I of N, from 0. Process 0 listens at HOST:PORT."""
    operator: OperatorConfig = dataclasses.field(default_factory=OperatorConfig)
    training: OperatorTraining = dataclasses.field(default_factory=OperatorTraining)

    def run(self) -> int:
        """Trains and writes; returns the exit status."""
        from dicjax._core import from_first, is_first
        from dicjax.operator import find_family, fit_operator

        join(self.distributed)
        from_first(lambda: _check_new(self.out))
        family, swept = find_family(self.family), None
        if (folder := self.sweep) is not None:
            from dicjax.sweeps import swept_library

            swept = from_first(lambda: swept_library(folder, family))
        with progress_of_first() as progress:
            scores = fit_operator(
                family,
                self.out,
                config=self.operator,
                training=self.training,
                data=self.data,
                characterised=swept,
                on_progress=progress,
            )
        if is_first():
            _print_scores(scores)
            print(f"Use it with `dicjax operator predict --operator {self.out}`.")
        return 0


@dataclasses.dataclass(frozen=True)
class TuneOperator:
    """Fine-tune an operator to predict one feature better."""

    feature: tyro.conf.Positional[Literal["sag", "width", "height"]]
    """The feature: of a hyperpolarised cell, or of spikes."""
    out: pathlib.Path
    """Folder of the new checkpoint; it must not exist yet."""
    operator: str = "cortical"
    """A family whose operator ships with dicjax, or an operator's folder."""
    members: int = 2048
    """Number of neurons of the family to learn from."""
    num_steps: int = 300
    """Optimiser steps."""
    seed: int = 0
    """Seed of everything random."""
    data: pathlib.Path | None = None
    """Folder of characterised members."""

    def run(self) -> int:
        """Tunes and writes; returns the exit status."""
        from dicjax.operator import tune_to_feature

        _check_new(self.out)
        with Progress() as progress:
            before, after = tune_to_feature(
                self.operator,
                self.feature,
                self.out,
                num_members=self.members,
                num_steps=self.num_steps,
                seed=self.seed,
                data=self.data,
                on_progress=progress,
            )
        print(
            f"Median error of {self.feature} on members apart: {before:.3g} before, "
            f"{after:.3g} after -> {self.out}"
        )
        return 0


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict the potential of neurons that receive a current.

    Writes a folder with traces.npz (time_ms, current_uA_cm2, voltage_mV), traces.png
    and manifest.json.
    """

    features: File
    """CSV with a row per neuron and a column per feature, as `dicjax operator ensemble`
    writes it."""
    out: pathlib.Path
    """Folder to write; it must not exist yet."""
    current: pathlib.Path | None = None
    """CSV with columns time_ms and current (µA/cm²), evenly sampled; by default a
    step."""
    step: float = 2.0
    """Height of the step, in µA/cm²."""
    start: float = 50.0
    """Start of the step, in ms."""
    stop: float = 550.0
    """End of the step, in ms."""
    duration: float = 600.0
    """Predicted time, in ms."""
    operator: str = "cortical"
    """A family whose operator ships with dicjax, or an operator's folder."""
    overwrite: bool = False
    """Replace the content of the folder."""

    def run(self) -> int:
        """Predicts and writes; returns the exit status."""
        import numpy as np

        from dicjax.operator import load_operator, read_current, read_features, respond
        from dicjax.output import check_folder, plot_responses, write_folder

        check_folder(self.out, self.overwrite)
        operator = load_operator(self.operator)
        features = read_features(self.features, operator)
        if self.current is not None:
            current, every = read_current(self.current)
        else:
            current, every = self._step()
        V = np.asarray(respond(operator, current, features, every=every).V)
        current = np.broadcast_to(current, V.shape)

        def write(folder: pathlib.Path) -> None:
            np.savez_compressed(
                folder / "traces.npz",
                time_ms=every * np.arange(V.shape[1]),
                current_uA_cm2=current,
                voltage_mV=V,
            )
            plot_responses(current, V, every).savefig(folder / "traces.png", dpi=150)
            _write_manifest(folder, {"operator": self.operator, "every_ms": every})

        write_folder(self.out, self.overwrite, write)
        print(f"{len(V)} neurons, {V.shape[1] * every:g} ms -> {self.out}")
        return 0

    def _step(self):
        from dicjax.operator import EVERY, sampled_step

        if not 0 <= self.start < self.stop <= self.duration < math.inf:
            raise ValueError(
                f"A step from {self.start} to {self.stop} ms does not lie within "
                f"{self.duration} ms: change `--start`, `--stop` or `--duration`."
            )
        num = round(self.duration / EVERY)
        return sampled_step(self.step, self.start, self.stop, num, EVERY), EVERY


@dataclasses.dataclass(frozen=True)
class EnsembleOf:
    """Draw neurons that resemble a cell in its measured features.

    Writes a CSV with a row per neuron and a column per feature. Without measured
    features it draws from the whole family.
    """

    out: pathlib.Path | None = None
    """CSV to write; the terminal if not given."""
    measured: tuple[str, ...] = ()
    """Measured features, as name=value, in the units that `dicjax operator ensemble
    --list` shows: `--measured rest=-70 threshold=1.2 gain=10`."""
    neurons: int = 200
    """Number of neurons to draw."""
    spread: float = 0.0
    """Spread of the neurons around the measured features, relative to the variation in
    the family."""
    operator: str = "cortical"
    """A family whose operator ships with dicjax, or an operator's folder."""
    seed: int = 0
    """The same seed gives the same neurons."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only show the features, their units and their ranges."""

    def run(self) -> int:
        """Draws and writes; returns the exit status."""
        import jax

        from dicjax.operator import describe_features, draw_ensemble, load_operator

        operator = load_operator(self.operator)
        if self.list:
            print(describe_features(operator))
            return 0
        drawn = draw_ensemble(
            jax.random.key(self.seed),
            operator,
            dict(_named(text) for text in self.measured),
            self.neurons,
            spread=self.spread,
        )
        columns = {name: drawn[:, i].tolist() for i, name in enumerate(operator.names)}
        write_table(columns, self.out)
        if self.out is not None:
            print(f"{self.neurons} neurons -> {self.out}")
        return 0


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare a recorded cell with an ensemble conditioned on some of its steps.

    RECORDING has a step of current per sweep. Writes a folder with comparison.csv (a
    row per sweep and feature: recorded, and quartiles of the ensemble), features.csv (a
    row per neuron), comparison.png and manifest.json (what was measured, settings).
    """

    recording: File
    """Sweeps of current (pA) and potential (mV): npz, CSV, ABF or another format
    that neo reads."""
    out: pathlib.Path
    """Folder to write; it must not exist yet."""
    membrane: pathlib.Path | None = None
    """A recording of the cell with a small step, for resistance and capacitance."""
    capacitance: float | None = None
    """Capacitance of the cell, in pF, if there is no such recording."""
    use: tuple[int, ...] = ()
    """Sweeps, counted from 0, to measure features from; by default all. The other
    sweeps are predicted."""
    neurons: int = 200
    """Number of neurons in the ensemble."""
    spread: float = 0.3
    """Spread of candidates around the cell's F-I curve, relative to the variation in
    the family."""
    operator: str = "cortical"
    """A family whose operator ships with dicjax, or an operator's folder."""
    seed: int = 0
    """The same seed gives the same ensemble."""
    overwrite: bool = False
    """Replace the content of the folder."""

    def run(self) -> int:
        """Compares and writes; returns the exit status."""
        import jax

        from dicjax.operator import compare, load_operator
        from dicjax.output import check_folder, plot_comparison, write_folder
        from dicjax.recordings import find_steps, read_sweeps

        check_folder(self.out, self.overwrite)
        operator = load_operator(self.operator)
        sweeps = read_sweeps(self.recording)
        steps = find_steps(sweeps)
        capacitance, resistance = self._membrane(sweeps, steps)
        say(f"Predicting {self.neurons} neurons in {len(sweeps.V)} sweeps ...")
        compared = compare(
            jax.random.key(self.seed),
            operator,
            sweeps,
            steps,
            capacitance,
            resistance=resistance,
            use=self.use or None,
            num=self.neurons,
            spread=self.spread,
        )

        def write(folder: pathlib.Path) -> None:
            write_table(compared.table(), folder / "comparison.csv")
            columns = dict(
                zip(operator.names, compared.features.T.tolist(), strict=True)
            )
            write_table(columns, folder / "features.csv")
            about = {
                "capacitance_pF": capacitance,
                "resistance_MOhm": resistance,
                "measured": compared.measured,
                "used_sweeps": list(self.use) or list(range(len(sweeps.V))),
                "operator": self.operator,
                "seed": self.seed,
            }
            _write_manifest(folder, about)
            figure = plot_comparison(compared, sweeps, steps)
            figure.savefig(folder / "comparison.png", dpi=150)

        write_folder(self.out, self.overwrite, write)
        print(compared.summary())
        print(f"Look at {self.out / 'comparison.png'}.")
        return 0

    def _membrane(self, sweeps, steps) -> tuple[float, float | None]:
        from dicjax.recordings import find_steps, passive_membrane, read_sweeps

        if self.membrane is not None:
            small = read_sweeps(self.membrane)
            passive = passive_membrane(small, find_steps(small))
            return self.capacitance or passive.capacitance, passive.resistance
        if self.capacitance is not None:
            return self.capacitance, None
        try:
            passive = passive_membrane(sweeps, steps)
        except ValueError as e:
            raise ValueError(
                f"{e} Give it as `--capacitance`, in pF, or a recording of a small "
                "step as `--membrane`."
            ) from e
        return passive.capacitance, passive.resistance


def _write_manifest(folder: pathlib.Path, about: dict) -> None:
    import json

    from dicjax.output import FORMAT

    text = json.dumps({"format": FORMAT, **about}, indent=2)
    (folder / "manifest.json").write_text(text + "\n")


def _named(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as e:
        raise ValueError(
            f"{text!r} is no measured feature: write name=value, such as rest=-70."
        ) from e


def _check_new(out: pathlib.Path) -> None:
    if out.exists():
        raise ValueError(f"{out} exists already; name another folder.")


def _print_scores(scores) -> None:
    for name, one in scores.items():
        print(
            f"{name} members ({one.num} traces): spike counts {one.spike_count:.1%} "
            f"off, firing missed in {one.missed:.1%} and false in {one.false:.1%}; "
            f"centred relative L2 {one.centred_l2:.1%} (median); widths "
            f"{one.width:.1%}, heights {one.height:.1%} off"
        )


Operator = (
    Annotated[TrainOperator, tyro.conf.subcommand("train")]
    | Annotated[TuneOperator, tyro.conf.subcommand("tune")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[EnsembleOf, tyro.conf.subcommand("ensemble")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
)


@dataclasses.dataclass(frozen=True)
class OperatorCommand:
    """The neural operator: currents and features of neurons in, potentials out."""

    command: tyro.conf.OmitSubcommandPrefixes[Operator]

    def run(self) -> int:
        """Runs the command; returns the exit status."""
        return self.command.run()
