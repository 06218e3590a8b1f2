"""Features of the response to a step of current: spikes and their shape.

Physiologists compare neurons by these features. They are computed from regularly
sampled traces, simulated or recorded, in batches and in compiled code.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, ScalarLike

from dicjax._core import AnyArray, described, untraced
from dicjax.spikes.detection import find_spikes, ONSET, V_REARM, V_SPIKE
from dicjax.spikes.grouping import mean_of


BEFORE, AFTER = 4.0, 8.0  # ms around a crossing, in which the spike's shape lies
LATE = 0.1  # part of a step, at its end, over which the steady potential is taken


class StepResponse(eqx.Module):
    """Features of the response to one step of current.

    A feature that a trace does not have is nan: the latency of a silent cell, the
    adaptation of fewer than three spikes, the sag of a cell that is not hyperpolarised.

    - `num_spikes`: the number of spikes during the step.
    - `rate`: inverse of the mean interval between spikes, in Hz; 0 with fewer than two.
    - `latency`: the time of the first spike, in ms from the onset of the step.
    - `adaptation`: mean of (next - last) / (next + last) over neighbouring intervals.
    - `height`: mean height of spikes, from where they begin to their peaks, in mV.
    - `width`: mean width of spikes at half of that height, in ms.
    - `depth`: mean of the lowest potentials between spikes, in mV.
    - `rest`: potential before the step, in mV.
    - `steady`: potential over the last tenth of the step, in mV.
    - `sag`: the rise of the potential from its lowest value in the step to `steady`, as
        a part of its largest deflection; only of steps that hyperpolarise.
    """

    num_spikes: Int[Array, "*cells"]
    rate: Float[Array, "*cells"]
    latency: Float[Array, "*cells"]
    adaptation: Float[Array, "*cells"]
    height: Float[Array, "*cells"]
    width: Float[Array, "*cells"]
    depth: Float[Array, "*cells"]
    rest: Float[Array, "*cells"]
    steady: Float[Array, "*cells"]
    sag: Float[Array, "*cells"]

    def __repr__(self) -> str:
        return described(self)


@untraced("every", "start", "stop", "max_spikes")
@eqx.filter_jit
def step_response(
    V: Float[AnyArray, "*cells times"],
    every: float,
    start: float,
    stop: float,
    *,
    max_spikes: int = 64,
    V_spike: ScalarLike = V_SPIKE,
    V_rearm: ScalarLike = V_REARM,
) -> StepResponse:
    """Measures responses to a step of current.

    A spike is, as everywhere in dicjax, an upward crossing of one potential that a
    later fall below another confirms. Its time is interpolated.

    **Arguments:**

    - `V`: potentials, in mV, sampled every `every` ms from 0 on.
    - `start`, `stop`: when the step begins and ends, in ms.
    - `max_spikes`: how many spikes rate and shape are measured from; later spikes are
        only counted.
    - `V_spike`, `V_rearm`: these potentials, in mV. Those of a [`dicjax.Neuron`][] are
        its `spike_levels`.

    **Returns:**

    A [`dicjax.StepResponse`][] with the leading axes of `V`.

    **Raises:**

    - `ValueError`: if `every` is not positive, or the step does not lie within the
        trace.
    - `TypeError`: if another argument than `V` is traced.
    """
    if not every > 0:
        raise ValueError(f"Samples must be more than 0 ms apart, got every={every}.")
    duration = V.shape[-1] * every
    if not 0 <= start < stop <= duration:
        raise ValueError(
            f"A step from {start} to {stop} ms does not lie within a trace of "
            f"{duration:g} ms: give times in ms from the trace's first sample."
        )
    levels = {"V_spike": V_spike, "V_rearm": V_rearm}
    one = lambda V: _response_of_one(V, every, start, stop, max_spikes, levels)
    flat = V.reshape(-1, V.shape[-1])
    response = jax.vmap(one)(flat)
    return jax.tree.map(lambda x: x.reshape(*V.shape[:-1], *x.shape[1:]), response)


def _response_of_one(V, every, start, stop, max_spikes, levels):
    dtype = V.dtype
    t = jnp.arange(len(V), dtype=dtype) * jnp.asarray(every, dtype)
    within = (t >= start) & (t < stop)
    within_step = {"max_spikes": max_spikes, "within": within[1:]}
    spikes = find_spikes(V, every, **within_step, **levels)
    index, times, has = spikes.index, spikes.times, spikes.index >= 0
    V_rearm = jnp.asarray(levels["V_rearm"], dtype)
    shape = jax.vmap(lambda i: _shape(V, i, every, V_rearm))(index)
    height, width = (mean_of(x, has & jnp.isfinite(x)) for x in shape)
    # What is not there is one, so that gradients of what is stay finite.
    between = has[1:]
    intervals = jnp.where(between, times[1:] - jnp.where(has, times, 0)[:-1], 1)
    mean_interval = mean_of(intervals, between)
    change = (intervals[1:] - intervals[:-1]) / (intervals[1:] + intervals[:-1])
    rest = mean_of(V, (t >= start * (1 - LATE)) & (t < start))
    steady = mean_of(V, (t >= stop - LATE * (stop - start)) & (t < stop))
    lowest = jnp.min(jnp.where(within, V, jnp.inf))
    is_below = steady < rest
    sag = (steady - lowest) / jnp.where(is_below, rest - lowest, 1)
    return StepResponse(
        num_spikes=spikes.num,
        rate=jnp.where(between[0], 1000 / mean_interval, 0),
        latency=jnp.where(has[0], times[0] - start, jnp.nan),
        adaptation=mean_of(change, between[1:]),
        height=height,
        width=width,
        depth=_depth(V, index, has),
        rest=rest,
        steady=steady,
        sag=jnp.where(is_below, sag, jnp.nan),
    )


def _shape(V, index, every, V_rearm):
    """Height and width of the spike that crosses after sample `index`."""
    num_before, num_after = (max(2, round(x / every)) for x in (BEFORE, AFTER))
    k = jnp.arange(num_before + num_after)
    i = k - num_before
    around = V[jnp.clip(index + i, 0, len(V) - 1)]
    slope = jnp.append(around[1:] - around[:-1], 0) / jnp.asarray(every, V.dtype)
    is_rising = (slope >= ONSET) | (i > 0)
    # The first sample from which on the potential never rises more slowly.
    begin = 1 + jnp.max(jnp.where(is_rising, -1, k))
    V_begin = around[jnp.minimum(begin, num_before)]
    falls = (around < V_rearm) & (i > 0)
    over = jnp.where(jnp.any(falls), jnp.argmax(falls), len(i))
    peak = jnp.argmax(jnp.where((i > 0) & (k < over), around, -jnp.inf))
    V_peak = around[peak]
    half = (V_begin + V_peak) / 2
    low = around < half
    left = jnp.max(jnp.where(low & (k < peak), k, -1))
    right = jnp.min(jnp.where(low & (k > peak), k, len(i)))
    whole = (left >= 0) & (right < len(i))
    left, right = jnp.maximum(left, 0), jnp.minimum(right, len(i) - 1)
    cross = lambda a, b: (half - around[a]) / jnp.where(whole, around[b] - around[a], 1)
    beyond = cross(right - 1, right) - cross(left, left + 1)
    width = ((right - 1 - left).astype(V.dtype) + beyond) * jnp.asarray(every, V.dtype)
    return V_peak - V_begin, jnp.where(whole, width, jnp.nan)


def _depth(V, index, has):
    """Mean of the lowest potentials between spikes."""
    # The spike that each sample follows; before the first, a number that is not used.
    marks = jnp.zeros(len(V), jnp.int32).at[jnp.where(has, index, len(V))].add(1)
    number = jnp.cumsum(marks) - 1
    number = jnp.where(number < 0, len(index), number)
    lowest = jax.ops.segment_min(V, number, len(index) + 1)
    return mean_of(lowest[: len(index) - 1], has[1:])
