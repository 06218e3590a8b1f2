"""Everything a user may set, defined once for the API, command line and saved runs."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder."""

    width: int = 64
    """Features per token."""
    num_heads: int = 2
    """Attention heads per block."""
    num_blocks: int = 2
    """Self-attention blocks."""
    latent: int = 16
    """Size of the summary of a spike train."""
    num_components: int = 4
    """Gaussians in the posterior."""
    max_spikes: int = 96
    """Spikes read at once; longer trains are read in windows."""
    num_windows: int = 8
    """Windows that a longer train is read in."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How an encoder is trained."""

    num_steps: int = 14_000
    """Optimiser steps."""
    batch_size: int = 128
    """Trains per step."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached after a warm-up and left along a cosine."""
    weight_decay: float = 1e-4
    """Decoupled weight decay."""
    max_jitter: float = 2.0
    """Largest standard deviation of spike-time jitter, in ms."""
    max_missed: float = 0.05
    """Largest share of spikes missed."""
    seed: int = 0
    """Seed of everything random."""


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """How hard a population is searched for."""

    budget: int = 20_000
    """Candidates simulated at most."""
    spread: float = 2.0
    """How far corrected candidates stray at first, in standard deviations of the
    conductances of those that fire most alike."""
    out_of_range: Literal["refuse", "try"] = "refuse"
    """What to do with a recording unlike anything that the model does."""
