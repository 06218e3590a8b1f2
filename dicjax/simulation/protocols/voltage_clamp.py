r"""Cells under voltage clamp, as a pure function.

At a given potential, gates and calcium relax by the steps of the integrator. Steps end
at the edges of the command, and none of them goes across a jump. Behind a series
resistance, the potential itself relaxes too: exactly at fixed gates, because it may be
much faster than a step.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from dicjax._core import (
    check_dt,
    check_resolved,
    check_times,
    HasConductances,
    is_traced,
    jax_conductances_of,
    Scalar,
    untraced,
)
from dicjax.neurons import member_axes, Neuron, State
from dicjax.simulation.cells import in_a_row
from dicjax.simulation.integrator import relax_calcium, relax_gates
from dicjax.simulation.stimulus import (
    AbstractStimulus,
    as_stimulus,
    cell_axes,
    for_members,
    INSTANT,
)


SHORTEST = 1e-6  # ms, over which the command in a step of no length is averaged


class Clamped(eqx.Module):
    """What a voltage clamp measures, at times of one's choice.

    - `ts`: these times, in ms.
    - `command`: the command, in mV. At a jump, it is what follows.
    - `V`: the potential of the membrane, in mV: the command itself if there is no
        series resistance.
    - `I`: the current of the clamp, in µA/cm², outward positive: ionic and capacitive.
        The charge that a jump of the command needs at once is not in it.
    - `currents`: the ionic current of every channel, in µA/cm², outward positive.
    - `gates`, `Ca`: gates in channel order, and calcium in µM.
    - `succeeded`: whether everything stayed finite.
    """

    ts: Real[Array, " times"]
    command: Float[Array, "*cells times"]
    V: Float[Array, "*cells times"]
    I: Float[Array, "*cells times"]
    currents: Float[Array, "*cells times channels"]
    gates: Float[Array, "*cells times gates"]
    Ca: Float[Array, "*cells times"]
    succeeded: Bool[Array, "*cells"]


class OfTime(eqx.Module):
    """A function of time, as one of time and state. Its numbers stay data."""

    command: Callable

    def __call__(self, t: Scalar, y: State) -> Any:
        del y
        return self.command(t)


@untraced("dt")
def clamp(
    neuron: Neuron,
    g: Float[ArrayLike, "*#cells channels"] | HasConductances,
    command: AbstractStimulus | Callable,
    ts: Real[ArrayLike, " times"],
    *,
    V_hold: Float[ArrayLike, "*#cells"] | float | None = None,
    series_resistance: Float[ArrayLike, "*#cells"] | float | None = None,
    dt: float = 0.01,
) -> Clamped:
    r"""Clamps the potential of cells, and measures their currents.

    It is a pure function that may be compiled (`jax.jit`), vectorised (`jax.vmap`) and
    differentiated in both modes: with respect to conductances, every number of the
    neuron and of the command, also times of its jumps, and the series resistance $R_s$.
    With the latter, the membrane follows $C \dot V = (V_{cmd} - V) / R_s - I_{ion}$.

    Errors are proportional to the square of `dt`. They are proportional to `dt` itself
    where steps are longer than $R_s C$; the membrane then follows its gates half a step
    late.

    **Arguments:**

    - `neuron`: the model. Each of its numbers may be an array with the axes of cells in
        front.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`. Leading
        axes index independent cells. One cell serves a command that has values for
        many.
    - `command`: the command in mV: a stimulus whose µA/cm² are read as mV, such as
        `Step(-80.0) + Step(100.0, 10.0, 30.0)`, from -80 to 20 mV and back, or a
        function of time (ms). Its values may differ from cell to cell. Time steps do
        not know where a function jumps: they are right there to within `dt`.
    - `ts`: the times of the result, in ms, in rising order from 0 on.
    - `V_hold`: the holding potential, in mV. At time zero the membrane is there, and
        gates and calcium are in steady state. By default it is the command at time
        zero.
    - `series_resistance`: the resistance between clamp and membrane, in kΩ·cm², which
        times µA/cm² are mV; none by default.
    - `dt`: the longest time step, in ms. The result after every step is held in memory.

    **Returns:**

    A [`dicjax.Clamped`][].

    **Raises:**

    - `ValueError`: if shapes do not match, times do not rise, the command ends before
        the last time, `dt` is too long for the model, or `V_hold` or
        `series_resistance` is impossible.
    - `TypeError`: if `command` is neither a stimulus nor a function, or `ts` is traced.
    """
    g = jax_conductances_of(neuron, g)
    end = check_times(ts)
    if end is None:
        raise TypeError(
            "`ts` is traced, so that `clamp` cannot know how many steps there will be: "
            "give times with values."
        )
    command = as_command(command, end)
    check_dt(dt)
    _check_potential(V_hold)
    _check_resistance(series_resistance)
    given = {"V_hold": V_hold, "series_resistance": series_resistance}
    starts = {name: x for name, x in given.items() if x is not None}
    cells = in_a_row(neuron, g, command, **starts)
    if not is_traced(neuron):
        check_resolved(cells.neuron, dt, member_axes(cells.neuron))
    in_row = lambda x: jnp.broadcast_to(jnp.asarray(x, g.dtype), cells.shape).ravel()
    held, resistance = (None if x is None else in_row(x) for x in given.values())
    found = _clamp(
        cells.neuron,
        cells.g,
        cells.stimulus,
        held,
        resistance,
        jnp.asarray(ts, g.dtype),
        max(1, math.ceil(end / min(dt, command.longest_step) - 1e-6)),
    )
    found = jax.tree.map(lambda x: x.reshape(*cells.shape, *x.shape[1:]), found)
    return Clamped(jnp.asarray(ts), **found)


@eqx.filter_jit
def _clamp(neuron, g, command, V_hold, resistance, ts, num_steps):
    """The fields of what is measured of cells in a row, but for its times."""
    command = for_members(command, jnp.arange(len(g)))

    def one(neuron, g, command, V_hold, resistance):
        cell = _Cell(neuron, tuple(g), command, resistance)
        return _measured(cell, V_hold, ts, num_steps)

    axes = (member_axes(neuron), 0, cell_axes(command), 0, 0)
    return jax.vmap(one, axes)(neuron, g, command, V_hold, resistance)


class _Cell(eqx.Module):
    """One cell under a clamp, which has a series resistance or none."""

    neuron: Neuron
    g: tuple[Scalar, ...]
    command: AbstractStimulus
    resistance: Scalar | None

    def commanded(self, y: State, t: Scalar, h: Scalar) -> Scalar:
        """The mean command (mV) from `t` to `t + h` ms."""
        whole = jnp.floor(t)
        prepared = self.command.prepare(whole.astype(jnp.int32), 1.0)
        h = jnp.maximum(h, SHORTEST)
        V = self.command.average(prepared, t - whole, h)
        return V(y) if callable(V) else V

    def step(self, y: State, t: Scalar, h: Scalar) -> State:
        """The state `h` ms later, symmetrically, with the gates in the middle."""
        neuron, g = self.neuron, self.g
        if self.resistance is None:
            y = State(V=self.commanded(y, t, h), gates=y.gates, Ca=y.Ca)
            y = relax_calcium(neuron, y, g, h / 2)
            y = relax_gates(neuron, y, h)
            return relax_calcium(neuron, y, g, h / 2)
        y = relax_calcium(neuron, y, g, h / 2)
        y = self._charged(y, t, h / 2)
        y = relax_gates(neuron, y, h)
        y = self._charged(y, t + h / 2, h / 2)
        return relax_calcium(neuron, y, g, h / 2)

    def _charged(self, y: State, t: Scalar, h: Scalar) -> State:
        """The state with the potential `h` ms later, exactly if it is linear."""
        target, resistance = self.commanded(y, t, h), self.resistance
        assert resistance is not None

        def dV(V: Scalar) -> Scalar:
            I = self.neuron.total_current(V, y.gates, y.Ca, self.g)
            return ((target - V) / resistance - I) / self.neuron.capacitance

        f, slope = jax.jvp(dV, (y.V,), (jnp.ones_like(y.V),))
        x = h * slope
        is_zero = x == 0
        x = jnp.where(is_zero, 1, x)
        share = jnp.where(is_zero, 1, jnp.expm1(x) / x)
        return State(V=y.V + h * f * share, gates=y.gates, Ca=y.Ca)


def _measured(cell: _Cell, V_hold: Scalar | None, ts: Array, num_steps: int) -> dict:
    neuron, end = cell.neuron, ts[-1]
    edges = [jnp.ravel(x) for x in cell.command.edges]
    edges = jnp.sort(jnp.clip(jnp.concatenate([*edges, ts[:0]]), 0, end))
    grid = jnp.linspace(0, end, num_steps + 1, dtype=ts.dtype)
    ends = _at_edges(jnp.concatenate((ts, grid)), edges)
    times = jnp.sort(jnp.concatenate((edges, ends)))
    y = _held(cell, V_hold, times[0])

    def advance(y: State, span):
        y = cell.step(y, *span)
        return y, y

    _, later = jax.lax.scan(advance, y, (times[:-1], jnp.diff(times)))
    steps = jnp.searchsorted(times, ends[: ts.size])
    at = lambda first, rest: jnp.concatenate((first[None], rest))[steps]
    states = jax.tree.map(at, y, later)
    command, slope = jax.vmap(lambda t, y: _sampled(cell, y, t, edges))(ts, states)
    resistance = cell.resistance
    V = command if resistance is None else states.V
    unit = jax.vmap(neuron.unit_currents)(V, states.gates, states.Ca)
    currents = jnp.stack(unit, axis=-1) * jnp.stack(cell.g)[None]
    if resistance is None:
        I = jnp.sum(currents, axis=-1) + neuron.capacitance * slope
    else:
        I = (command - V) / resistance
    gates = jnp.stack((*states.gates, V), axis=-1)[:, :-1]  # also if there are none
    is_finite = jnp.all(jnp.isfinite(I)) & jnp.all(jnp.isfinite(currents))
    return {
        "command": command,
        "V": V,
        "I": I,
        "currents": currents,
        "gates": gates,
        "Ca": states.Ca,
        "succeeded": is_finite & jnp.all(jnp.isfinite(states.Ca)),
    }


def _at_edges(times: Array, edges: Array) -> Array:
    """The times, of which those that are almost at an edge are that edge.

    A step between the two would be on both sides of the edge.
    """
    if not edges.size:
        return times
    near = 2 * SHORTEST + 8 * jnp.finfo(times.dtype).eps * times[-1]
    after = jnp.searchsorted(edges, times)
    for i in (after - 1, after):
        edge = edges[jnp.clip(i, 0, edges.size - 1)]
        times = jnp.where(jnp.abs(times - edge) <= near, edge, times)
    return times


def _held(cell: _Cell, V_hold: Scalar | None, zero: Scalar) -> State:
    """The steady state at the holding potential, or at the command at time zero."""
    neuron = cell.neuron
    if V_hold is None:
        instant = jnp.full_like(zero, INSTANT)
        V_hold = cell.commanded(neuron.initial_state(), zero, instant)
    Ca = None  # which stays where it is without a pool
    if neuron.calcium is not None:
        Ca = neuron.steady_calcium(V_hold, cell.g)
    return neuron.initial_state(V_hold, Ca)


def _sampled(cell: _Cell, y: State, t: Scalar, edges: Array) -> tuple[Scalar, Scalar]:
    """The command (mV) at a time, or after an edge there, and its slope (mV/ms)."""
    is_near = (edges >= t) & (edges <= t + 2 * INSTANT)
    after = jnp.where(is_near, edges + INSTANT, t)
    later = jax.lax.stop_gradient(jnp.max(jnp.append(after, t)))
    mean = lambda t: cell.commanded(y, t, jnp.full_like(t, INSTANT))
    command, slope = jax.jvp(mean, (later,), (jnp.ones_like(t),))
    return command - slope * (later + INSTANT / 2 - t), slope


def as_command(command: Any, end: float) -> AbstractStimulus:
    """A stimulus that is the command until `end` ms, of a function of time too.

    Raises `TypeError` if it is neither, and `ValueError` if it ends before.
    """
    if command is None or not callable(command):
        raise TypeError(
            "`command` must be a stimulus in mV, such as `Step(-60.0)`, or a function "
            f"of time, got {command!r}."
        )
    if not isinstance(command, AbstractStimulus):
        command = OfTime(command)
    stimulus = as_stimulus(command)
    assert stimulus is not None
    if stimulus.duration < end - 1e-6:
        raise ValueError(
            f"`command` lasts {stimulus.duration:g} ms, but the last of `ts` is "
            f"{end:g} ms; clamp for no longer than it lasts, or extend it."
        )
    return stimulus


def _check_potential(V_hold: Any) -> None:
    if V_hold is None or is_traced(V_hold):
        return
    bad = ~(np.abs(np.asarray(V_hold)) <= 200)  # also where it is nan
    if bad.any():
        raise ValueError(
            "`V_hold` must be potentials in mV, between -200 and 200, got "
            f"{np.asarray(V_hold)[bad][0]}."
        )


def _check_resistance(resistance: Any) -> None:
    if resistance is None or is_traced(resistance):
        return
    R_s = np.asarray(resistance)
    bad = ~((R_s > 0) & np.isfinite(R_s))
    if bad.any():
        raise ValueError(
            f"`series_resistance` must be positive, in kΩ·cm², got {R_s[bad][0]}; "
            "leave it out for an ideal clamp."
        )
