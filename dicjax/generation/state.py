"""What a search is for, and what it has found so far."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dicjax._core import stacked
from dicjax.generation.config import GenerateConfig
from dicjax.generation.result import Round
from dicjax.inference import Checkpoint, FLOOR, Goal, goal, log_conductances, Posterior
from dicjax.neurons import Neuron
from dicjax.populations import (
    Coordinates,
    HIGHEST,
    Known,
    LOWEST,
    NUM_COORDINATES,
    Window,
    window_for,
)
from dicjax.spikes import MAX_AGREED, NUM_COMPARED, Target


Conductances = Float[np.ndarray, "cells channels"]
Source = Literal["posterior", "pilot", "refinement", "correction"]
"""Where candidates come from: draws of the posterior, members of the library with any
drive, near misses refined one by one, or corrected children of the nearest members."""

NUM_OF_LIBRARY = 2048  # members whose activity is known before any is simulated
MAX_NEAR_MISSES = 4096  # that are remembered

# How many candidates are thought to be valid until a source is tried, as a share.
ASSUMED_SHARES: Mapping[Source, float] = {
    "posterior": 1.0,
    "pilot": 0.0,
    "refinement": 0.5,
    "correction": 0.15,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What a search looks for and what it may use. Nothing of it changes.

    - `checkpoint`: of the model whose members are searched.
    - `posterior`: over the target's (g_s, g_u), one row.
    - `latent`: the encoder's summary of the target's train.
    - `num_wanted`: how many members are to be found.

    Members have a drive if the target says how much the recording varies.
    """

    checkpoint: Checkpoint
    target: Target
    posterior: Posterior
    latent: Float[np.ndarray, " latent"]
    num_wanted: int
    config: GenerateConfig

    @property
    def neuron(self) -> Neuron:
        return self.checkpoint.neuron

    @functools.cached_property
    def window(self) -> Window:
        return window_for(self.neuron, self.target)

    @functools.cached_property
    def final_window(self) -> Window:
        """The window of what is delivered: twice as long where members vary."""
        duration, discard = self.window
        return Window(2 * duration - discard if self.is_driven else duration, discard)

    @functools.cached_property
    def final_target(self) -> Target:
        """What delivered members are compared with in that window."""
        duration, discard = self.final_window
        return (
            self.target.for_span(duration - discard) if self.is_driven else self.target
        )

    @property
    def is_driven(self) -> bool:
        """Whether members have a drive of their own."""
        return self.target.agreement is not None

    @property
    def num_errors(self) -> int:
        """How many errors members are judged by."""
        return MAX_AGREED if self.is_driven else NUM_COMPARED

    @functools.cached_property
    def goal(self) -> Goal:
        """The target, as the emulator corrects towards it."""
        return goal(self.target)

    @functools.cached_property
    def bounds(self) -> Float[Array, "2 channels"]:
        """The lowest and highest coordinates of members."""
        highest = self.neuron.bounds
        bounds = np.log([FLOOR * highest, highest])
        if self.is_driven:
            bounds = np.concatenate([bounds, [LOWEST, HIGHEST]], axis=1)
        return jnp.asarray(bounds, jnp.float32)

    def log_g(self, g: Conductances) -> Conductances:
        """Logarithms of conductances, no lower than the bounds."""
        return log_conductances(g, self.neuron.bounds)

    def coordinates(self, makeup: "Makeup") -> Conductances:
        """Where members are: logarithms of conductances, and coordinates of drives."""
        return np.concatenate([self.log_g(makeup.g), makeup.drive], axis=1)

    def makeup_at(self, coordinates: Conductances) -> "Makeup":
        """What members at coordinates are made of."""
        inside = np.clip(coordinates, *np.asarray(self.bounds))
        num = len(self.neuron.channels)
        return Makeup(np.exp(inside[:, :num]), inside[:, num:])


class Makeup(NamedTuple):
    """What members are made of.

    - `g`: maximal conductances, in mS/cm².
    - `drive`: coordinates of their drives; no columns if they have none.
    """

    g: Conductances
    drive: Coordinates


class Members(NamedTuple):
    """Members, and by how much each misses: the largest |ln| of a ratio, 0 if valid."""

    makeup: Makeup
    spike_times: Float[np.ndarray, "cells spikes"]
    distance: Float[np.ndarray, " cells"]


class NearMisses(NamedTuple):
    """Members of the target's pattern that miss it, nearest first, to be refined.

    - `errors`: ln(feature / target); `score`: the largest in units of what is allowed.
    - `num_refined`: how often each was refined already.
    """

    coordinates: Conductances
    errors: Float[np.ndarray, "cells features"]
    score: Float[np.ndarray, " cells"]
    num_refined: Int[np.ndarray, " cells"]


Table = TypeVar("Table", Makeup, Members, NearMisses)


def rows(table: Table, taken: slice | np.ndarray) -> Table:
    return jax.tree.map(lambda x: x[taken], table)


def joined(table: Table, new: Table) -> Table:
    """The members of two tables, those of the first before the others."""
    join = lambda *x: stacked([*x]) if x[0].ndim == 2 else np.concatenate(x)
    return jax.tree.map(join, table, new)


class SearchState(NamedTuple):
    """What a search has found and learned so far. Each step returns a new one.

    - `rounds`: what was simulated, in order.
    - `known`: members that corrections learn from, if any; `near_misses`: those to be
        refined.
    - `found`: valid members that are not yet tried at half the step.
    - `certified`: members that are valid at half of it too, and, if they vary, on a run
        of their own that is twice as long.
    - `num_uncertified`: how many were not.
    - `nearest`: the invalid members that miss by least, as many as are wanted.
    - `spread`: how far corrected candidates stray, in standard deviations.
    - `shares`: of the last candidates from each source that were valid.
    """

    rounds: tuple[Round, ...]
    known: Known | None
    near_misses: NearMisses
    found: Makeup
    certified: Members
    num_uncertified: int
    nearest: Members
    spread: float
    shares: Mapping[Source, float]

    @property
    def num_certified(self) -> int:
        return len(self.certified.distance)

    @property
    def num_simulated(self) -> int:
        return sum(round.num for round in self.rounds)

    @property
    def survival(self) -> float:
        """The share of valid members that still are at half the time step."""
        valid = self.num_certified + 1
        return valid / (valid + self.num_uncertified)

    @property
    def num_expected(self) -> int:
        """How many members are valid, as far as is known."""
        return self.num_certified + int(self.survival * len(self.found.g))

    def share(self, source: Source) -> float:
        """How many candidates from a source are probably valid, as a share."""
        return self.shares.get(source, ASSUMED_SHARES[source])


def initial_state(problem: Problem) -> SearchState:
    """Nothing found; of the library, the members nearest to the target are known."""
    num_drive = NUM_COORDINATES if problem.is_driven else 0
    none = Makeup(
        np.zeros((0, len(problem.neuron.channels)), np.float32),
        np.zeros((0, num_drive), np.float32),
    )
    nowhere, no_errors = problem.coordinates(none), np.zeros((0, problem.num_errors))
    nobody = Members(none, np.zeros((0, 1), np.float32), np.zeros(0))
    return SearchState(
        rounds=(),
        known=None if problem.is_driven else _library(problem),
        near_misses=NearMisses(nowhere, no_errors, np.zeros(0), np.zeros(0, int)),
        found=none,
        certified=nobody,
        num_uncertified=0,
        nearest=nobody,
        spread=problem.config.spread,
        shares={},
    )


def _library(problem: Problem) -> Known:
    target, library = problem.target, problem.checkpoint.library
    nearest = np.argsort(library.errors(target.features))[:NUM_OF_LIBRARY]
    misses = library.log_ratios(target.features)[nearest]
    has_pattern = library.labels[nearest] == target.label
    usable = has_pattern & np.isfinite(misses).all(axis=1)
    return Known(problem.log_g(library.g[nearest]), misses, usable)
