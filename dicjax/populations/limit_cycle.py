r"""One cycle of a rhythm, integrated so that its derivatives can be relied on.

Neurons are stiff: in a spike the membrane follows its channels within some 0.01 ms. The
midpoint rule of simulations lets what is faster than a step ring. Potentials ring
little, since they are near their equilibrium, but derivatives of the state jump there
by a lot with each spike. Ringing derivatives depend on where steps happen to lie.

Here, gates and the membrane relax through exponentials (Krogstad's method of fourth
order), which damp what is fast. Steps are as long as an estimate of their error allows,
and are constants for derivatives. A spike is found on the cubic through a step's ends.

??? cite "Reference"

    Krogstad (2005). *Generalized integrating factor methods for stiff PDEs.* J. Comput.
    Phys. 203(1).
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dicjax._core import varying_with
from dicjax.neurons import Neuron
from dicjax.simulation import detect_spike


FIRST, LONGEST, SHORTEST = 0.01, 2.0, 1e-6  # ms, of steps
SERIES = range(4, 19)  # terms that are enough for the exponential of at most 1
NEWTON = 6  # iterations, from the line between the ends of a step

Numbers = Float[Array, " numbers"]


class Flow(NamedTuple):
    """What a state of numbers obeys; the last number is the potential, in mV.

    - `neuron`: whose levels make a spike.
    - `rates`: of a state, per ms.
    - `fast`: which numbers relax fast, in rows of those that do not act on each other.
    - `scale`: what errors are relative to, beside the size of each number.
    """

    neuron: Neuron
    rates: Callable[[Numbers], Numbers]
    fast: Float[np.ndarray, "rows numbers"]
    scale: Float[np.ndarray, " numbers"]


class Crossing(eqx.Module):
    """A step of `h` ms from `t` on, between two states, in which a spike begins."""

    before: Numbers
    after: Numbers
    t: Float[Array, ""]
    h: Float[Array, ""]


class Running(eqx.Module):
    """A state in a running cycle, with the latest two spikes."""

    x: Numbers
    t: Float[Array, ""]
    h: Float[Array, ""]
    pending: Float[Array, ""]  # ms, as `detect_spike` leaves it
    spike: Crossing
    last: Crossing
    count: Int[Array, ""]


def simulate_cycle(
    flow: Flow,
    x: Numbers,
    num_spikes: Int[Array, ""],
    limit: Float[Array, ""],
    tolerance: Float[Array, ""],
) -> Running:
    """Simulates from a spike for `num_spikes` spikes, but at most `limit` ms.

    Of every step, the error that is estimated is below `tolerance`.
    """
    zero = jnp.zeros_like(x[0])
    first = Crossing(x, x, zero, zero)
    running = Running(x, zero, zero + FIRST, zero, first, first, jnp.int32(0))
    running = varying_with(running, x)
    scale = jnp.asarray(flow.scale, x.dtype)

    def wanting(running):
        is_going = (running.t < limit) & (running.h > SHORTEST)
        return (running.count < num_spikes) & is_going

    def step(running):
        h, old, t = running.h, running.x, running.t
        new, error = _step(flow, old, h)
        error = jax.lax.stop_gradient(error)
        error = jnp.max(jnp.abs(error) / (jnp.abs(new) + scale)) / tolerance
        is_good = error <= 1
        # The estimate is of third order. It is not finite after far too long a step.
        factor = jnp.clip(0.9 * jnp.maximum(error, 1e-6) ** (-1 / 3), 0.2, 4)
        factor = jnp.where(jnp.isfinite(error), factor, 0.2)
        factor = jax.lax.stop_gradient(factor)
        found = detect_spike(flow.neuron, old[-1], new[-1], t, h, running.pending)
        pending = jnp.where(is_good, found.pending, running.pending)
        crosses = jnp.isinf(running.pending) & jnp.isfinite(pending)
        either = lambda new, old: jnp.where(crosses, new, old)
        return Running(
            x=jnp.where(is_good, new, old),
            t=jnp.where(is_good, t + h, t),
            h=jnp.minimum(h * factor, LONGEST),
            pending=jax.lax.stop_gradient(pending),
            spike=jax.tree.map(either, Crossing(old, new, t, h), running.spike),
            last=jax.tree.map(either, running.spike, running.last),
            count=running.count + crosses.astype(running.count.dtype),
        )

    return jax.lax.while_loop(wanting, step, running)


def at_crossing(
    flow: Flow, crossing: Crossing, V: Float[Array, ""]
) -> tuple[Numbers, Float[Array, ""]]:
    """The state and the time (ms) at which the potential crosses `V` mV."""
    h, ends = crossing.h, jnp.stack([crossing.before, crossing.after])
    rates = jax.vmap(flow.rates)(ends)

    def cubic(part):
        rest = 1 - part
        x = ends[0] * rest**2 * (1 + 2 * part) + ends[1] * part**2 * (1 + 2 * rest)
        return x + h * part * rest * (rates[0] * rest - rates[1] * part)

    def improved(part):
        value, slope = jax.jvp(lambda x: cubic(x)[-1], (part,), (jnp.ones_like(part),))
        # A step of no length is a spike itself.
        slope = jnp.where(slope == 0, 1, jax.lax.stop_gradient(slope))
        return part - jnp.where(h > 0, (value - V) / slope, 0)

    part = jnp.full_like(h, 0.5)
    for _ in range(NEWTON):
        part = jnp.clip(jax.lax.stop_gradient(improved(part)), 0, 1)
    part = improved(part)  # the last one gives the derivatives of a root
    return cubic(part), crossing.t + h * part


def _step(flow: Flow, x: Numbers, h) -> tuple[Numbers, Numbers]:
    """The state after `h` ms, and an estimate of its error."""
    stop = jax.lax.stop_gradient
    rows = varying_with(jnp.asarray(flow.fast, x.dtype), x)
    # How states are split into fast and slow is free, so that it has no derivative.
    slopes = jax.vmap(lambda row: jax.jvp(flow.rates, (stop(x),), (row,))[1])(rows)
    speed = stop(jnp.maximum(-jnp.sum(slopes * rows, axis=0), 0))
    whole, one, two, three = _exponentials(-h * speed)
    half, one_half, two_half, _ = _exponentials(-h * speed / 2)
    none = jnp.zeros_like(x)
    weights = jnp.stack(
        [
            jnp.stack([none, none, none, none]),
            jnp.stack([one_half / 2, none, none, none]),
            jnp.stack([one_half / 2 - two_half, two_half, none, none]),
            jnp.stack([one - 2 * two, none, 2 * two, none]),
        ]
    )
    decay = jnp.stack([jnp.ones_like(x), half, half, whole])

    def stage(carry, this):
        drives, _ = carry
        i, decay, weights = this
        y = decay * x + h * jnp.sum(weights * drives, axis=0)
        return (drives.at[i].set(flow.rates(y) + speed * y), y), None

    start = varying_with(jnp.zeros((4, len(x)), x.dtype), x), x
    (drives, rough), _ = jax.lax.scan(stage, start, (jnp.arange(4), decay, weights))
    middle = 2 * two - 4 * three
    weights = jnp.stack([one - 3 * two + 4 * three, middle, middle, 4 * three - two])
    new = whole * x + h * jnp.sum(weights * drives, axis=0)
    return new, new - rough


def _exponentials(z: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The exponential of negative numbers, and the first three phi functions."""
    near = jnp.maximum(z, -1)
    term = series = jnp.full_like(z, 1 / 6)
    for k in SERIES:
        term = term * near / k
        series = series + term
    far = jnp.minimum(z, -1)
    three = (((jnp.expm1(far) / far - 1) / far) - 0.5) / far
    three = jnp.where(z > -1, series, three)
    two = z * three + 0.5
    one = z * two + 1
    return z * one + 1, one, two, three
