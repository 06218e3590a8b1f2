"""Certification: whether members still fire like the target when something changes."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, get_args, Literal, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from dicjax._core import (
    as_progress,
    check_simulation,
    conductances_of,
    counted,
    described,
    HasConductances,
    on_host,
    Progress,
    Stage,
)
from dicjax.neurons import Neuron, Temperature
from dicjax.populations.evaluation import judge, wilson, Window, window_for
from dicjax.simulation import AbstractStimulus, applied, NoisyCurrent, simulate, Step
from dicjax.spikes import as_target, Features, SpikeTrain, Target


Axis = Literal["step", "start", "conductances", "current", "noise", "temperature"]

AXES: tuple[Axis, ...] = get_args(Axis)
PERTURBING_AXES = AXES[2:]  # the axes that change the neuron itself or its input
START_HIGHER = 25.0  # mV that another start lies above the neuron's own
START_MORE_CA = 10.0  # times the calcium of the neuron's own start
UNITS: dict[Axis, str] = {
    "conductances": "%",
    "current": "µA/cm²",
    "noise": "µA/cm²",
    "temperature": "°C",
}


class Perturbation(NamedTuple):
    """What one check changes.

    - `axis`: the kind of change, as [`dicjax.certify`][] names it.
    - `change`: by how much: the factor of the time step; the difference of the initial
        potential (mV), of a conductance (as a share of it), of the applied current
        (µA/cm²) or of the temperature (°C); the standard deviation of noise (µA/cm²).
    - `channel`: whose conductance changes, if one does.
    """

    axis: Axis
    change: float
    channel: str | None = None

    @property
    def is_lower(self) -> bool:
        """Whether the check makes something smaller, be it by nothing."""
        return math.copysign(1, self.change) < 0

    @property
    def amount(self) -> str:
        """The size of the change with its unit, such as "20 %"."""
        size = abs(self.change) * (100 if self.axis == "conductances" else 1)
        return f"{size:g} {UNITS[self.axis]}"

    @property
    def words(self) -> str:
        """The name of the check, such as "Na -20 %"."""
        if self.axis == "step":
            return "half the step"
        if self.axis == "start":
            return "another start"
        if self.axis == "noise":
            return f"noise of {self.amount}"
        return self.with_sign("-" if self.is_lower else "+")

    def with_sign(self, sign: str) -> str:
        """The name of a check that has a sign, with another sign."""
        subject = "current" if self.axis == "current" else self.channel
        return " ".join(x for x in (subject, sign + self.amount) if x)

    @classmethod
    def from_words(cls, words: str) -> "Perturbation":
        """The perturbation of a name, as manifests of populations hold them.

        Raises `ValueError` if none has this name.
        """
        candidates = [HALF_STEP, OTHER_START]
        for axis, unit in UNITS.items():
            found = re.fullmatch(rf"(.*?) ?([-+]?[\d.e+-]+) {re.escape(unit)}", words)
            if found and axis == "conductances":
                candidates.append(cls(axis, float(found[2]) / 100, found[1]))
            elif found:
                candidates.append(cls(axis, float(found[2])))
        for candidate in candidates:
            if candidate.words == words:
                return candidate
        raise ValueError(f"No check is called {words!r}.")


HALF_STEP = Perturbation("step", 0.5)
OTHER_START = Perturbation("start", START_HIGHER)


class Certificate(eqx.Module):
    """Which members passed which checks.

    - `perturbations`: what each check changes.
    - `valid`: whether the member then fires like the target within the tolerance.
    - `same_pattern`: whether it then at least fires in the target's pattern.
    """

    perturbations: tuple[Perturbation, ...] = eqx.field(static=True)
    valid: Bool[np.ndarray, "cells checks"]
    same_pattern: Bool[np.ndarray, "cells checks"]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the checks, in words."""
        return tuple(of.words for of in self.perturbations)

    @property
    def axes(self) -> tuple[str, ...]:
        """What each check changes, of the axes of [`dicjax.certify`][]."""
        return tuple(of.axis for of in self.perturbations)

    def along(self, *axes: str) -> "Certificate | None":
        """The checks of some axes alone; `None` where these were not tried."""
        checks = [i for i, axis in enumerate(self.axes) if axis in axes]
        if not checks:
            return None
        perturbations = tuple(self.perturbations[i] for i in checks)
        columns = self.valid[:, checks], self.same_pattern[:, checks]
        return Certificate(perturbations, *columns)

    def shares(self) -> tuple[tuple[str, float, float, float, float], ...]:
        """Of every check: its name, the share of members that are valid under it with
        its 95 % Wilson interval, and the share that keep the pattern."""
        num = len(self.valid)
        counts = (x.sum(axis=0).tolist() for x in (self.valid, self.same_pattern))
        return tuple(
            (name, valid / num, *wilson(valid, num), same / num)
            for name, valid, same in zip(self.names, *counts, strict=True)
        )

    @property
    def robustness(self) -> Float[np.ndarray, " cells"]:
        """Share of the perturbations under which each member stays valid.

        Half the step and another start leave the neuron as it is and do not count; nan
        where nothing else was tried.
        """
        perturbed = self.along(*PERTURBING_AXES)
        if perturbed is None:
            return np.full(len(self.valid), np.nan)
        return perturbed.valid.mean(axis=1)

    def __repr__(self) -> str:
        return described(self, lambda: counted(len(self.valid), "member"))

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


class Condition(NamedTuple):
    """One simulation of all members under perturbations, in steps of `dt` ms."""

    perturbations: tuple[Perturbation, ...]
    neuron: Neuron
    g: Float[np.ndarray, "checks cells channels"]
    target: Target
    dt: float
    stimulus: AbstractStimulus | None


@on_host()
def certify(
    neuron: Neuron,
    g: Float[ArrayLike, "cells channels"] | HasConductances,
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
    on_progress: Progress | None = None,
) -> Certificate:
    """Tests whether every member still fires like the target if something changes.

    **Arguments:**

    - `neuron`: the model; it must have a recipe.
    - `g`: maximal conductances, in mS/cm², ordered as `neuron.channel_names`, or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.
    - `target`: what members should fire like: features of one train, or the train.
    - `tolerance`: relative, of [`dicjax.is_valid`][].
    - `axes`: what changes, any of
        - "step": half the time step;
        - "start": from 25 mV higher and ten times the calcium;
        - "conductances": each alone, down and up by `change`;
        - "current": another applied current, down and up by `current`;
        - "noise": a noisy current of standard deviation `noise`;
        - "temperature": all kinetics as at `warming` degrees more. A warm preparation
          that keeps its pattern and phases fires at a higher pace, so the target's
          times are divided by the speed-up of kinetics.
    - `key`: of the noise.
    - `duration`, `discard`: simulated time, and how much of its start is left out, in
        ms; by default as long as the target needs.
    - `change`: of conductances, relative.
    - `current`, `noise`: in µA/cm²; by default half of, and all of, the weaker noise of
        the recipe.
    - `warming`: in °C.
    - `q10`: how much faster kinetics are for every 10 °C, if the neuron has no
        temperature of its own.
    - `on_progress`: called with (stage, done, total), in units of work; whatever it
        raises stops the simulation.

    **Returns:**

    A [`dicjax.Certificate`][] with one column per check, in the order above.

    **Raises:**

    - `ValueError`: if `axes` has others than these or none, noise has no `key`, `g`
        does not match the channels of `neuron`, the target is silent, or numbers make
        no sense.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    plain = unperturbed(neuron, g, target, tolerance)
    recipe = neuron.required_recipe
    window = window_for(neuron, plain.target, duration=duration, discard=discard)
    check_simulation(*window, recipe.dt)
    current = recipe.noise[0] / 2 if current is None else current
    noise = recipe.noise[0] if noise is None else noise
    _check(axes, key, change, current, noise, q10)
    finer = plain.dt * HALF_STEP.change
    condition_along = {
        "step": lambda: plain._replace(perturbations=(HALF_STEP,), dt=finer),
        "start": lambda: _other_start(plain),
        "conductances": lambda: _other_conductances(plain, change),
        "current": lambda: _other_current(plain, current),
        "noise": lambda: _noisy(plain, noise, key),
        "temperature": lambda: warmer(plain, warming, q10),
    }
    conditions = [condition_along[axis]() for axis in AXES if axis in axes]
    perturbations = tuple(of for each in conditions for of in each.perturbations)
    work = plain.g.shape[1] * math.ceil(window.duration)
    on_progress = as_progress(on_progress)
    outcomes, done = [], 0
    for condition in conditions:
        report = None
        if on_progress is not None:
            report = lambda _, now, __, before=done: on_progress(
                Stage("certifying"), before + now, len(perturbations) * work
            )
        outcomes.append(compare_under(condition, window, report))
        done += len(condition.perturbations) * work
    valid, same_pattern = (np.concatenate(x).T for x in zip(*outcomes, strict=True))
    return Certificate(perturbations, valid, same_pattern)


def unperturbed(neuron: Neuron, g, target, tolerance: float) -> Condition:
    """The condition in which nothing is changed, of checked arguments."""
    recipe = neuron.required_recipe
    g = conductances_of(neuron, g)
    if isinstance(target, Features) and np.ndim(target.label):
        raise ValueError(
            "`target` must hold the features of one train, got features of shape "
            f"{np.shape(target.label)}: take one of them."
        )
    wanted, stimulus = as_target(target, tolerance), applied(recipe.current)
    return Condition((), neuron, g[None], wanted, recipe.dt, stimulus)


def _check(axes, key, change, current, noise, q10):
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or not axes:
        got = unknown[0] if unknown else axes
        raise ValueError(f"`axes` must be some of {AXES}, got {got!r}.")
    if "noise" in axes and key is None:
        raise ValueError(
            "Noise needs a `key`, such as `jax.random.key(0)`: give one, or leave "
            '"noise" out of `axes`.'
        )
    if not 0 <= change <= 1:
        raise ValueError(f"`change` must lie between 0 and 1, got {change}.")
    for name, value in (("current", current), ("noise", noise)):
        if not 0 <= value < np.inf:
            wanted = "non-negative and finite (µA/cm²)"
            raise ValueError(f"`{name}` must be {wanted}, got {value}.")
    if not 0 < q10 < np.inf:
        raise ValueError(f"`q10` must be positive and finite, got {q10}.")


def _other_start(plain: Condition) -> Condition:
    neuron = dataclasses.replace(
        plain.neuron,
        initial_V=plain.neuron.initial_V + OTHER_START.change,
        initial_Ca=plain.neuron.initial_Ca * START_MORE_CA,
    )
    return plain._replace(perturbations=(OTHER_START,), neuron=neuron)


def _other_conductances(plain: Condition, change: float) -> Condition:
    perturbations = tuple(
        Perturbation("conductances", by, channel)
        for channel in plain.neuron.channel_names
        for by in (-change, change)
    )
    num = len(plain.neuron.channel_names)
    factors = np.ones((num, 2, num), plain.g.dtype)
    factors[np.arange(num), :, np.arange(num)] = 1 - change, 1 + change
    g = plain.g * factors.reshape(-1, 1, num)
    return plain._replace(perturbations=perturbations, g=g)


def _other_current(plain: Condition, by: float) -> Condition:
    g = np.concatenate([plain.g, plain.g])
    current = plain.neuron.required_recipe.current + np.array([[-by], [by]], g.dtype)
    return plain._replace(
        perturbations=(Perturbation("current", -by), Perturbation("current", by)),
        g=g,
        stimulus=Step(np.broadcast_to(current, g.shape[:2])),
    )


def _noisy(plain: Condition, sigma: float, key: Any) -> Condition:
    stimulus = NoisyCurrent(key, sigma, plain.neuron.required_recipe.current)
    perturbations = (Perturbation("noise", sigma),)
    return plain._replace(perturbations=perturbations, stimulus=stimulus)


def warmer(plain: Condition, warming: float, q10: float) -> Condition:
    """The condition in which all kinetics are those at `warming` °C more."""
    neuron = plain.neuron
    own = neuron.temperature or Temperature(0.0, 0.0, q10)
    warm = dataclasses.replace(own, celsius=own.celsius + warming)
    faster = float(warm.speed / own.speed)
    return plain._replace(
        perturbations=(Perturbation("temperature", warming),),
        neuron=dataclasses.replace(neuron, temperature=warm),
        target=plain.target.at_pace(faster),
        dt=plain.dt / max(faster, 1.0),  # as fine as before for what is now faster
    )


def compare_under(
    condition: Condition, window: Window, on_progress: Progress | None = None
) -> tuple[Bool[np.ndarray, "checks cells"], Bool[np.ndarray, "checks cells"]]:
    """Whether members are valid in a condition, and whether they keep the pattern."""
    _, neuron, g, target, dt, stimulus = condition
    how = {"dt": dt, **window._asdict()}
    run = simulate(neuron, g, **how, stimulus=stimulus, on_progress=on_progress)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), run)
    verdict = judge(flat, target)
    same = flat.succeeded & (verdict.features.label == target.label)
    by_check = lambda x: x.reshape(run.succeeded.shape)
    return by_check(verdict.valid), by_check(same)
