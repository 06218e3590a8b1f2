"""The shape of a neural operator, and how it is trained."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class OperatorConfig:
    """The shape of a neural operator."""

    width: int = 128
    """Width of the network that reads features."""
    num_layers: int = 6
    """Its layers."""
    num_frequencies: int = 3
    """Sinusoids per feature."""
    num_knots: int = 48
    """Potentials at which curves are corrected."""
    step: float = 0.1
    """Longest time step, in ms."""


@dataclasses.dataclass(frozen=True)
class OperatorTraining:
    """How a neural operator is trained."""

    members: int = 20_000
    """How many neurons of the family to characterise."""
    num_steps: int = 100_000
    """Optimiser steps."""
    batch_size: int = 512
    """Neurons per step, each with 32 ms of its trajectory."""
    pool: int = 2048
    """Neurons that are simulated side by side."""
    num_corrections: int = 1500
    """Optimiser steps that correct the curves."""
    learning_rate: float = 1e-2
    """Peak learning rate, reached after a warm-up and left along a cosine."""
    seed: int = 0
    """Seed of everything random, but for the members."""
    library_seed: int = 0
    """Seed of the members."""
