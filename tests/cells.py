"""Cells that tests of the simulation share, and how they look at spikes."""

from typing import Any

import jax.random as jr
import numpy as np

from dicjax.dics.sampling import compensate
from dicjax.neurons.channels import GatedChannel
from dicjax.neurons.curves import Constant
from dicjax.neurons.models import MODELS
from dicjax.neurons.neuron import Neuron


STG = MODELS["stg"]()
TARGETS = np.repeat(
    [[5.0, 4.0], [15.0, 8.0], [-8.0, 4.0], [-15.0, 5.0], [-4.0, 8.0]],
    [2, 2, 4, 2, 2],
    0,
)


def twelve_cells() -> np.ndarray:
    """Conductances (mS/cm²) of cells that fire or burst."""
    population = compensate(jr.key(0), STG, TARGETS)
    assert population.num_ok == 12
    return population.g.astype(np.float32)


def spikes_of(run, cell: Any = ...):
    times = run.spike_times[cell]
    return times[np.isfinite(times)]


def resistor(name):
    leak, scales = GatedChannel("leak", reversal=0.0), (Constant(1.0), Constant(2.0))
    return Neuron(name, (leak,), (*scales, None), 0.0, initial_V=0.0)
