r"""Refinement: members that miss a target move until they fire like it.

A member misses by $r$, the logarithms of its features over the target's. It takes the
Gauss-Newton step of least change in log conductances,
$\Delta = -J^\top (J J^\top + \lambda I)^{-1} r$. The slopes $J$ are estimated from all
members that were simulated before (*ensemble*), or by differentiating one cycle of each
member (*autodiff*). Where input conductances have to stay, steps are projected on
directions that leave them alone to first order; then they are imposed exactly.

In every round, members `propose` a step and are simulated there; they `accept` it only
if they miss by less; and slopes are learned from all of these simulations.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial import KDTree

from dicjax._core import (
    conductances_of,
    HasConductances,
    in_batches,
    on_host,
    Progress,
    solve,
    Stage,
    widened,
)
from dicjax.dics import dics_of_one_cell, dynamic_input_conductances, impose, OK
from dicjax.neurons import Neuron
from dicjax.populations.correction import Known, local_slopes, Slopes, update_known
from dicjax.populations.evaluation import (
    evaluate,
    Verdict,
    Window,
    window_for,
    with_rows,
)
from dicjax.populations.sensitivities import rhythm_slopes
from dicjax.spikes import as_target, Features, SpikeTrain, Target


ESTIMATORS = ("ensemble", "autodiff")
BATCH = 256  # members whose steps are computed at once
MIN_KNOWN = 20  # members of the right pattern that an ensemble's slopes take
RIDGE = 1e-2
MAX_STRIDE = 0.3  # of ln(feature / target) that one step takes at most
LONGEST_BY_CYCLES = 0.5  # step, in log conductance, that derivatives are good for
FLOOR = 1e-3  # of a channel's bound: what counts as none of it
MIN_SHARE = 0.5  # of the way to the nearest member of the right pattern


@dataclasses.dataclass(frozen=True)
class Refined:
    """Members before and after refinement, in the order in which they were given.

    - `neuron`, `target`, `tolerance`: what they are and should fire like.
    - `g`: maximal conductances, in mS/cm²; `g_before`: as given.
    - `valid`, `valid_before`: whether they fire like the target.
    - `score`, `score_before`: the largest miss in units of what is allowed; infinite
        in another firing pattern.
    - `features`, `spike_times`: of the refined members, simulated for `duration` ms.
    - `shares`: of valid members, before and after every round.
    - `num_simulated`: simulations that it took, and `num_slopes` cycles differentiated.
    """

    neuron: Neuron
    target: Features
    tolerance: float
    estimator: str
    keep_dics: bool
    g: Float[np.ndarray, "cells channels"]
    g_before: Float[np.ndarray, "cells channels"]
    valid: Bool[np.ndarray, " cells"]
    valid_before: Bool[np.ndarray, " cells"]
    score: Float[np.ndarray, " cells"]
    score_before: Float[np.ndarray, " cells"]
    features: Features
    spike_times: Float[np.ndarray, "cells spikes"]
    duration: float
    shares: tuple[float, ...]
    num_simulated: int
    num_slopes: int

    def __str__(self) -> str:
        before, after = self.valid_before.sum(), self.valid.sum()
        improved = int((self.score < self.score_before).sum())
        lines = [
            f"{after} of {len(self.g)} members fire like the target within "
            f"{self.tolerance:.0%}; {before} did before ({self.estimator}, "
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
        if self.keep_dics:
            lines.append("Dynamic input conductances at V_ref are what they were.")
        return "\n".join(lines)


@on_host()
def refine(
    neuron: Neuron,
    g: Float[np.ndarray, "cells channels"] | HasConductances,
    target: Target | Features | SpikeTrain | Float[np.ndarray, " spikes"],
    *,
    estimator: str = "ensemble",
    keep_dics: bool = False,
    tolerance: float = 0.10,
    max_rounds: int = 6,
    duration: float | None = None,
    discard: float | None = None,
    on_progress: Progress | None = None,
) -> Refined:
    """Refines members until they fire like a target.

    **Arguments:**

    - `neuron`: the model; it must have a recipe.
    - `g`: maximal conductances, in mS/cm², thousands of members at once; or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.
    - `target`: a spike train (ms), or its features.
    - `estimator`: where slopes come from: "ensemble", at least twenty members of the
        target's firing pattern; or "autodiff", derivatives of each member's own cycle.
    - `keep_dics`: leave (g_s, g_u) at `neuron.V_ref` as they are.
    - `tolerance`: how far each feature may be off, as a share.
    - `max_rounds`: of steps, unless all members are valid before.
    - `duration`, `discard`: of simulations, in ms; by default what the target needs.
    - `on_progress`: called with (stage, valid members, members).

    **Returns:**

    A [`dicjax.Refined`][]. No member is further from the target than it was.

    **Raises:**

    - `ValueError`: if the estimator is unknown, the target silent, conductances bad, or
        members too few or too unlike the target to learn from.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {ESTIMATORS}, got {estimator!r}.")
    g = conductances_of(neuron, g)
    wanted = as_target(target, tolerance)
    window = window_for(neuron, wanted, duration=duration, discard=discard)
    problem, before = _start(neuron, wanted, window, g, estimator, keep_dics)
    state, num_simulated, num_slopes = before, len(g), 0
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
    return Refined(
        neuron=neuron,
        target=wanted.features,
        tolerance=wanted.tolerance,
        estimator=estimator,
        keep_dics=keep_dics,
        g=state.g,
        g_before=before.g,
        valid=state.verdict.valid,
        valid_before=before.verdict.valid,
        score=state.verdict.score,
        score_before=before.verdict.score,
        features=state.verdict.features,
        spike_times=state.spike_times,
        duration=window.duration,
        shares=tuple(shares),
        num_simulated=num_simulated,
        num_slopes=num_slopes,
    )


class Problem(NamedTuple):
    """What members are refined for: it is the same in every round.

    `dics` are (g_s, g_u) of the members as they were given.
    """

    neuron: Neuron
    target: Target
    window: Window
    estimator: str
    keep_dics: bool
    log_bounds: Float[np.ndarray, "2 channels"]
    dics: Float[np.ndarray, "cells 2"]

    def log_of(self, g):
        """Logarithms of conductances, of which zero has a finite one."""
        return np.log(np.maximum(g, np.exp(self.log_bounds[0]))).astype(g.dtype)


class State(NamedTuple):
    """Members after some rounds, and what was learned from all simulations so far.

    `trust` is the part of its Gauss-Newton step that each member takes.
    """

    g: Float[np.ndarray, "cells channels"]
    verdict: Verdict
    spike_times: Float[np.ndarray, "cells spikes"]
    trust: Float[np.ndarray, " cells"]
    known: Known


def _start(neuron, target, window, g, estimator, keep_dics) -> tuple[Problem, State]:
    bounds = np.maximum(neuron.bounds.astype(g.dtype), g.max(axis=0))
    log_bounds = np.log(np.stack([FLOOR * bounds, bounds]))
    dics = np.asarray(dynamic_input_conductances(neuron, g, float(neuron.V_ref)))[:, 1:]
    problem = Problem(neuron, target, window, estimator, keep_dics, log_bounds, dics)
    run, verdict = evaluate(neuron, g, target, window, halved=True)
    trust = np.ones(len(g), g.dtype)
    known = update_known(None, problem.log_of(g), verdict)
    return problem, State(g.copy(), verdict, np.asarray(run.spike_times), trust, known)


def propose(
    problem: Problem, state: State
) -> tuple[Int[np.ndarray, " some"], Float[np.ndarray, "some channels"]]:
    """Members that can take a step, and where it leads (mS/cm²)."""
    todo = np.flatnonzero(~state.verdict.valid)
    verdict, trust = state.verdict[todo], state.trust[todo]
    log_g = problem.log_of(state.g[todo])
    slopes = _slopes(problem, state, todo, log_g)
    dic_slopes = None
    if problem.keep_dics:
        neuron = problem.neuron.with_dtype(log_g.dtype)
        of_dics = functools.partial(_slopes_of_dics, neuron)
        dic_slopes = in_batches(of_dics, state.g[todo], size=BATCH)
    errors = np.nan_to_num(verdict.errors)
    new = _stepped(log_g, slopes, errors, verdict.limits, trust, dic_slopes)
    has_pattern = np.isfinite(verdict.score)
    can_move = np.isfinite(slopes.values).all(axis=(1, 2)) & has_pattern
    if problem.estimator == "ensemble" and not has_pattern.all():
        astray = ~has_pattern
        new[astray] = _towards_the_pattern(state.known, log_g[astray], trust[astray])
        can_move |= astray
    new = np.clip(new, *problem.log_bounds)
    members, g = todo[can_move], np.exp(new[can_move]).astype(state.g.dtype)
    if problem.keep_dics:
        dics = problem.dics[members].astype(float)
        imposed = impose(problem.neuron, g, dics, through="best")
        ok = (imposed.g <= np.exp(problem.log_bounds[1])).all(axis=1)
        ok &= imposed.status == OK
        members, g = members[ok], imposed.g[ok]
    return members, g


def accept(
    problem: Problem,
    state: State,
    members: Int[np.ndarray, " some"],
    proposed: Float[np.ndarray, "some channels"],
) -> State:
    """Simulates proposals, and moves those members that they bring nearer."""
    neuron, target, window, *_ = problem
    run, verdict = evaluate(neuron, proposed, target, window, halved=True)
    is_better = verdict.score < state.verdict.score[members]
    width = max(run.spike_times.shape[1], state.spike_times.shape[1])
    old = state.g, state.verdict, widened(state.spike_times, width)
    new = proposed, verdict, widened(np.asarray(run.spike_times), width)
    new = jax.tree.map(lambda x: x[is_better], new)
    g, moved, spike_times = with_rows(old, members[is_better], new)
    # A member that overshot tries a shorter step next time.
    trust = state.trust[members]
    trust = np.where(is_better, np.minimum(1, 2 * trust), trust / 2)
    trust = with_rows(state.trust, members, trust)
    known = update_known(state.known, problem.log_of(proposed), verdict)
    return State(g, moved, spike_times, trust, known)


def _slopes(problem: Problem, state: State, todo, log_g) -> Slopes:
    if problem.estimator == "autodiff":
        own, settle = state.verdict[todo].features, problem.window.discard
        slopes = rhythm_slopes(problem.neuron, state.g[todo], own, settle)
        return Slopes(slopes, np.ones_like(log_g[0]), LONGEST_BY_CYCLES)
    num = int(state.known.usable.sum())
    if num < MIN_KNOWN:
        raise ValueError(
            f"An ensemble needs {MIN_KNOWN} members that fire in the target's pattern "
            f"to learn from, but only {num} do: give more members, or choose "
            'estimator="autodiff".'
        )
    return local_slopes(state.known, log_g)


def _towards_the_pattern(known: Known, log_g, trust):
    """Members of another pattern some of the way to the nearest that has the target's.

    The way is longer for those that came no nearer with shorter steps.
    """
    has_pattern = known.log_g[known.usable]
    spread = np.maximum(has_pattern.std(axis=0), 0.05)
    nearest = has_pattern[KDTree(has_pattern / spread).query(log_g / spread)[1]]
    share = MIN_SHARE / np.maximum(trust, MIN_SHARE)
    return log_g + share[:, None] * (nearest - log_g)


def refined_by_ensemble(
    known: Known,
    log_g: Float[np.ndarray, "cells channels"],
    errors: Float[np.ndarray, "cells 4"],
    limits: Float[np.ndarray, "cells 4"],
    trust: Float[np.ndarray, " cells"],
) -> Float[np.ndarray, "cells channels"]:
    """Near misses a Gauss-Newton step nearer, as logarithms of conductances.

    Their `errors` are logarithms of features over the target's, of which `limits` are
    allowed. They take a part of the step, their `trust`, by slopes among `known` ones.
    """
    return _stepped(log_g, local_slopes(known, log_g), errors, limits, trust)


def _stepped(log_g, slopes: Slopes, errors, limits, trust, dic_slopes=None):
    """Members after a step that leaves input conductances of these slopes alone."""
    dtype = log_g.dtype
    if dic_slopes is None:
        dic_slopes = np.zeros((len(log_g), 2, log_g.shape[1]), dtype)
    steps = in_batches(
        functools.partial(_step, jnp.asarray(slopes.longest, dtype)),
        np.nan_to_num(slopes.values / limits[:, :, None]).astype(dtype),
        (errors / limits).astype(dtype),
        (dic_slopes * slopes.scale).astype(dtype),
        trust.astype(dtype),
        (MAX_STRIDE / limits).astype(dtype),
        size=BATCH,
    )
    return log_g + steps * slopes.scale


@jax.jit
def _step(
    longest: Float[Array, ""],
    slopes: Float[Array, "cells features channels"],
    missed: Float[Array, "cells features"],
    dic_slopes: Float[Array, "cells 2 channels"],
    trust: Float[Array, " cells"],
    strides: Float[Array, "cells features"],
) -> Float[Array, "cells channels"]:
    """Gauss-Newton steps of least change, that leave input conductances alone."""

    def one(J, missed, D, trust, stride):
        unfelt = _unfelt(D)
        J = J @ unfelt
        gram = J @ J.T
        ridge = RIDGE * (1 + jnp.trace(gram)) * jnp.eye(len(J), dtype=J.dtype)
        step = -J.T @ solve(gram + ridge, jnp.clip(missed, -stride, stride))
        size = jnp.max(jnp.abs(step)) + jnp.asarray(1e-9, J.dtype)
        return trust * step * jnp.minimum(1, longest / size)

    return jax.vmap(one)(slopes, missed, dic_slopes, trust, strides)


def _unfelt(D):
    """The projection on what the rows of `D` do not feel; all where they are zero."""
    size = jnp.maximum(jnp.linalg.norm(D, axis=1, keepdims=True), 1e-12)
    rows = D / size.astype(D.dtype)
    gram = rows @ rows.T + jnp.asarray(1e-9, D.dtype) * jnp.eye(len(D), dtype=D.dtype)
    return jnp.eye(D.shape[1], dtype=D.dtype) - rows.T @ solve(gram, rows)


@jax.jit
def _slopes_of_dics(neuron: Neuron, g):
    def one(g):
        dics = lambda log_g: dics_of_one_cell(neuron, jnp.exp(log_g), neuron.V_ref)[1:]
        return jax.jacfwd(dics)(jnp.log(jnp.maximum(g, jnp.finfo(g.dtype).tiny)))

    return jax.vmap(one)(g)
