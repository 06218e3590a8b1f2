"""Commands that train encoders."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

import tyro

from dicjax.cli.common import Flat
from dicjax.cli.joining import Distributed, join, progress_of_first
from dicjax.inference import (
    AdapterConfig,
    DensityConfig,
    EmulatorConfig,
    EncoderConfig,
    TrainingConfig,
)


if TYPE_CHECKING:
    from dicjax._core import Swept
    from dicjax.inference import Fitted
    from dicjax.neurons import Neuron


@dataclasses.dataclass(frozen=True)
class Train:
    """Simulate members of a model, train an encoder on them and write a checkpoint.

    For your own model, `dicjax adapt` is much faster.
    """

    model: tyro.conf.Positional[str]
    """A model's name: stg, stg-prinz, da or another with a recipe."""
    out: pathlib.Path
    """Folder of the checkpoint; it must not exist yet."""
    members: int = 300_000
    """Number of neurons to simulate."""
    sweep: pathlib.Path | None = None
    """Folder of a sweep of job "dataset" that has simulated the members. It replaces
    `--members` and the seed."""
    data: pathlib.Path | None = None
    """Folder of simulated data and the state of training. With it, the same command
    continues where it was stopped."""
    distributed: Distributed = None
    """Train in several processes that all run this command: auto under Slurm or MPI;
    elsewhere process I of N, from 0. Process 0 listens at HOST:PORT."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    density: DensityConfig = dataclasses.field(default_factory=DensityConfig)
    emulator: EmulatorConfig = dataclasses.field(default_factory=EmulatorConfig)

    def run(self) -> int:
        """Trains and writes; returns the exit status."""
        from dicjax._core import from_first, is_first
        from dicjax.inference import find_neuron, fit_encoder

        join(self.distributed)
        from_first(lambda: _check_new(self.out))
        neuron, file = find_neuron(self.model)
        if file is not None:
            raise ValueError(
                f"{file} is a neuron of your own: use `dicjax adapt {file}`."
            )
        with progress_of_first() as progress:
            fitted = fit_encoder(
                neuron,
                self.out,
                num_members=self.members,
                config=self.encoder,
                training=self.training,
                density=self.density,
                emulator=self.emulator,
                data=self.data,
                simulated=_swept(self.sweep, neuron),
                on_progress=progress,
            )
        if is_first():
            _draw_training(fitted)
            _print_tests(fitted.tests, self.out)
        return 0


@dataclasses.dataclass(frozen=True)
class Adapt:
    """Adapt an encoder that ships with dicjax to another neuron, in minutes.

    Simulates members of NEURON, trains a low-rank adapter of the encoder on them, and
    writes a checkpoint that `dicjax generate --model FOLDER` accepts.
    """

    neuron: tyro.conf.Positional[str]
    """A Python file that declares `neuron`, with a recipe, or a model's name."""
    out: pathlib.Path
    """Folder of the checkpoint; it must not exist yet."""
    base: str = "stg"
    """The model whose encoder is adapted."""
    sweep: pathlib.Path | None = None
    """Folder of a sweep of job "dataset" that has simulated the members. Their number
    and seed are then the sweep's."""
    data: pathlib.Path | None = None
    """Folder of simulated data and the state of training. With it, the same command
    continues where it was stopped."""
    distributed: Distributed = None
    """Train in several processes that all run this command: auto under Slurm or MPI;
    elsewhere process I of N, from 0. Process 0 listens at HOST:PORT."""
    adapter: Flat[AdapterConfig] = dataclasses.field(default_factory=AdapterConfig)
    density: DensityConfig = dataclasses.field(default_factory=DensityConfig)
    emulator: EmulatorConfig = dataclasses.field(default_factory=EmulatorConfig)

    def run(self) -> int:
        """Adapts and writes; returns the exit status."""
        from dicjax._core import from_first, is_first
        from dicjax.inference import find_neuron, fit_adapter

        join(self.distributed)
        from_first(lambda: _check_new(self.out))
        neuron, file = find_neuron(self.neuron)
        with progress_of_first() as progress:
            fitted = fit_adapter(
                neuron,
                self.out,
                base=self.base,
                adapting=self.adapter,
                density=self.density,
                emulator=self.emulator,
                data=self.data,
                neuron_file=file,
                simulated=_swept(self.sweep, neuron),
                on_progress=progress,
            )
        if is_first():
            _draw_training(fitted)
            _print_tests(fitted.tests, self.out)
        return 0


def _swept(folder: pathlib.Path | None, neuron: "Neuron") -> "Swept | None":
    """The dataset of a sweep, if one was named."""
    if folder is None:
        return None
    from dicjax._core import from_first
    from dicjax.sweeps import swept_dataset

    return from_first(lambda: swept_dataset(folder, neuron))


def _check_new(out: pathlib.Path) -> None:
    if out.exists():
        raise ValueError(f"{out} exists already; name another folder.")


def _draw_training(fitted: "Fitted") -> None:
    """Draws the losses into the folder of the training's state, if there is one."""
    if fitted.folder is None:
        return
    from dicjax.output import plot_training

    figure = plot_training(fitted.trained.losses, fitted.trained.validation)
    figure.savefig(fitted.folder / "training.png", dpi=150)


def _print_tests(tests: dict, out: pathlib.Path) -> None:
    """A row for each kind of test members and firing pattern."""
    for name, table in tests.items():
        for label, row in table.items():
            print(
                f"{name}, {label} ({row['num']}): error of g_s {row['mae_g_s']:.2f}, "
                f"of g_u {row['mae_g_u']:.2f}; 90 % regions hold "
                f"{100 * row['coverage_90']:.0f} % of truths"
            )
    print(f"Use it with `dicjax generate RECORDING --model {out}`.")
