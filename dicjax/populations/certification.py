"""Certification: whether members still fire like the target when something changes."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from dicjax._core import check_conductances, check_simulation
from dicjax.neurons import Neuron, Temperature
from dicjax.populations.evaluation import judge, wilson, Window, window_for
from dicjax.simulation import AbstractStimulus, applied, NoisyCurrent, simulate, Step
from dicjax.spikes import as_target, Features, SpikeTrain, Target


PERTURBATIONS = ("conductances", "current", "noise", "temperature")
AXES = ("step", "start", *PERTURBATIONS)
TWO_SIDED = ("conductances", "current")  # each tried lower and higher
HIGHER, MORE = 25.0, 10.0  # mV, and times the calcium, of another start


class Certificate(eqx.Module):
    """Which members stood which checks.

    - `names`: of the checks, in words.
    - `axes`: what each check changes, of those of [`dicjax.certify`][].
    - `valid`: whether the member then fires like the target within the tolerance.
    - `same_pattern`: whether it then at least fires in the target's pattern.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    axes: tuple[str, ...] = eqx.field(static=True)
    valid: Bool[np.ndarray, "cells checks"]
    same_pattern: Bool[np.ndarray, "cells checks"]

    def along(self, axis: str) -> "Certificate | None":
        """The checks of one axis alone; `None` where it was not tried."""
        checks = [i for i, of in enumerate(self.axes) if of == axis]
        if not checks:
            return None
        return Certificate(
            tuple(self.names[i] for i in checks),
            tuple(self.axes[i] for i in checks),
            self.valid[:, checks],
            self.same_pattern[:, checks],
        )

    def shares(self) -> tuple[tuple[str, float, float, float, float], ...]:
        """Of every check: its name, the share of members that are valid under it with
        its 95 % Wilson interval, and the share that keep the pattern."""
        num = len(self.valid)
        counts = self.valid.sum(axis=0).tolist(), self.same_pattern.sum(axis=0).tolist()
        return tuple(
            (name, valid / num, *wilson(valid, num), same / num)
            for name, valid, same in zip(self.names, *counts, strict=True)
        )

    @property
    def robustness(self) -> Float[np.ndarray, " cells"]:
        """Share of the perturbations under which each member stays valid.

        Half the step and another start do not count, since they leave the neuron as it
        is; nan where nothing else was tried.
        """
        perturbs = np.isin(self.axes, PERTURBATIONS)
        if not perturbs.any():
            return np.full(len(self.valid), np.nan)
        return self.valid[:, perturbs].mean(axis=1)

    def __str__(self) -> str:
        width = max(len("check"), *map(len, self.names))
        lines = [f"{'check':<{width}}  valid  95 % interval  same pattern"]
        for name, share, low, high, same in self.shares():
            interval = f"{low:.0%} to {high:.0%}"
            lines.append(f"{name:<{width}}  {share:5.0%}  {interval:>13}  {same:12.0%}")
        robustness = self.robustness
        if np.isfinite(robustness).all():
            lines.append(
                f"Of {len(robustness)} members, one stays valid under "
                f"{robustness.mean():.0%} of perturbations on average."
            )
        return "\n".join(lines)


class _Check(NamedTuple):
    """One simulation of all members for one or several checks at a time.

    - `g`: by check and cell, in mS/cm²; `target`: what they are compared with.
    """

    names: tuple[str, ...]
    axis: str
    neuron: Neuron
    g: Float[np.ndarray, "checks cells channels"]
    target: Target
    dt: float
    stimulus: AbstractStimulus | None


def certify(
    neuron: Neuron,
    g: Float[ArrayLike, "cells channels"],
    target: Target | Features | SpikeTrain | Float[np.ndarray, " spikes"],
    *,
    tolerance: float = 0.10,
    axes: Sequence[str] = ("step", "start"),
    key: Key[Array, ""] | None = None,
    duration: float | None = None,
    discard: float | None = None,
    change: float = 0.2,
    current: float | None = None,
    noise: float | None = None,
    warming: float = 10.0,
    q10: float = 2.5,
    on_progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Asks of every member whether it still fires like the target if something changes.

    **Arguments:**

    - `neuron`: the model; it must have a recipe.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`.
    - `target`: what members should fire like: features of one train, or the train.
    - `tolerance`: relative, of [`dicjax.is_valid`][].
    - `axes`: what changes, any of
        - "step": half the time step;
        - "start": from 25 mV higher and ten times the calcium;
        - "conductances": each alone, down and up by `change`;
        - "current": another applied current, down and up by `current`;
        - "noise": a noisy current of standard deviation `noise`;
        - "temperature": all kinetics as at `warming` degrees more. A preparation that
          keeps its pattern and its phases when warmed does all at a higher pace, so the
          target's times are divided by as much as kinetics speed up.
    - `key`: of the noise.
    - `duration`, `discard`: simulated time, and how much of its start is left out, in
        ms; by default as long as the target needs.
    - `change`: of conductances, relative.
    - `current`, `noise`: in µA/cm²; by default half of, and all of, the weaker noise of
        the recipe.
    - `warming`: in °C.
    - `q10`: how much faster kinetics are for every 10 °C, if the neuron's own
        temperature does not say.
    - `on_progress`: called with (done, total) units of work; whatever it raises stops
        the simulation.

    **Returns:**

    A [`dicjax.Certificate`][] with one column per check, in the order above
    whatever that of `axes`; printed, it is a table.

    **Raises:**

    - `ValueError`: if `axes` has others than these or none, if noise is asked for
        without a `key`, if `g` does not match the channels of `neuron`, if the target
        is silent, or if numbers make no sense.
    """
    plain = _plain(neuron, g, target, tolerance)
    recipe = neuron.required_recipe
    window = window_for(neuron, plain.target, duration=duration, discard=discard)
    duration, discard = window
    check_simulation(duration, discard, recipe.dt, "spikes", duration, None)
    current = recipe.noise[0] / 2 if current is None else current
    noise = recipe.noise[0] if noise is None else noise
    _check_axes(axes, key)
    _check_numbers(change, current, noise, q10)
    make = {
        "step": lambda: _half_step(plain),
        "start": lambda: _other_start(plain),
        "conductances": lambda: _other_conductances(plain, change),
        "current": lambda: _other_current(plain, current),
        "noise": lambda: _noisy(plain, noise, key),
        "temperature": lambda: _warmer(plain, warming, q10),
    }
    checks = [make[axis]() for axis in AXES if axis in axes]
    names = tuple(name for check in checks for name in check.names)
    each = tuple(check.axis for check in checks for _ in check.names)
    work = plain.g.shape[1] * math.ceil(duration)
    stood, done = [], 0
    for check in checks:
        report = None
        if on_progress is not None:
            report = lambda now, _, before=done: on_progress(
                before + now, len(names) * work
            )
        stood.append(_stood(check, window, report))
        done += len(check.names) * work
    valid, same_pattern = (np.concatenate(x).T for x in zip(*stood, strict=True))
    return Certificate(names, each, valid, same_pattern)


def _plain(neuron, g, target, tolerance) -> _Check:
    """Nothing changed, and checked."""
    recipe = neuron.required_recipe
    g = np.asarray(g)
    if not np.issubdtype(g.dtype, np.floating):
        g = g.astype(jnp.zeros(()).dtype)
    check_conductances(neuron, g)
    if isinstance(target, Features) and np.ndim(target.label):
        raise ValueError(
            "`target` must hold the features of one train, got those of shape "
            f"{np.shape(target.label)}: take one of them."
        )
    wanted = as_target(target, tolerance)
    stimulus = applied(recipe.current)
    return _Check((), "", neuron, g[None], wanted, recipe.dt, stimulus)


def _check_axes(axes, key):
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or not axes:
        raise ValueError(
            f"`axes` must be some of {AXES}, got {unknown[0] if unknown else axes!r}."
        )
    if "noise" in axes and key is None:
        raise ValueError(
            "Noise needs a `key`, such as `jax.random.key(0)`: give one, or leave "
            '"noise" out of `axes`.'
        )


def _check_numbers(change, current, noise, q10):
    if not 0 <= change <= 1:
        raise ValueError(f"`change` must lie between 0 and 1, got {change}.")
    for name, value in (("current", current), ("noise", noise)):
        if not 0 <= value < np.inf:
            raise ValueError(
                f"`{name}` must be non-negative and finite (µA/cm²), got {value}."
            )
    if not 0 < q10 < np.inf:
        raise ValueError(f"`q10` must be positive and finite, got {q10}.")


def _half_step(plain: _Check) -> _Check:
    return plain._replace(names=("half the step",), axis="step", dt=plain.dt / 2)


def _other_start(plain: _Check) -> _Check:
    neuron = plain.neuron
    neuron = dataclasses.replace(
        neuron,
        initial_V=neuron.initial_V + HIGHER,
        initial_Ca=neuron.initial_Ca * MORE,
    )
    return plain._replace(names=("another start",), axis="start", neuron=neuron)


def _other_conductances(plain: _Check, change: float) -> _Check:
    channels = plain.neuron.channel_names
    num = len(channels)
    factors = np.ones((num, 2, num), plain.g.dtype)
    factors[np.arange(num), :, np.arange(num)] = 1 - change, 1 + change
    by = f"{100 * change:g} %"
    names = tuple(f"{channel} {sign}{by}" for channel in channels for sign in "-+")
    g = plain.g * factors.reshape(-1, 1, num)
    return plain._replace(names=names, axis="conductances", g=g)


def _other_current(plain: _Check, by: float) -> _Check:
    g = np.concatenate([plain.g, plain.g])
    current = plain.neuron.required_recipe.current + np.array([[-by], [by]], g.dtype)
    names = tuple(f"current {sign}{by:g} µA/cm²" for sign in "-+")
    stimulus = Step(np.broadcast_to(current, g.shape[:2]))
    return plain._replace(names=names, axis="current", g=g, stimulus=stimulus)


def _noisy(plain: _Check, sigma: float, key) -> _Check:
    stimulus = NoisyCurrent(key, sigma, plain.neuron.required_recipe.current)
    names = (f"noise of {sigma:g} µA/cm²",)
    return plain._replace(names=names, axis="noise", stimulus=stimulus)


def _warmer(plain: _Check, warming: float, q10: float) -> _Check:
    neuron = plain.neuron
    own = neuron.temperature
    own = Temperature(0.0, 0.0, q10) if own is None else own
    warm = dataclasses.replace(own, celsius=own.celsius + warming)
    faster = float(warm.speed / own.speed)
    return plain._replace(
        names=(f"{warming:+g} °C",),
        axis="temperature",
        neuron=dataclasses.replace(neuron, temperature=warm),
        target=plain.target.at_pace(faster),
        dt=plain.dt / max(faster, 1.0),  # as fine as before for what is now faster
    )


def _stood(
    check: _Check,
    window: Window,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Bool[np.ndarray, "checks cells"], Bool[np.ndarray, "checks cells"]]:
    """Whether members are valid, and whether they keep the pattern."""
    run = simulate(
        check.neuron,
        check.g,
        window.duration,
        discard=window.discard,
        dt=check.dt,
        stimulus=check.stimulus,
        on_progress=on_progress,
    )
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), run)
    verdict = judge(flat, check.target)
    same = flat.succeeded & (verdict.features.label == check.target.label)
    by_check = lambda x: x.reshape(run.succeeded.shape)
    return by_check(verdict.valid), by_check(same)
