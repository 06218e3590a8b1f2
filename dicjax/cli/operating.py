"""Commands of the neural operator."""

import dataclasses
import math
import pathlib
from typing import Annotated, Literal

import jax
import numpy as np
from tyro.conf import arg, FlagCreatePairsOff, OmitSubcommandPrefixes, Positional

from dicjax._core import Count, Current, from_first, Milliseconds, Seed, Within
from dicjax.cli.common import (
    check_new,
    Command,
    FolderCommand,
    Group,
    Progress,
    say,
    TableCommand,
    write_table,
)
from dicjax.cli.joining import Training
from dicjax.operator import (
    compare,
    describe_features,
    draw_ensemble,
    EVERY,
    find_family,
    fit_operator,
    load_operator,
    OperatorConfig,
    OperatorTraining,
    read_current,
    read_features,
    respond,
    sampled_step,
    Scores,
    tune_to_feature,
)
from dicjax.recordings import find_steps, passive_membrane, read_sweeps, Steps, Sweeps


OperatorName = Annotated[
    str,
    arg(
        help="A family whose operator ships with dicjax, or an operator's folder.",
        metavar="OPERATOR",
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Simulate members of a family of neurons and train an operator on them.

    Characterises members of the family, corrects the curves of the operator for its
    time step, trains the network that reads features, tests it on new members and
    currents, and writes a checkpoint. With the defaults this takes most of an hour on
    two cores; `--training.members 1000 --training.num-steps 1500
    --training.num-corrections 60` trains a rough operator in two minutes.

    For example: dicjax operator train cortical --data training --out operator
    """

    family: Annotated[Positional[str], arg(metavar="FAMILY")]
    """The family: cortical."""
    operator: OperatorConfig = OperatorConfig()
    training: OperatorTraining = OperatorTraining()

    def train(self, on_progress: Progress | None) -> dict[str, Scores]:
        family, swept = find_family(self.family), None
        if (folder := self.sweep) is not None:
            from dicjax.sweeps import swept_library

            swept = from_first(lambda: swept_library(folder, family))
        return fit_operator(
            family,
            self.out,
            config=self.operator,
            training=self.training,
            data=self.data,
            characterised=swept,
            on_progress=on_progress,
        )

    def report(self, trained: dict[str, Scores]) -> None:
        for name, one in trained.items():
            print(
                f"{name} members ({one.num} traces): spike counts "
                f"{one.spike_count:.1%} off, firing missed in {one.missed:.1%} and "
                f"false in {one.false:.1%}; "
                f"centred relative L2 {one.centred_l2:.1%} (median); widths "
                f"{one.width:.1%}, heights {one.height:.1%} off"
            )
        print(f"Use it with `dicjax operator predict --operator {self.out}`.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tune(Command):
    """Fine-tune an operator to predict one feature better.

    For example: dicjax operator tune sag --out tuned
    """

    feature: Positional[Literal["sag", "width", "height"]]
    """The feature: of a hyperpolarised cell, or of spikes."""
    out: Annotated[pathlib.Path, arg(metavar="FOLDER")]
    """Folder of the new checkpoint; it must not exist yet."""
    operator: OperatorName = "cortical"
    members: Count = 2048
    """Number of neurons of the family to learn from."""
    num_steps: Count = 300
    """Optimiser steps."""
    seed: Seed = 0
    """Seed of everything random."""
    data: Annotated[pathlib.Path | None, arg(metavar="FOLDER")] = None
    """Folder of characterised members."""

    def check_out(self) -> None:
        check_new(self.out, self.data)

    def run(self) -> int:
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
            f"Median error of {self.feature} on test members: {before:.3g} before, "
            f"{after:.3g} after -> {self.out}"
        )
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(FolderCommand):
    """Predict the potential of neurons that receive a current.

    Writes a folder with traces.npz (time_ms, current_uA_cm2, voltage_mV), traces.png
    and manifest.json.

    For example: dicjax operator predict neurons.csv --step 3 --out predicted
    """

    features: Annotated[Positional[pathlib.Path], arg(metavar="TABLE")]
    """CSV with a row per neuron and a column per feature, as `dicjax operator ensemble`
    writes it."""
    current: Annotated[pathlib.Path | None, arg(metavar="TABLE")] = None
    """CSV with columns time_ms and current (µA/cm²), evenly sampled; by default a
    step."""
    step: Annotated[Current, arg(metavar="UA/CM2")] = 2.0
    """Height of the step, in µA/cm²."""
    start: Annotated[Milliseconds, arg(metavar="MS")] = 50.0
    """Start of the step, in ms."""
    stop: Annotated[Milliseconds, arg(metavar="MS")] = 550.0
    """End of the step, in ms."""
    duration: Annotated[Milliseconds, arg(metavar="MS")] = 600.0
    """Predicted time, in ms."""
    operator: OperatorName = "cortical"

    def run(self) -> int:
        from dicjax.output import plots, write_manifest

        operator = load_operator(self.operator)
        features = read_features(self.features, operator)
        current, every = read_current(self.current) if self.current else self._step()
        V = np.asarray(respond(operator, current, features, every=every).V)
        current = np.broadcast_to(current, V.shape)

        def fill(folder: pathlib.Path) -> None:
            np.savez_compressed(
                folder / "traces.npz",
                time_ms=every * np.arange(V.shape[1]),
                current_uA_cm2=current,
                voltage_mV=V,
            )
            write_manifest(folder, {"operator": self.operator, "every_ms": every})

        draw = lambda path: plots.plot_responses(current, V, every).savefig(
            path, dpi=150
        )
        self.write(fill, {"traces.png": draw})
        print(f"{len(V)} neurons, {V.shape[1] * every:g} ms -> {self.out}")
        return 0

    def _step(self) -> tuple[np.ndarray, float]:
        if not 0 <= self.start < self.stop <= self.duration < math.inf:
            raise ValueError(
                f"A step from {self.start} to {self.stop} ms does not lie within "
                f"{self.duration} ms: change `--start`, `--stop` or `--duration`."
            )
        num = round(self.duration / EVERY)
        return sampled_step(self.step, self.start, self.stop, num, EVERY), EVERY


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ensemble(TableCommand):
    """Draw neurons that resemble a cell in its measured features.

    Writes a CSV with a row per neuron and a column per feature. Without measured
    features it draws from the whole family.

    For example: dicjax operator ensemble --measured rest=-70 gain=10 --out neurons.csv
    """

    measured: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """Measured features, as name=value, in the units that `dicjax operator ensemble
    --list` shows: `--measured rest=-70 threshold=1.2 gain=10`."""
    neurons: Count = 200
    """Number of neurons to draw."""
    spread: Annotated[float, Within(0, 100)] = 0.0
    """Spread of the neurons around the measured features, relative to the variation in
    the family."""
    operator: OperatorName = "cortical"
    seed: Seed = 0
    """The same seed gives the same neurons."""
    list: Annotated[bool, FlagCreatePairsOff] = False
    """Only show the features, their units and their ranges."""

    def run(self) -> int:
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
        self.write_table(dict(zip(operator.names, drawn.T, strict=True)))
        if self.out is not None:
            print(f"{self.neurons} neurons -> {self.out}")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(FolderCommand):
    """Compare a recorded cell with an ensemble conditioned on some of its steps.

    RECORDING has a step of current per sweep. Writes a folder with comparison.csv (a
    row per sweep and feature: recorded, and quartiles of the ensemble), features.csv (a
    row per neuron), comparison.png and manifest.json (what was measured, settings).

    For example: dicjax operator compare cell.abf --capacitance 80 --out compared
    """

    recording: Annotated[Positional[pathlib.Path], arg(metavar="RECORDING")]
    """Sweeps of current (pA) and potential (mV): npz, CSV, ABF or another format
    that neo reads."""
    membrane: Annotated[pathlib.Path | None, arg(metavar="RECORDING")] = None
    """A recording of the cell with a small step, for resistance and capacitance."""
    capacitance: Annotated[
        Annotated[float, Within(0, 1e6, "pF")] | None, arg(metavar="PF")
    ] = None
    """Capacitance of the cell, in pF, if there is no such recording."""
    use: Annotated[tuple[Annotated[int, Within(0)], ...], arg(metavar="SWEEP")] = ()
    """Sweeps, counted from 0, to measure features from; by default all. The other
    sweeps are predicted."""
    neurons: Count = 200
    """Number of neurons in the ensemble."""
    spread: Annotated[float, Within(0, 100)] = 0.3
    """Spread of candidates around the cell's F-I curve, relative to the variation in
    the family."""
    operator: OperatorName = "cortical"
    seed: Seed = 0
    """The same seed gives the same ensemble."""

    def run(self) -> int:
        from dicjax.output import plots, write_manifest

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

        def fill(folder: pathlib.Path) -> None:
            write_table(compared.table(), folder / "comparison.csv")
            features = dict(zip(operator.names, compared.features.T, strict=True))
            write_table(features, folder / "features.csv")
            about = {
                "capacitance_pF": capacitance,
                "resistance_MOhm": resistance,
                "measured": compared.measured,
                "used_sweeps": list(self.use) or list(range(len(sweeps.V))),
                "operator": self.operator,
                "seed": self.seed,
            }
            write_manifest(folder, about)

        plot = lambda: plots.plot_comparison(compared, sweeps, steps)
        draw = lambda path: plot().savefig(path, dpi=150)
        self.write(fill, {"comparison.png": draw})
        print(compared.summary())
        print(f"Look at {self.out / 'comparison.png'}.")
        return 0

    def _membrane(self, sweeps: Sweeps, steps: Steps) -> tuple[float, float | None]:
        if self.membrane is None and self.capacitance is not None:
            return self.capacitance, None
        if self.membrane is not None:
            sweeps = read_sweeps(self.membrane)
            steps = find_steps(sweeps)
        try:
            passive = passive_membrane(sweeps, steps)
        except ValueError as e:
            if self.membrane is not None:
                raise
            raise ValueError(
                f"{e} Give the capacitance in pF as `--capacitance`, or a recording of "
                "a small step as `--membrane`."
            ) from e
        return self.capacitance or passive.capacitance, passive.resistance


def _named(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as e:
        raise ValueError(
            f"{text!r} is no measured feature: write name=value, such as rest=-70."
        ) from e


@dataclasses.dataclass(frozen=True)
class Operator(Group):
    """The neural operator: currents and features of neurons in, potentials out."""

    command: OmitSubcommandPrefixes[Train | Tune | Predict | Ensemble | Compare]
