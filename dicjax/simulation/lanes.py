"""The compiled part of a simulation: cells side by side in lanes, each at its own pace.

All lanes take the same number of steps, but each lane's steps have their own lengths.
A burst is a fixed number of steps, in which a lane reports at most one spike. A
dispatch is a number of bursts, after which the host collects spikes and may stop.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt16

from dicjax._core import Scalar
from dicjax.neurons import member_axes, Neuron, State, varying
from dicjax.simulation.detection import detect_spike
from dicjax.simulation.integrator import (
    FINEST,
    LONGEST,
    next_step,
    relax_gates,
    relax_membrane,
)
from dicjax.simulation.stimulus import AbstractStimulus, cell_axes, Current


BURST = 16  # steps, in which a cell can fire at most once
LARGEST_DT = 0.5  # ms


class Lanes(eqx.Module):
    """The state of every lane. Gates are half a step behind the potential."""

    y: State
    # Time is `whole + t`: one float would lose digits in long simulations.
    whole: Int[Array, "*lanes"]  # ms
    t: Float[Array, "*lanes"]  # ms
    h: Float[Array, "*lanes"]  # ms, the last step
    next_h: Float[Array, "*lanes"]  # ms, the next step
    pending: Float[Array, "*lanes"]  # ms after `whole`, as `detect_spike` leaves it
    lost: Bool[Array, "*lanes"]  # whether two spikes fell into one burst


class StepSizes(eqx.Module):
    """What limits time steps: `dt` and the longest step, in ms."""

    dt: Scalar
    longest: Scalar


def step_sizes_of(
    dt: float, stimulus: AbstractStimulus | None, dtype: Any, is_adaptive: bool = True
) -> StepSizes:
    """Step sizes from `dt` (ms) on, short enough for the stimulus."""
    longest = np.inf if stimulus is None else stimulus.longest_step
    if not is_adaptive:
        # The shortest and the longest step are equal.
        dt, longest = FINEST * dt, min(dt, longest)
    sizes = (dt, min(longest, LONGEST * dt))
    return StepSizes(*(jnp.asarray(x, dtype) for x in sizes))


class InitialConditions(eqx.Module):
    """Initial potential (mV) and calcium (µM) of lanes."""

    V: Float[Array, " lanes"]
    Ca: Float[Array, " lanes"]


class LaneInputs(NamedTuple):
    """What a dispatch takes for the cells in its lanes.

    `kinetics` are the numbers of the neuron in which cells differ.
    """

    g: Float[Array, "lanes channels"]
    stimulus: AbstractStimulus | None
    initial: InitialConditions
    kinetics: tuple[Float[Array, "lanes ..."], ...] = ()


def initial_lanes(
    neuron: Neuron, initial: InitialConditions, step_sizes: StepSizes
) -> Lanes:
    """Returns lanes at time zero."""
    # Gates start in equilibrium, so that being half a step behind changes nothing.
    first = jnp.minimum(step_sizes.dt, step_sizes.longest)
    state = lambda neuron, V, Ca: neuron.initial_state(V, Ca)
    y = jax.vmap(state, (member_axes(neuron), 0, 0))(neuron, initial.V, initial.Ca)
    return lanes_at(y, (len(initial.V),), step_sizes, first)


def lanes_at(
    y: State, shape: tuple[int, ...], step_sizes: StepSizes, behind: Scalar
) -> Lanes:
    """Lanes at time zero in states whose gates are half of `behind` (ms) back."""
    dtype = step_sizes.dt.dtype
    fill = lambda x: jnp.full(shape, x, dtype)
    return Lanes(
        y=jax.tree.map(lambda x: jnp.broadcast_to(x, shape).astype(dtype), y),
        whole=jnp.zeros(shape, jnp.int32),
        t=fill(0),
        h=fill(behind),
        next_h=fill(jnp.minimum(step_sizes.dt, step_sizes.longest)),
        pending=fill(jnp.inf),
        lost=jnp.zeros(shape, bool),
    )


def restarted(
    neuron: Neuron,
    lanes: Lanes,
    step_sizes: StepSizes,
    is_fresh: Bool[Array, " lanes"],
    initial: InitialConditions,
) -> Lanes:
    """Returns the lanes with those of `is_fresh` back at time zero."""
    new = initial_lanes(neuron, initial, step_sizes)
    return jax.tree.map(lambda new, old: jnp.where(is_fresh, new, old), new, lanes)


def burst(
    neuron: Neuron,
    lane: Lanes,
    g: PyTree,
    stimulus: AbstractStimulus | None,
    step_sizes: StepSizes,
    *,
    record: Callable[[Lanes], PyTree] | None = None,
    fence: Callable[[Array], Array] = jax.lax.optimization_barrier,
) -> tuple[Lanes, Scalar, PyTree]:
    """Takes `BURST` steps of one lane.

    Returns the lane, the time of its spike (ms after `lane.whole`) and what `record`
    gives of the lane after every step. The time is infinite without a spike, and minus
    infinite if an upstroke fell short of one. Some compilers split a step into several
    kernels; `fence` keeps them from computing the membrane in each.
    """
    prepared = None
    if stimulus is not None:
        # Noise is drawn for the longest time that the steps can take.
        bound = min(stimulus.longest_step, LONGEST * LARGEST_DT)
        prepared = stimulus.prepare(lane.whole, BURST * bound)

    def one(val: tuple[Lanes, Scalar]) -> tuple[Lanes, Scalar]:
        lane, spike = val
        I = None
        if stimulus is not None:
            I = stimulus.average(prepared, lane.t, lane.next_h)
        return _step(neuron, lane, spike, g, I, step_sizes, fence)

    val, records = (lane, jnp.full_like(lane.t, jnp.inf)), None
    if record is None:
        val = jax.lax.fori_loop(0, BURST, lambda _, val: one(val), val)
    else:
        # Derivatives keep the state between steps, and take each step once more.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def recorded(val, _):
            val = one(val)
            return val, record(val[0])

        val, records = jax.lax.scan(recorded, val, length=BURST)
    lane, spike = val
    gone = jnp.where(jnp.isfinite(lane.t), jnp.floor(lane.t), 0)
    lane = dataclasses.replace(
        lane,
        whole=lane.whole + gone.astype(lane.whole.dtype),
        t=lane.t - gone,
        pending=lane.pending - gone,
    )
    return lane, spike, records


def _step(
    neuron: Neuron,
    lane: Lanes,
    spike: Scalar,
    g: PyTree,
    I: Current | None,
    step_sizes: StepSizes,
    fence: Callable[[Array], Array],
) -> tuple[Lanes, Scalar]:
    """Takes one time step of one lane; what is detected replaces `spike`."""
    before, h = lane.y.V, lane.next_h
    y = relax_gates(neuron, lane.y, (lane.h + h) / 2)
    y = relax_membrane(neuron, y, g, h, I)
    after = fence(y.V)
    found = detect_spike(neuron, before, after, lane.t, h, lane.pending)
    lane = dataclasses.replace(
        lane,
        y=State(V=after, gates=y.gates, Ca=y.Ca),
        t=lane.t + h,
        h=h,
        next_h=next_step(after - before, h, step_sizes.dt, step_sizes.longest),
        pending=found.pending,
        lost=lane.lost | (found.is_spike & jnp.isfinite(spike)),
    )
    # A spike of the same burst counts more than a shortfall.
    is_new = found.is_spike | (found.is_shortfall & (spike == jnp.inf))
    return lane, jnp.where(is_new, found.time, spike)


class CompiledNeuron:
    """A neuron whose numbers are constants of the compiled program.

    That makes the program a fifth faster. Equal neurons share a program. Numbers in
    which cells differ are no constants, but come with the cells.
    """

    def __init__(self, neuron: Neuron):
        leaves, self._treedef = jax.tree.flatten(neuron)
        self._varies = varying(neuron)
        pairs = zip(leaves, self._varies, strict=True)
        self._leaves = [None if varies else np.asarray(x) for x, varies in pairs]
        # A number for each cell counts as a scalar.
        self.is_scalar = all(
            np.ndim(x) == varies for x, varies in zip(leaves, self._varies, strict=True)
        )
        bits = lambda x: None if x is None else (x.dtype.str, x.shape, x.tobytes())
        self._key = (self._treedef, tuple(map(bits, self._leaves)))

    def kinetics_of(self, neuron: Neuron) -> tuple[Array, ...]:
        """The numbers of a neuron that come with the cells."""
        return tuple(itertools.compress(jax.tree.leaves(neuron), self._varies))

    def neuron_with(self, kinetics: tuple[Array, ...]) -> Neuron:
        """The neuron, with constants as its other leaves."""
        # A kernel accepts a scalar that is filled in, but no array.
        constant = lambda x: (
            jnp.asarray(x) if x.ndim else jax.lax.full((), x.item(), x.dtype)
        )
        own = iter(kinetics)
        leaves = [next(own) if x is None else constant(x) for x in self._leaves]
        return jax.tree.unflatten(self._treedef, leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompiledNeuron) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class DispatchOutput(eqx.Module):
    """What the lanes did in a dispatch; only the first `count` rows are used.

    - `spikes`, `ahead`: a spike is at `spikes + ahead` ms after `lanes.whole` at the
        start of the dispatch; later spikes lie in later rows. Infinity means none, and
        minus infinity a shortfall. `ahead` holds whole ms. Both are kept apart because
        the last digits of their sum in float32 would depend on the length of
        dispatches.
    - `times`, `V`: times (ms, `ahead` likewise) and potentials (mV) after every step,
        where they are recorded.
    """

    count: Int[Array, ""]
    spikes: Float[Array, "rows lanes"]
    ahead: UInt16[Array, "rows lanes"]
    times: Float[Array, "rows lanes steps"] | None
    V: Float[Array, "rows lanes steps"] | None


def take_bursts(
    compiled: CompiledNeuron,
    lanes: Lanes,
    inputs: LaneInputs,
    step_sizes: StepSizes,
    until: Int[Array, ""],
    busy: Bool[Array, " lanes"],
    is_fresh: Bool[Array, " lanes"],
    num_bursts: int,
    record: bool,
) -> tuple[Lanes, DispatchOutput]:
    """Takes up to `num_bursts` bursts of all lanes.

    It stops early when all `busy` lanes have reached `until` ms. Lanes that are
    `is_fresh` start over first.
    """
    g, stimulus, initial, kinetics = inputs
    neuron = compiled.neuron_with(kinetics)
    lanes = restarted(neuron, lanes, step_sizes, is_fresh, initial)
    began = lanes.whole
    # Separate conductances vectorise over lanes like the state.
    columns = tuple(g.T)
    of_cells = None if stimulus is None else cell_axes(stimulus)
    potentials = (lambda lane: (lane.t, lane.y.V)) if record else None
    one = lambda neuron, lane, g, stimulus: burst(
        neuron, lane, g, stimulus, step_sizes, record=potentials
    )
    all_lanes = jax.vmap(one, (member_axes(neuron), 0, 0, of_cells))

    def wanting(val):
        lanes, output = val
        return (output.count < num_bursts) & (busy & ~finished(lanes, until)).any()

    def advance(val):
        lanes, output = val
        gone = lanes.whole - began
        lanes, spikes, trace = all_lanes(neuron, lanes, columns, stimulus)
        i = output.count
        times, V = output.times, output.V
        if trace is not None and times is not None and V is not None:
            times, V = times.at[i].set(trace[0]), V.at[i].set(trace[1])
        spikes = output.spikes.at[i].set(spikes)
        ahead = output.ahead.at[i].set(gone.astype(jnp.uint16))
        return lanes, DispatchOutput(i + 1, spikes, ahead, times, V)

    rows = (num_bursts, len(g))
    trace = jnp.zeros((*rows, BURST), g.dtype) if record else None
    nothing, none = jnp.full(rows, jnp.inf, g.dtype), jnp.zeros(rows, jnp.uint16)
    output = DispatchOutput(jnp.zeros((), jnp.int32), nothing, none, trace, trace)
    return jax.lax.while_loop(wanting, advance, (lanes, output))


dispatch = functools.partial(
    jax.jit,
    static_argnames=("compiled", "num_bursts", "record"),
    # A third faster where the processor has such vectors, and ignored where not.
    compiler_options={"xla_cpu_prefer_vector_width": 512},
)(take_bursts)


def finished(lanes: Lanes, until: Int[Array, ""]) -> Bool[Array, " lanes"]:
    """Whether lanes have reached `until` ms, or diverged and never will."""
    return (lanes.whole >= until) | ~jnp.isfinite(lanes.y.V)
