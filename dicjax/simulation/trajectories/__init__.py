"""Potentials of cells at times of one's choice, which JAX differentiates."""

from dicjax.simulation.trajectories.solve import solve as solve
from dicjax.simulation.trajectories.trajectory import (
    SavedState as SavedState,
    Trajectory as Trajectory,
)
