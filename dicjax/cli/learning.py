"""Commands that train encoders."""

import dataclasses
from typing import Annotated

from tyro.conf import arg, Positional

from dicjax._core import Count, from_first
from dicjax.cli.common import draw_apart, Flat, Progress
from dicjax.cli.joining import Training
from dicjax.inference import (
    AdapterConfig,
    DensityConfig,
    EmulatorConfig,
    EncoderConfig,
    find_neuron,
    fit_adapter,
    fit_encoder,
    Fitted,
    TrainingConfig,
)
from dicjax.neurons import Neuron


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderTraining(Training):
    """A command that trains an encoder, with its density and its emulator."""

    density: DensityConfig = DensityConfig()
    emulator: EmulatorConfig = EmulatorConfig()

    def common(self, neuron: Neuron, on_progress: Progress | None) -> dict:
        """Arguments of both trainings."""
        swept = None
        if (folder := self.sweep) is not None:
            from dicjax.sweeps import swept_dataset

            swept = from_first(lambda: swept_dataset(folder, neuron))
        return {
            "density": self.density,
            "emulator": self.emulator,
            "data": self.data,
            "simulated": swept,
            "on_progress": on_progress,
        }

    def report(self, trained: Fitted) -> None:
        """Prints a row for each kind of test members and firing pattern.

        Draws the losses into the folder of the training's state, if there is one.
        """
        if self.data is not None and trained.folder is not None:
            from dicjax.output import plots

            of = trained.trained
            path = trained.folder / "training.png"
            draw = lambda: plots.plot_training(of.losses, of.validation)
            draw_apart(lambda path: draw().savefig(path, dpi=150), path)
        for name, table in trained.tests.items():
            for label, row in table.items():
                print(
                    f"{name}, {label} ({row['num']}): error of g_s "
                    f"{row['mae_g_s']:.2f}, of g_u {row['mae_g_u']:.2f}; 90 % regions "
                    f"hold {100 * row['coverage_90']:.0f} % of true values"
                )
        own = self.out / "neuron.py"  # of a neuron that a Python file declares
        named = own if own.exists() else self.out
        print(f"Use it with `dicjax generate RECORDING --model {named}`.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(EncoderTraining):
    """Simulate members of a model, train an encoder on them and write a checkpoint.

    For your own model, `dicjax adapt` is much faster.

    For example: dicjax train stg-prinz --members 100000 --data training --out prinz
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A model's name: stg, stg-prinz, da or another with a recipe."""
    members: Count = 300_000
    """Number of neurons to simulate."""
    encoder: EncoderConfig = EncoderConfig()
    training: TrainingConfig = TrainingConfig()

    def train(self, on_progress: Progress | None) -> Fitted:
        neuron, file = find_neuron(self.model)
        if file is not None:
            raise ValueError(
                f"{file} is a neuron of your own: use `dicjax adapt {file}`."
            )
        return fit_encoder(
            neuron,
            self.out,
            num_members=self.members,
            config=self.encoder,
            training=self.training,
            **self.common(neuron, on_progress),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapt(EncoderTraining):
    """Adapt an encoder that ships with dicjax to another neuron, in minutes.

    Simulates members of NEURON, trains a low-rank adapter of the encoder on them, and
    writes a checkpoint that `dicjax generate --model FOLDER` accepts. A Python file is
    run, here and whenever it is named. For a neuron that a Python file declares, a copy
    is kept in the checkpoint and never run unless it is named, as `--model
    FOLDER/neuron.py`. Run only files that you trust.

    For example: dicjax adapt my_neuron.py --out my_neuron
    """

    neuron: Annotated[Positional[str], arg(metavar="NEURON")]
    """A Python file that declares `neuron`, with a recipe, or a model's name."""
    base: Annotated[str, arg(metavar="MODEL")] = "stg"
    """The model whose encoder is adapted."""
    adapter: Flat[AdapterConfig] = AdapterConfig()

    def train(self, on_progress: Progress | None) -> Fitted:
        neuron, file = find_neuron(self.neuron)
        return fit_adapter(
            neuron,
            self.out,
            base=self.base,
            adapting=self.adapter,
            neuron_file=file,
            **self.common(neuron, on_progress),
        )
