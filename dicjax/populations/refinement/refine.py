r"""Refinement: members that miss a target move until they do what it does.

A member misses by $r$: of a spike train the logarithms of its features over the
target's, of a trace the differences of potentials. It takes the Gauss-Newton step of
least change in log conductances, and in numbers of the neuron if they are named,
$\Delta = -J^\top (J J^\top + \lambda I)^{-1} r$. The slopes $J$ are estimated from all
members that were simulated before (*ensemble*), or by differentiating one cycle, or the
trajectory, of each member (*autodiff*). Where input conductances have to stay, steps
are projected on directions that leave them alone to first order; then they are imposed
exactly.

In every round, members `propose` a step and are simulated there; they `accept` it only
if they miss by less; and slopes are learned from all of these simulations.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Bool, Float

from dicjax._core import (
    AnyArray,
    conductances_of,
    HasConductances,
    on_host,
    Progress,
    Stage,
)
from dicjax.neurons import by_member, member_shape, Neuron
from dicjax.populations.evaluation import Conditions
from dicjax.populations.refinement.responses import StepFeatures
from dicjax.populations.refinement.steps import accept, begin, probe, propose
from dicjax.populations.refinement.targets import (
    AbstractTarget,
    as_any_target,
    Firing,
    FiringRates,
    VoltageTrace,
)
from dicjax.populations.refinement.unknowns import find_numbers, with_numbers
from dicjax.populations.rhythms import check_constant
from dicjax.simulation import (
    AbstractStimulus,
    as_stimulus,
    Cell,
    cell_axes,
    in_a_row,
)
from dicjax.spikes import Features, SpikeTrain, Target


ESTIMATORS = ("ensemble", "autodiff")


@dataclasses.dataclass(frozen=True)
class Refined:
    """Members before and after refinement, in the order in which they were given.

    - `neuron`, `target`, `tolerance`: what they are and should fire like. The neuron
        has the refined numbers of each member, if there are any.
    - `g`: maximal conductances, in mS/cm²; `g_before`: as given.
    - `numbers`, `numbers_before`: of the neuron, in the order of `number_names` and in
        their own units.
    - `valid`, `valid_before`: whether they fire like the target.
    - `score`, `score_before`: the largest miss in units of what is allowed, or of other
        targets than spike trains the root of the mean square; infinite in another
        firing pattern.
    - `features`: what the refined members do: [`dicjax.Features`][] of spike trains,
        rates (Hz) under each current, potentials (mV) at times of a trace, or a
        [`dicjax.StepResponse`][] to each step.
    - `spike_times`: in ms, of the refined members, simulated for `duration` ms; under
        each current, if the target has several.
    - `shares`: of valid members, before and after every round.
    - `num_simulated`: how often members were simulated, and `num_slopes` how often they
        were differentiated.
    """

    neuron: Neuron
    target: Features | AbstractTarget
    tolerance: float
    estimator: str
    keep_dics: bool
    g: Float[np.ndarray, "cells channels"]
    g_before: Float[np.ndarray, "cells channels"]
    numbers: Float[np.ndarray, "cells numbers"]
    numbers_before: Float[np.ndarray, "cells numbers"]
    number_names: tuple[str, ...]
    valid: Bool[np.ndarray, " cells"]
    valid_before: Bool[np.ndarray, " cells"]
    score: Float[np.ndarray, " cells"]
    score_before: Float[np.ndarray, " cells"]
    features: Any
    spike_times: Float[np.ndarray, "cells *steps spikes"]
    duration: float
    shares: tuple[float, ...]
    num_simulated: int
    num_slopes: int
    claim: str = dataclasses.field(repr=False)

    def __str__(self) -> str:
        before, after = self.valid_before.sum(), self.valid.sum()
        improved = int((self.score < self.score_before).sum())
        lines = [
            f"{after} of {len(self.g)} members {self.claim}; {before} did before "
            f"({self.estimator}, "
            f"{len(self.shares) - 1} rounds, {self.num_simulated} simulations).",
            f"{improved} came nearer, none got worse.",
        ]
        moved = np.abs(np.log(self.g / np.maximum(self.g_before, 1e-12)))
        moved = np.where(self.g_before > 0, moved, 0).max(axis=1)
        if (moved > 0).any():
            lines.append(
                "The conductance that changed most changed by "
                f"{np.expm1(np.median(moved[moved > 0])):.0%} (median of those moved)."
            )
        for name, now in zip(self.number_names, self.numbers.T, strict=True):
            lines.append(f"{name} is {np.median(now):.4g} (median).")
        if self.keep_dics:
            lines.append("Dynamic input conductances at V_ref are what they were.")
        return "\n".join(lines)


@on_host()
def refine(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"] | HasConductances,
    target: Target
    | Features
    | SpikeTrain
    | Float[AnyArray, " spikes"]
    | FiringRates
    | VoltageTrace
    | StepFeatures,
    *,
    estimator: str = "ensemble",
    keep_dics: bool = False,
    tolerance: float = 0.10,
    where: Callable[[Cell], Any] | None = None,
    reach: ArrayLike | tuple[float, ...] | None = None,
    stimulus: AbstractStimulus | Callable | None = None,
    max_rounds: int = 6,
    duration: float | None = None,
    discard: float | None = None,
    dt: float | None = None,
    on_progress: Progress | None = None,
) -> Refined:
    """Refines members until they fire like a target.

    Conductances change, and with `where` numbers of the neuron, such as its capacitance
    and the midpoints of gates. Each member has its own.

    **Arguments:**

    - `neuron`: the model.
    - `g`: maximal conductances, in mS/cm², thousands of members at once; or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.
    - `target`: a spike train (ms), or its features; a [`dicjax.FiringRates`][], a
        [`dicjax.VoltageTrace`][] or a [`dicjax.StepFeatures`][].
    - `estimator`: where slopes come from: "ensemble", at least twenty members of the
        target's firing pattern; or "autodiff", derivatives of each member's own cycle,
        or of its trajectory if the target is a trace.
    - `keep_dics`: leave (g_s, g_u) at `neuron.V_ref` as they are.
    - `tolerance`: how far each feature of a spike train may be off, as a share. Other
        targets hold their own.
    - `where`: picks numbers of the neuron that each member may change, such as
        `lambda cell: cell.neuron.capacitance`, as in [`dicjax.feature_slopes`][].
    - `reach`: how far each of these may move from its value, in its own units.
    - `stimulus`: a current applied to all members, such as [`dicjax.Step`][]; by
        default that of the recipe, or none.
    - `max_rounds`: of steps, unless all members are valid before.
    - `duration`, `discard`: of simulations, in ms; by default what the target needs.
        Without a recipe they must be given, unless the target is a trace or steps.
    - `dt`: the time step, in ms, as of [`dicjax.simulate`][]; by default half of the
        recipe's. Without a recipe it must be given.
    - `on_progress`: called with (stage, valid members, members).

    **Returns:**

    A [`dicjax.Refined`][]. No member is further from the target than it was.

    **Raises:**

    - `ValueError`: if the estimator is unknown or cannot do what is asked, the target
        silent, conductances bad, times missing, `where` and `reach` do not go together,
        or members too few or too unlike the target to learn from.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {ESTIMATORS}, got {estimator!r}.")
    g = conductances_of(neuron, g)
    wanted = as_any_target(target, tolerance)
    given = as_stimulus(stimulus)
    conditions = wanted.conditions(neuron, duration, discard, dt, given)
    row = by_member(jax.tree.map(jnp.asarray, neuron), (len(g),))
    numbers = find_numbers(row, where, reach, len(g))
    _check_shared(given)
    if keep_dics:
        _check_kept(row, numbers.names)
    if estimator == "autodiff":
        _check_differentiable(wanted, neuron, g, conditions)
    problem, before = begin(row, wanted, conditions, g, numbers, estimator, keep_dics)
    state, num_simulated, num_slopes = before, len(g), 0
    if numbers.names and estimator == "ensemble" and not before.verdict.valid.all():
        state, num_simulated = probe(problem, state), num_simulated + len(g)
    shares = [float(before.verdict.valid.mean())]
    for number in range(max_rounds):
        num_valid = int(state.verdict.valid.sum())
        if on_progress is not None:
            on_progress(Stage("refining", f"round {number + 1}"), num_valid, len(g))
        if num_valid == len(g):
            break
        if estimator == "autodiff":
            num_slopes += len(g) - num_valid
        members, proposed = propose(problem, state)
        if len(members):
            state = accept(problem, state, members, proposed)
            num_simulated += len(members)
        shares.append(float(state.verdict.valid.mean()))
    found = state.place.numbers
    if numbers.names:
        neuron = with_numbers(row, numbers.leaves, found)
    return Refined(
        neuron=neuron,
        target=wanted.target.features if isinstance(wanted, Firing) else wanted,
        tolerance=wanted.tolerance,
        estimator=estimator,
        keep_dics=keep_dics,
        g=state.place.g,
        g_before=before.place.g,
        numbers=found,
        numbers_before=numbers.given,
        number_names=numbers.names,
        valid=state.verdict.valid,
        valid_before=before.verdict.valid,
        score=state.verdict.score,
        score_before=before.verdict.score,
        features=state.verdict.features,
        spike_times=state.spike_times,
        duration=conditions.window.duration,
        shares=tuple(shares),
        num_simulated=num_simulated,
        num_slopes=num_slopes,
        claim=wanted.claim,
    )


def _check_shared(stimulus: AbstractStimulus | None) -> None:
    axes = () if stimulus is None else jax.tree.leaves(cell_axes(stimulus))
    if len(axes):
        raise ValueError(
            "`stimulus` has values for each cell, but all members are refined under "
            "one: give one that they share."
        )


def _check_kept(neuron: Neuron, names: tuple[str, ...]) -> None:
    if names or member_shape(neuron):
        raise ValueError(
            "Input conductances can be kept where members differ in conductances "
            f"alone, but they differ in {', '.join(names) or 'numbers'} too: leave out "
            "`keep_dics`."
        )


def _check_differentiable(
    target: AbstractTarget, neuron: Neuron, g: np.ndarray, conditions: Conditions
) -> None:
    """Raises `ValueError` if there are no derivatives of what is asked for."""
    if not target.has_derivatives:
        raise ValueError(
            f"{type(target).__name__} have no derivatives, since a spike more or less "
            'changes them in steps: choose estimator="ensemble".'
        )
    if isinstance(target, Firing):
        (duration, discard), _, stimulus = conditions
        check_constant(in_a_row(neuron, g[:1], stimulus).row, discard, duration)
