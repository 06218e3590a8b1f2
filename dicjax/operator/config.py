"""The shape of a neural operator, and how it is trained."""

import dataclasses
from typing import Annotated

from dicjax._core import Count, Seed, Within


Size = Annotated[int, Within(1, 100_000)]


@dataclasses.dataclass(frozen=True)
class OperatorConfig:
    """The shape of a neural operator."""

    width: Size = 128
    """Width of the network that reads features."""
    num_layers: Size = 6
    """Its layers."""
    num_frequencies: Annotated[int, Within(0, 1000)] = 3
    """Sinusoids per feature."""
    num_knots: Annotated[int, Within(2, 10_000)] = 48
    """Potentials at which curves are corrected."""
    step: Annotated[float, Within(1e-3, 0.5, "ms")] = 0.1
    """Longest time step, in ms."""


@dataclasses.dataclass(frozen=True)
class OperatorTraining:
    """How a neural operator is trained."""

    members: Count = 20_000
    """How many neurons of the family to characterise."""
    num_steps: Count = 100_000
    """Optimiser steps."""
    batch_size: Count = 512
    """Neurons per step, each with 32 ms of its trajectory."""
    pool: Count = 2048
    """Neurons that are simulated side by side."""
    num_corrections: Annotated[int, Within(0, 10**9)] = 1500
    """Optimiser steps that correct the curves."""
    learning_rate: Annotated[float, Within(0, 10, is_open=True)] = 1e-2
    """Peak learning rate, reached after a warm-up and left along a cosine."""
    seed: Seed = 0
    """Seed of everything random, but for the members."""
    library_seed: Seed = 0
    """Seed of the members."""
