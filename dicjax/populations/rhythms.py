"""Regular rhythms, whose times JAX differentiates with respect to anything.

A neuron is simulated until its spikes show its rhythm. From there, the limit cycle is
found, and its times depend on parameters as the implicit function theorem says
(`rhythm_gradient`). Tangents take part in one last cycle only.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from dicjax._core import (
    HasConductances,
    is_traced,
    jax_conductances_of,
    solve,
    untraced,
)
from dicjax.neurons import Neuron
from dicjax.populations.evaluation import simulated_times, stimulus_for
from dicjax.populations.rhythm_gradient import (
    cycle,
    linearised,
    observed_spikes,
    rhythm_of,
    state_at_onset,
)
from dicjax.simulation import (
    AbstractStimulus,
    Cell,
    in_a_row,
)
from dicjax.spikes import BURSTING, spike_features, TONIC


TOLERANCES = (1e-2, 1e-3, 3e-5)  # of steps: derivatives are good to some 1e-4
NUM_PROBED = 5  # times at which a stimulus has to be the same


class Rhythm(eqx.Module):
    """The limit cycles of neurons that fire regularly.

    Their times can be differentiated in forward mode. They are nan where a neuron has
    no regular rhythm, and their derivatives are nan where they are not trusted.

    - `period`: of the cycle, in ms: from burst to burst, or from spike to spike.
    - `burst_duration`: first to last spike of a burst, in ms; zero of tonic firing.
    - `mean_isi`: mean interval between spikes, in ms.
    - `num_spikes`: in one cycle; zero where there is none.
    - `disagreement`: of two cycles, the second in shorter steps, over their slopes by
        logarithms of conductances: the largest difference, relative to the largest
        slope of the same time, or to 0.05 if that is more.
    - `is_trusted`: whether the cycle is a stable one and they agree within 10 %.
    """

    period: Float[Array, "*cells"]
    burst_duration: Float[Array, "*cells"]
    mean_isi: Float[Array, "*cells"]
    num_spikes: Int[Array, "*cells"]
    disagreement: Float[Array, "*cells"]
    is_trusted: Bool[Array, "*cells"]


@untraced("duration", "discard", "dt")
def rhythm(
    neuron: Neuron,
    g: Float[ArrayLike, "*cells channels"] | HasConductances,
    *,
    stimulus: AbstractStimulus | Callable | None = None,
    duration: float | None = None,
    discard: float | None = None,
    dt: float | None = None,
) -> Rhythm:
    """Finds the regular rhythm of neurons, as a pure function to differentiate.

    `jax.jacfwd` and `jax.jvp` give derivatives with respect to conductances and every
    number of the neuron and of the stimulus. They are derivatives of the limit cycle,
    by the implicit function theorem, as after infinitely many cycles. The number of
    spikes in a burst has none. Reverse mode (`jax.grad`) does not work, because a cycle
    takes as many steps as it needs.

    **Arguments:**

    - `neuron`: the model. Each of its numbers may be an array with the axes of cells in
        front, which are broadcast against those of `g` and of the stimulus.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`. Leading
        axes index independent cells. Its dtype is that of the computation.
    - `stimulus`: an applied current that is constant after `discard` ms, such as
        `Step(10.0)`; by default that of the recipe, or none.
    - `duration`, `discard`: of the simulation that shows the rhythm, in ms; spikes
        after `discard` are looked at, at most 512 of them. By default what the recipe
        says.
    - `dt`: the time step of that simulation, in ms, as of [`dicjax.simulate`][]; by
        default half of the recipe's. Cycles have steps of their own.

    **Returns:**

    A [`dicjax.Rhythm`][].

    **Raises:**

    - `ValueError`: if the neuron has no recipe and a time is not given, times or
        conductances are bad, the stimulus changes after `discard`, or conductances,
        numbers of the neuron and stimulus are for other numbers of cells.
    """
    g = jax_conductances_of(neuron, g)
    duration, discard, dt = simulated_times(neuron, duration, discard, dt)
    cells = in_a_row(neuron, g, stimulus_for(neuron, stimulus))
    cell = cells.row
    check_constant(cell, discard, duration)
    times = (jnp.asarray(x, g.dtype) for x in (duration, discard, dt))
    found = _rhythms(cell, *times)
    return jax.tree.map(lambda x: x.reshape(cells.shape), found)


@eqx.filter_jit
def _rhythms(cell, duration, discard, dt) -> Rhythm:
    one = lambda cell: _rhythm(cell, duration, discard, dt)
    return jax.vmap(one, (cell.axes(),))(cell)


def _rhythm(cell: Cell, duration, discard, dt) -> Rhythm:
    """The rhythm of one cell."""
    frozen = jax.lax.stop_gradient(cell)
    neuron, g, I = frozen.neuron, frozen.g, frozen.current(discard)
    spikes = observed_spikes(neuron, g, duration, discard, dt, I)
    features = spike_features(spikes)
    seen = rhythm_of(features)
    num, onset_isi = seen.num_spikes, seen.onset_isi
    start = state_at_onset(neuron, g, discard, seen.period, onset_isi, dt, I)
    found, at = linearised(frozen, discard, start, num, seen.period, TOLERANCES)
    # This cycle carries tangents. What it adds to the state adds up over all cycles.
    finest = jnp.asarray(TOLERANCES[-1], at.z.dtype)
    I = cell.current(discard)
    end, times, _ = cycle(cell.neuron, cell.g, at.z, num, seen.period, finest, I)
    same = jnp.eye(len(at.z), dtype=at.z.dtype)
    times = times + at.T_z @ solve(same - at.P_z, end - at.z)
    is_regular = (features.label == TONIC) | (features.label == BURSTING)
    is_regular &= found.is_closed
    is_trusted = is_regular & found.is_trusted
    times = _trusted(jnp.where(is_regular, times, jnp.nan), is_trusted)
    intervals = (num - 1).astype(times.dtype)
    num = jnp.where(is_regular, num, 0)
    return Rhythm(
        period=times[0],
        burst_duration=jnp.where(intervals > 0, times[1] * intervals, times[1] * 0),
        mean_isi=times[0] / jnp.maximum(num, 1).astype(times.dtype),
        num_spikes=num,
        disagreement=jnp.where(is_regular, found.disagreement, jnp.inf),
        is_trusted=is_trusted,
    )


@jax.custom_jvp
def _trusted(x, is_trusted):
    """The value itself, whose derivatives are nan where it is not trusted."""
    del is_trusted
    return x


@_trusted.defjvp
def _trusted_jvp(primals, tangents):
    (x, is_trusted), (dx, _) = primals, tangents
    return x, jnp.where(is_trusted, dx, jnp.nan)


def check_constant(cell: Cell, discard: float, duration: float) -> None:
    """Raises `ValueError` if the current changes from `discard` to `duration` ms.

    Of a current that depends on the state, that is where the cell starts.
    """
    if cell.stimulus is None or is_traced((cell.neuron, cell.stimulus)):
        return  # or there are no values to look at
    dtype, cell = cell.g[0].dtype, Cell(cell.neuron, (), cell.stimulus)
    times = np.linspace(discard, duration, NUM_PROBED, dtype=dtype)

    def probe(t, cell):
        I = cell.current(t)
        return I(cell.neuron.initial_state()) if callable(I) else I

    axes = cell.axes()
    if any(axis == 0 for axis in jax.tree.leaves(axes)):
        probe = jax.vmap(probe, (None, axes))
    with jax.ensure_compile_time_eval():  # conductances may be traced
        probed = np.array([probe(t, cell) for t in jnp.asarray(times)])
    if not np.allclose(probed, probed[:1], rtol=1e-5, atol=1e-7):
        raise ValueError(
            f"`stimulus` must be constant after `discard` ({discard:g} ms), but it "
            f"changes by {np.ptp(probed, axis=0).max():.3g} µA/cm² until "
            f"{duration:g} ms: take a `Step` that has begun, or a later `discard`."
        )
