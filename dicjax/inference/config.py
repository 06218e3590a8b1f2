"""Everything a user may set, defined once for the API, command line and saved runs."""

import dataclasses
from typing import Annotated

from dicjax._core import Count, Seed, SomeShare, Within


Size = Annotated[int, Within(1, 100_000)]
Rate = Annotated[float, Within(0, 10, is_open=True)]


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder."""

    width: Size = 64
    """Features per interval."""
    radius: Annotated[int, Within(0, 1000)] = 6
    """Neighbours on either side that an interval is seen with."""
    num_frequencies: Size = 6
    """Sinusoids per interval."""
    num_slots: Size = 4
    """Queries that attend to all intervals."""
    num_heads: Size = 4
    """Attention heads per block."""
    num_blocks: Annotated[int, Within(0, 1000)] = 1
    """Self-attention blocks among the slots."""
    latent: Size = 16
    """Size of the summary of a spike train."""
    hidden: Size = 128
    """Width of the networks between the summary and the posteriors."""
    num_components: Size = 6
    """Gaussians in a posterior."""
    max_spikes: Size = 96
    """Spikes read at once; longer trains are read in windows."""
    num_windows: Size = 8
    """Windows that a longer train is read in."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How an encoder is trained."""

    num_steps: Count = 48_000
    """Optimiser steps."""
    batch_size: Count = 256
    """Trains per step."""
    learning_rate: Rate = 2e-3
    """Peak learning rate, reached after a warm-up and left along a cosine; a third of
    the steps then starts again from half of it."""
    weight_decay: Annotated[float, Within(0, 1)] = 1e-4
    """Decoupled weight decay."""
    max_jitter: Annotated[float, Within(0, 1000, "ms")] = 5.0
    """Largest standard deviation of spike-time jitter, in ms."""
    max_missed: SomeShare = 0.05
    """Largest share of spikes missed."""
    max_spurious: SomeShare = 0.03
    """Largest share of spikes that are none of the neuron's."""
    max_drift: SomeShare = 0.2
    """Largest change of rate over a train, as a share."""
    anomalies: SomeShare = 0.15
    """Share of trains that are turned into what no single neuron fires."""
    crops: tuple[Size, ...] = (24, 48, 96)
    """Lengths of the stretches of trains to learn from, in spikes. A step sees one of
    them; short ones are cheaper."""
    crop_shares: tuple[SomeShare, ...] = (0.45, 0.35, 0.2)
    """Share of the steps that see each length."""
    save_every: Count = 2000
    """Steps between validations, at which the state is kept."""
    num_test: Count = 8000
    """Neurons to simulate for each test, and for calibration."""
    seed: Seed = 0
    """Seed of everything random."""


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """How an encoder is turned to another model."""

    rank: Size = 16
    """Rank of what is added to each weight matrix."""
    members: Count = 100_000
    """How many neurons to simulate."""
    training: TrainingConfig = TrainingConfig(num_steps=12_000)
    """How the adapter is trained."""


@dataclasses.dataclass(frozen=True)
class DensityConfig:
    """The shape of a density of conductances, and how it is trained."""

    width: Size = 64
    """Width of its networks."""
    num_components: Size = 8
    """Gaussians per conductance."""
    num_steps: Count = 8_000
    """Optimiser steps."""
    batch_size: Count = 1024
    """Members per step."""
    learning_rate: Rate = 2e-3
    """Peak learning rate."""


@dataclasses.dataclass(frozen=True)
class EmulatorConfig:
    """The shape of an emulator, and how it is trained."""

    width: Size = 128
    """Width of its network."""
    num_layers: Size = 4
    """Layers."""
    num_steps: Count = 12_000
    """Optimiser steps."""
    batch_size: Count = 1024
    """Members per step."""
    learning_rate: Rate = 2e-3
    """Peak learning rate."""
