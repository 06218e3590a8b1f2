"""What members are refined towards, and how they are compared with it."""

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Real

from dicjax._core import check_times, in_batches
from dicjax.neurons import Neuron, of_members
from dicjax.populations.evaluation import (
    check_given,
    Conditions,
    conditions_for,
    judge,
    simulated_times,
    Verdict,
    Window,
    window_for,
)
from dicjax.populations.refinement.unknowns import moved, Numbers
from dicjax.populations.sensitivities import rhythm_slopes
from dicjax.simulation import (
    AbstractStimulus,
    in_a_row,
    InjectedConductance,
    Numbers as Places,
    simulate,
    solve,
    Step,
    Waveform,
)
from dicjax.spikes import as_target, spike_features, Target


LARGE = 3.0  # mV, root of the mean square: what slopes do not explain
LEAST_RATE = 0.1  # of the highest rate of a curve, which errors are relative to
MAX_SAMPLES = 400  # of a trace that are compared
FOLLOWING = 3.0  # mV by which a member may miss a trace, and not be held to it
HELD = 10.0  # mS/cm² per µF/cm² that hold a member to a trace, within 0.1 ms
AT_ONCE = 16  # members whose trajectories are computed at once
SHORTEST_ISI = 2.0  # ms, for which there is room in a trajectory


class Outcome(NamedTuple):
    """What members did: their spikes (ms), and how these compare."""

    spike_times: Float[np.ndarray, "cells *steps spikes"]
    verdict: Verdict


class Differentiated(NamedTuple):
    """Errors of members, and their derivatives by unknowns.

    These are logarithms of conductances, and numbers of the neuron over their reach.
    """

    errors: Float[np.ndarray, "cells errors"]
    slopes: Float[np.ndarray, "cells errors unknowns"]


class AbstractTarget(abc.ABC):
    """What members should do, and how they are simulated to find out."""

    comparable: ClassVar[str] = "were simulated to the end"
    has_derivatives: ClassVar[bool] = False
    ridge: ClassVar[float] = 1e-2
    tolerance: float

    @property
    @abc.abstractmethod
    def claim(self) -> str:
        """What is said of members that are valid."""

    @property
    @abc.abstractmethod
    def large(self) -> float:
        """The length of a row of errors that counts as large."""

    @abc.abstractmethod
    def conditions(
        self,
        neuron: Neuron,
        duration: float | None,
        discard: float | None,
        dt: float | None,
        stimulus: AbstractStimulus | None,
    ) -> Conditions:
        """How members are simulated, where it is not given."""

    @abc.abstractmethod
    def evaluate(
        self,
        neuron: Neuron,
        g: Float[np.ndarray, "cells channels"],
        conditions: Conditions,
    ) -> Outcome:
        """Simulates members, and compares them with the target."""

    def differentiate(
        self,
        neuron: Neuron,
        g: Float[np.ndarray, "cells channels"],
        numbers: Numbers,
        conditions: Conditions,
        verdict: Verdict,
        trust: Float[np.ndarray, " cells"],
    ) -> Differentiated:
        """Errors of members that missed, or others with the same zeros, and slopes."""
        raise NotImplementedError(f"{type(self).__name__} has no derivatives.")


def as_any_target(target: Any, tolerance: float) -> AbstractTarget:
    """A target of any kind; spike trains, and their features, become one."""
    if isinstance(target, AbstractTarget):
        return target
    return Firing(as_target(target, tolerance))


def _check_share(tolerance: float) -> None:
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must lie between 0 and 1, got {tolerance}.")


def check_no_times(kind: str, **times: float | None) -> None:
    """Raises `ValueError` if a time is given that the target determines."""
    for name, time in times.items():
        if time is not None:
            raise ValueError(
                f"{kind} say for how long members are simulated: leave out `{name}`, "
                f"which is {time} ms."
            )


def root_mean_square(
    errors: Float[np.ndarray, "cells errors"],
) -> Float[np.ndarray, " cells"]:
    """Of each member. The largest error may stay the same while others get smaller."""
    return np.sqrt(np.mean(errors**2, axis=1))


@dataclasses.dataclass(frozen=True)
class Firing(AbstractTarget):
    """Firing like a spike train."""

    target: Target
    comparable: ClassVar[str] = "fire in the target's pattern"
    has_derivatives: ClassVar[bool] = True
    large: ClassVar[float] = 1.0

    @property
    def tolerance(self) -> float:
        return self.target.tolerance

    @property
    def claim(self) -> str:
        return f"fire like the target within {self.tolerance:.0%}"

    def conditions(self, neuron, duration, discard, dt, stimulus) -> Conditions:
        check_given(neuron, duration=duration, discard=discard, dt=dt)
        window = window_for(neuron, self.target, duration=duration, discard=discard)
        return conditions_for(neuron, window, dt=dt, stimulus=stimulus)

    def evaluate(self, neuron, g, conditions) -> Outcome:
        (duration, discard), dt, stimulus = conditions
        how = {"discard": discard, "dt": dt, "stimulus": stimulus}
        run = simulate(neuron, g, duration, **how)
        return Outcome(np.asarray(run.spike_times), judge(run, self.target))

    def differentiate(self, neuron, g, numbers, conditions, verdict, trust):
        """By one cycle of each member."""
        (_, settle), dt, stimulus = conditions
        cell = in_a_row(neuron, g, stimulus).row
        others = Places(numbers.leaves) if numbers.leaves else None
        slopes = rhythm_slopes(cell, others, verdict.features, settle, dt)
        slopes[..., g.shape[1] :] *= numbers.reach.astype(g.dtype)
        return Differentiated(verdict.errors, slopes)


@dataclasses.dataclass(frozen=True, eq=False)
class FiringRates(AbstractTarget):
    """A curve of firing rates over currents, as a target of [`dicjax.refine`][].

    Every member is simulated under each current, constant from the start. A rate is the
    inverse of the mean interval between spikes after `discard`, and zero with fewer
    than two spikes. Its error is relative to the rate of the curve, or to a tenth of
    the curve's highest rate if that is more: rates near zero have a scale then, which
    is that of the whole curve.

    - `current`: constant currents, in µA/cm². They take the place of the recipe's. A
        `stimulus` of `refine` is added.
    - `rate`: firing rates under them, in Hz.
    - `tolerance`: how far each may be off, as a share.

    Raises `ValueError` if there are not as many rates as currents, if one is negative
    or not finite, or if all are zero.
    """

    current: Real[ArrayLike, "..."]
    rate: Real[ArrayLike, "..."]
    tolerance: float = 0.10

    def __post_init__(self):
        current, rate = (np.asarray(x, float) for x in (self.current, self.rate))
        if current.ndim != 1 or current.shape != rate.shape or not current.size:
            raise ValueError(
                "A curve must have one rate (Hz) for each current (µA/cm²), got shapes "
                f"{rate.shape} and {current.shape}."
            )
        for name, bad in (
            ("current", ~np.isfinite(current)),
            ("rate", ~(np.isfinite(rate) & (rate >= 0))),
        ):
            if bad.any():
                at = int(np.flatnonzero(bad)[0])
                raise ValueError(
                    f"`{name}` must be finite, and rates not negative, but entry {at} "
                    f"is {(rate if name == 'rate' else current)[at]}."
                )
        if not rate.any():
            raise ValueError(
                "All rates of the curve are zero: there is nothing to fire like. Give "
                "a current under which the cell fires."
            )
        _check_share(self.tolerance)
        object.__setattr__(self, "current", current)
        object.__setattr__(self, "rate", rate)

    @property
    def claim(self) -> str:
        return f"have the target's firing rates within {self.tolerance:.0%}"

    @property
    def large(self) -> float:
        return math.sqrt(np.size(self.rate))

    def conditions(self, neuron, duration, discard, dt, stimulus) -> Conditions:
        duration, discard, dt = simulated_times(neuron, duration, discard, dt)
        return Conditions(Window(duration, discard), dt, stimulus)

    def evaluate(self, neuron, g, conditions) -> Outcome:
        (duration, discard), dt, stimulus = conditions
        current, rate = np.asarray(self.current), np.asarray(self.rate)
        members = np.repeat(np.arange(len(g)), len(current))
        step: AbstractStimulus = Step(np.tile(current, len(g)))
        run = simulate(
            of_members(neuron, members),
            g[members],
            duration,
            discard=discard,
            dt=dt,
            stimulus=step if stimulus is None else step + stimulus,
        )
        by_step = lambda x: np.asarray(x).reshape(len(g), len(current), *x.shape[1:])
        rates = by_step(np.nan_to_num(np.asarray(spike_features(run.spike_times).rate)))
        errors = (rates - rate) / np.maximum(rate, LEAST_RATE * rate.max())
        limits = np.full_like(errors, self.tolerance)
        ran = np.all(by_step(run.succeeded), axis=1)
        fell_short = np.any(by_step(run.fell_short), axis=1)
        valid = ran & np.all(np.abs(errors) <= limits, axis=1)
        score = np.where(ran, root_mean_square(errors / limits), np.inf)
        verdict = Verdict(rates, errors, limits, ran, fell_short, valid, score)
        return Outcome(by_step(run.spike_times), verdict)


@dataclasses.dataclass(frozen=True, eq=False)
class VoltageTrace(AbstractTarget):
    """A trace of the potential, as a target of [`dicjax.refine`][].

    Members are simulated from the neuron's initial state, at time zero, under the
    `stimulus` of `refine`. Their potential is compared with the trace at no more than
    400 of its times, evenly taken. They are valid if the root mean square of these
    differences is at most `tolerance`.

    - `ts`: times, in ms, in rising order from 0 on.
    - `V`: potentials at these times, in mV.
    - `tolerance`: in mV.

    Raises `ValueError` if times do not rise, if there are not as many potentials as
    times, if one is not finite, or if the tolerance is not positive.
    """

    ts: Real[ArrayLike, "..."]
    V: Real[ArrayLike, "..."]
    tolerance: float = 1.0
    has_derivatives: ClassVar[bool] = True
    ridge: ClassVar[float] = 1e-4  # hundreds of errors leave little open

    def __post_init__(self):
        check_times(self.ts)
        ts, V = (np.asarray(x, float) for x in (self.ts, self.V))
        if V.shape != ts.shape:
            raise ValueError(
                f"A trace must have one potential for each time, got shapes {V.shape} "
                f"and {ts.shape}."
            )
        if not np.isfinite(V).all():
            at = ts[~np.isfinite(V)][0]
            raise ValueError(
                f"`V` must be finite, but is not at {at:g} ms: leave such times out."
            )
        if not 0 < self.tolerance < np.inf:
            raise ValueError(
                f"`tolerance` must be a positive number of mV, got {self.tolerance}."
            )
        object.__setattr__(self, "ts", ts)
        object.__setattr__(self, "V", V)

    @property
    def claim(self) -> str:
        return f"follow the target's potential within {self.tolerance:g} mV"

    @property
    def large(self) -> float:
        return LARGE * math.sqrt(len(self._compared))

    @property
    def _compared(self) -> np.ndarray:
        """Which samples are compared."""
        last = np.size(self.ts) - 1
        return np.linspace(0, last, min(last + 1, MAX_SAMPLES)).round().astype(int)

    def _times(self) -> tuple[float, ...]:
        return tuple(np.asarray(self.ts)[self._compared].tolist())

    def conditions(self, neuron, duration, discard, dt, stimulus) -> Conditions:
        check_no_times("The times of a trace", duration=duration, discard=discard)
        check_given(neuron, dt=dt)
        window = Window(float(np.asarray(self.ts)[-1]), 0.0)
        return conditions_for(neuron, window, dt=dt, stimulus=stimulus)

    def evaluate(self, neuron, g, conditions) -> Outcome:
        ts, (_, dt, stimulus) = self._times(), conditions

        def one_batch(members):
            own = of_members(neuron, members)
            return _trajectories(own, jnp.asarray(g[members]), stimulus, ts, dt)

        V, spike_times, ran, fell_short = _by_members(one_batch, len(g))
        errors = V - np.asarray(self.V)[self._compared].astype(V.dtype)
        ran &= np.isfinite(errors).all(axis=1)
        score = root_mean_square(errors.astype(float) / self.tolerance)
        score = np.where(ran, score, np.inf)
        limits = np.full_like(errors, self.tolerance)
        verdict = Verdict(V, errors, limits, ran, fell_short, score <= 1, score)
        return Outcome(spike_times, verdict)

    def differentiate(self, neuron, g, numbers, conditions, verdict, trust):
        """As of the potential itself, or where it is far off, of one held to the trace.

        A current towards the trace keeps every spike where it should be. Errors are
        small then, and nearly linear in the unknowns, and zero for the same ones.
        """
        (_, dt, stimulus), reach = conditions, numbers.reach.astype(g.dtype)
        # A member whom this did not help is held every other time.
        is_held = verdict.score * self.tolerance > FOLLOWING
        is_held &= np.round(np.log2(trust)) % 2 == 0
        G = np.where(is_held, HELD * np.asarray(neuron.capacitance), 0.0)
        ts, V = np.asarray(self.ts), np.asarray(self.V)
        every = float(max(np.diff(ts).min(), dt))
        grid = every * np.arange(math.ceil(ts[-1] / every) + 2)
        current = np.interp(grid, ts, V) * (grid >= ts[0])

        def one_batch(members):
            own_G = G[members]
            hold = Waveform(own_G[:, None] * current, every)
            hold += InjectedConductance(Step(own_G, ts[0]), 0.0)
            return _differentiated(
                of_members(neuron, members),
                jnp.asarray(g[members]),
                hold if stimulus is None else stimulus + hold,
                reach,
                numbers.leaves,
                self._times(),
                dt,
            )

        found = _by_members(one_batch, len(g))
        held = found.errors - V[self._compared].astype(g.dtype)
        errors = np.where(is_held[:, None], held, verdict.errors)
        return Differentiated(errors, found.slopes)


def _by_members(one_batch, num: int):
    """Results of so many members, some at a time."""
    return in_batches(one_batch, np.arange(num), size=AT_ONCE)


@eqx.filter_jit
def _trajectories(neuron, g, stimulus, ts: tuple[float, ...], dt: float):
    room = math.ceil(ts[-1] / SHORTEST_ISI) + 1
    times = np.asarray(ts)
    found = solve(neuron, g, times, stimulus=stimulus, dt=dt, max_spikes=room)
    return found.V, found.spike_times, found.succeeded, found.fell_short


@eqx.filter_jit
def _differentiated(neuron, g, stimulus, reach, leaves, ts, dt) -> Differentiated:
    """Potentials, and derivatives by log conductances and numbers over `reach`."""

    def potentials(log_g, part):
        own = moved(neuron, leaves, part * reach[None])
        return solve(own, jnp.exp(log_g), np.asarray(ts), stimulus=stimulus, dt=dt).V

    log_g = jnp.log(jnp.maximum(g, jnp.finfo(g.dtype).tiny))
    at = log_g, jnp.zeros((len(g), len(reach)), g.dtype)
    num = g.shape[1]

    def by_one(direction):
        along = jnp.broadcast_to(direction, (len(g), len(direction)))
        return jax.jvp(potentials, at, (along[:, :num], along[:, num:]))

    directions = jnp.eye(num + len(reach), dtype=g.dtype)
    V, slopes = jax.vmap(by_one, out_axes=(None, -1))(directions)
    return Differentiated(V, slopes)
