"""What cells did, at times of one's choice: the values that all solvers share."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Real

from dicjax._core import described, OrNone, outcome, Scalar
from dicjax.neurons import Neuron
from dicjax.simulation.lanes import Lanes


class Moment(eqx.Module):
    """A time in ms as a whole number and the rest: one float would lose digits."""

    whole: Int[Array, "*times"]
    rest: Float[Array, "*times"]

    def __getitem__(self, i) -> "Moment":
        return Moment(self.whole[i], self.rest[i])


class SavedState(eqx.Module):
    """Where cells stand at the end of a trajectory.

    - `until`: the time of that end; `lanes`: the cells some bursts before it.
    - `num_bursts`: how many bursts, which are taken once more to go on; none after a
        diffrax solver.
    """

    lanes: Lanes
    until: Moment
    num_bursts: Int[Array, "*cells"]

    def __repr__(self) -> str:
        at = lambda: np.asarray(self.until.whole) + np.asarray(self.until.rest)
        return described(self, lambda: f"at {np.max(at()):g} ms")


class Trajectory(eqx.Module):
    """What cells did, at times of one's choice.

    - `ts`: these times, in ms.
    - `V`: potentials, in mV.
    - `gates`, `Ca`: gates in channel order, and calcium in µM, with `states=True`.
    - `currents`: of every channel, in µA/cm², outward positive, with `currents=True`.
    - `spike_times`: of the first `max_spikes` spikes, in ms, padded with inf.
    - `num_spikes`: how many spikes there were.
    - `succeeded`: whether everything stayed finite, the steps were enough, and no spike
        was lost. Potentials that are not known are nan.
    - `overflowed`: whether spikes are missing in `spike_times`.
    - `fell_short`: as in [`dicjax.Run`][].
    - `num_steps`: how many steps were taken.
    - `final`: where the cells stand. Another [`dicjax.solve`][] goes on from there.
    """

    ts: Real[Array, " times"]
    V: Float[Array, "*cells times"]
    gates: Float[Array, "*cells times gates"] | OrNone
    Ca: Float[Array, "*cells times"] | OrNone
    currents: Float[Array, "*cells times channels"] | OrNone
    spike_times: Float[Array, "*cells spikes"]
    num_spikes: Int[Array, "*cells"]
    succeeded: Bool[Array, "*cells"]
    overflowed: Bool[Array, "*cells"]
    fell_short: Bool[Array, "*cells"]
    num_steps: Int[Array, "*cells"]
    final: SavedState

    def __repr__(self) -> str:
        return described(self, lambda: outcome(self))


class Kept(NamedTuple):
    """What a trajectory holds beside potentials."""

    max_spikes: int
    states: bool
    currents: bool


class Followed(NamedTuple):
    """One cell after its integration, however that was done.

    - `V`, `others`: potentials, and gates and calcium if they are kept, at the times.
    - `spikes`: moments of spikes, infinite where there is none, and minus infinite
        where there is a shortfall; `is_new`: which of them no earlier trajectory told.
    - `num_steps`: how many steps were taken; `is_done`: whether they were enough, and
        stayed finite; `has_lost`: whether spikes came too fast to be told apart.
    - `final`: where the cell stands.
    """

    V: Float[Array, " times"]
    others: PyTree
    spikes: Moment
    is_new: Bool[Array, " moments"]
    num_steps: Int[Array, ""]
    is_done: Bool[Array, ""]
    has_lost: Bool[Array, ""]
    final: SavedState


def fields_of(
    neuron: Neuron,
    g: Float[Array, " channels"],
    found: Followed,
    ts: Moment,
    kept: Kept,
) -> dict[str, Any]:
    """The fields of the trajectory of one cell, but for its times."""
    V, spikes = found.V, found.spikes
    fell_short = jnp.any(found.is_new & (spikes.rest == -jnp.inf))
    is_kept = found.is_new & (jax.vmap(after, (0, None))(spikes, ts[-1]) <= 0)
    is_kept &= jnp.isfinite(spikes.rest)
    num = jnp.sum(is_kept, dtype=jnp.int32)
    place = jnp.where(is_kept, jnp.cumsum(is_kept) - 1, kept.max_spikes)
    spike_times = jnp.full(kept.max_spikes, jnp.inf, V.dtype)
    times = spikes.whole.astype(V.dtype) + spikes.rest
    gates = Ca = currents = None
    if kept.states:
        states, Ca = found.others
        gates = jnp.stack((*states, V), axis=-1)[:, :-1]  # also if there are none
        if kept.currents:
            unit = jax.vmap(neuron.unit_currents)(V, states, Ca)
            currents = jnp.stack(unit, axis=-1) * g[None]
    is_rising = jnp.all(jax.vmap(after)(ts[1:], ts[:-1]) > 0)
    is_known = jnp.all(jnp.isfinite(V))
    return {
        "V": V,
        "gates": gates,
        "Ca": Ca,
        "currents": currents,
        "spike_times": spike_times.at[place].set(times, mode="drop"),
        "num_spikes": num,
        "succeeded": is_known & found.is_done & is_rising & ~found.has_lost,
        "overflowed": found.has_lost | (num > kept.max_spikes),
        "fell_short": fell_short,
        "num_steps": found.num_steps,
        "final": found.final,
    }


def after(a: Moment, b: Moment) -> Scalar:
    """How much later `a` is than `b`, in ms."""
    return (a.whole - b.whole).astype(a.rest.dtype) + a.rest - b.rest


def moments(ts: Any, dtype: Any) -> Moment:
    """Times in ms, of which those in float64 keep their digits."""
    numpy = jnp if isinstance(ts, jax.Array) else np
    whole = numpy.floor(ts)
    rest = numpy.asarray(ts - whole, dtype)
    return Moment(jnp.asarray(whole, jnp.int32), jnp.asarray(rest))
