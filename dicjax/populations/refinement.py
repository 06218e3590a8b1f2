r"""Refinement: members that miss a target move until they fire like it.

A member misses by $r$, the logarithms of its features over the target's. It takes the
Gauss-Newton step of least change in log conductances,
$\Delta = -J^\top (J J^\top + \lambda I)^{-1} r$. The slopes $J$ are estimated from all
members that were simulated before (*ensemble*), or by differentiating one cycle of each
member (*autodiff*). Where input conductances have to stay, steps are projected on
directions that leave them alone to first order; then they are imposed exactly.

In every round, members `propose` a step and are simulated there; they `accept` it only
if they miss by less; and slopes `learn` from all of these simulations.
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
    padded,
    Progress,
    solve,
    Stage,
    widened,
)
from dicjax.dics import dics_of_one_cell, dynamic_input_conductances, impose, OK
from dicjax.neurons import Neuron
from dicjax.populations.correction import Known, local_slopes, MEMORY
from dicjax.populations.evaluation import (
    judge,
    simulate_by_recipe,
    Verdict,
    Window,
    window_for,
    with_rows,
)
from dicjax.populations.sensitivities import Autodiff, feature_slopes
from dicjax.spikes import as_target, Features, NUM_COMPARED, SpikeTrain, Target


ESTIMATORS = ("ensemble", "autodiff")
BATCH = 256  # members whose steps are computed at once
MIN_KNOWN = 20  # members of the right pattern that an ensemble's slopes take
RIDGE = 1e-2
MAX_STRIDE = 0.3  # of ln(feature / target) that one step takes at most
LONGEST = {"ensemble": 3.0, "autodiff": 0.5}  # step, in units of each estimator
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
                "The conductance that changed most did so by "
                f"{np.expm1(np.median(moved[moved > 0])):.0%} (median of those moved)."
            )
        if self.keep_dics:
            lines.append("Dynamic input conductances at V_ref are what they were.")
        return "\n".join(lines)


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
    - `estimator`: where slopes come from: "ensemble", the members themselves, which
        takes at least twenty of the target's firing pattern; or "autodiff",
        derivatives of each member's cycle, which does for a single one.
    - `keep_dics`: leave (g_s, g_u) at `neuron.V_ref` as they are.
    - `tolerance`: how far each feature may be off, as a share.
    - `max_rounds`: of steps; it ends before where all members are valid.
    - `duration`, `discard`: of simulations, in ms; by default as long as the target
        needs.
    - `on_progress`: called with (stage, valid members, members).

    **Returns:**

    A [`dicjax.Refined`][]. No member is further from the target than it was.

    **Raises:**

    - `ValueError`: if the estimator is unknown, the target silent, conductances bad, or
        members too few or too unlike the target to learn from.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {ESTIMATORS}, got {estimator!r}.")
    neuron.required_recipe  # noqa: B018 - a model without a recipe is refused at once
    g = conductances_of(neuron, g)
    wanted = as_target(target, tolerance)
    window = window_for(neuron, wanted, duration=duration, discard=discard)
    problem, before = _start(neuron, wanted, window, g, estimator, keep_dics)
    state = before
    for number in range(max_rounds):
        num_valid = int(state.verdict.valid.sum())
        if on_progress is not None:
            stage = Stage("refining", f"round {number + 1}")
            on_progress(stage, num_valid, len(g))
        if num_valid == len(g):
            break
        state = _one_round(problem, state)
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
        shares=state.shares,
        num_simulated=state.num_simulated,
        num_slopes=state.num_slopes,
    )


class Problem(NamedTuple):
    """What members are refined for: it is the same in every round.

    - `window`, `dt`: of simulations, in ms.
    - `log_bounds`: lowest and highest logarithms of conductances.
    - `dics`: input conductances (g_s, g_u) of the members as given, in mS/cm².
    """

    neuron: Neuron
    target: Target
    window: Window
    dt: float
    estimator: str
    keep_dics: bool
    log_bounds: Float[np.ndarray, "2 channels"]
    dics: Float[np.ndarray, "cells 2"]

    def log_of(self, g):
        """Logarithms of conductances, of which zero has a finite one."""
        return np.log(np.maximum(g, np.exp(self.log_bounds[0]))).astype(g.dtype)


class State(NamedTuple):
    """Members after some rounds, and what was learned from all simulations so far.

    - `trust`: the part of its Gauss-Newton step that each member takes.
    - `known`: simulated members that slopes are estimated from.
    - `shares`: of valid members, before and after every round.
    """

    g: Float[np.ndarray, "cells channels"]
    verdict: Verdict
    spike_times: Float[np.ndarray, "cells spikes"]
    trust: Float[np.ndarray, " cells"]
    known: Known
    shares: tuple[float, ...]
    num_simulated: int
    num_slopes: int


def _start(neuron, target, window, g, estimator, keep_dics) -> tuple[Problem, State]:
    """The problem, and the state in which the members are as given."""
    bounds = np.maximum(neuron.bounds.astype(g.dtype), g.max(axis=0))
    dics = np.asarray(dynamic_input_conductances(neuron, g, float(neuron.V_ref)))
    problem = Problem(
        neuron=neuron,
        target=target,
        window=window,
        dt=neuron.required_recipe.dt / 2,
        estimator=estimator,
        keep_dics=keep_dics,
        log_bounds=np.log(np.stack([FLOOR * bounds, bounds])),
        dics=dics[:, 1:],
    )
    spike_times, verdict = _evaluate(problem, g)
    nothing = Known(
        np.zeros((0, g.shape[1]), g.dtype),
        np.zeros((0, NUM_COMPARED), g.dtype),
        np.zeros(0, bool),
    )
    state = State(
        g=g.copy(),
        verdict=verdict,
        spike_times=spike_times,
        trust=np.ones(len(g), g.dtype),
        known=learn(nothing, problem.log_of(g), verdict),
        shares=(float(verdict.valid.mean()),),
        num_simulated=len(g),
        num_slopes=0,
    )
    return problem, state


def _evaluate(problem: Problem, g):
    """Spike times of members, and how they compare with the target."""
    run = simulate_by_recipe(
        problem.neuron, g, **problem.window._asdict(), dt=problem.dt
    )
    return run.spike_times, judge(run, problem.target)


def _one_round(problem: Problem, state: State) -> State:
    """Proposes, simulates, and accepts what comes nearer to the target."""
    members, proposed, num_slopes = propose(problem, state)
    state = state._replace(num_slopes=state.num_slopes + num_slopes)
    if len(members):
        spike_times, verdict = _evaluate(problem, proposed)
        state = accept(state, members, proposed, spike_times, verdict)
        state = state._replace(
            known=learn(state.known, problem.log_of(proposed), verdict),
            num_simulated=state.num_simulated + len(members),
        )
    share = float(state.verdict.valid.mean())
    return state._replace(shares=(*state.shares, share))


def propose(
    problem: Problem, state: State
) -> tuple[Int[np.ndarray, " some"], Float[np.ndarray, "some channels"], int]:
    """Members that can take a step, where it leads (mS/cm²), and the number of cycles
    that were differentiated for it."""
    todo = np.flatnonzero(~state.verdict.valid)
    verdict, trust = state.verdict[todo], state.trust[todo]
    log_g = problem.log_of(state.g[todo])
    slopes, scale, num_slopes = _slopes(problem, state, todo, log_g)
    new = stepped(
        log_g,
        slopes,
        scale,
        np.nan_to_num(verdict.errors),
        verdict.limits,
        trust,
        LONGEST[problem.estimator],
        _dic_slopes(problem, state.g[todo]) if problem.keep_dics else None,
    )
    has_pattern = np.isfinite(verdict.score)
    can_move = np.isfinite(slopes).all(axis=(1, 2)) & has_pattern
    if problem.estimator == "ensemble" and not has_pattern.all():
        astray = ~has_pattern
        new[astray] = _towards_the_pattern(state.known, log_g[astray], trust[astray])
        can_move |= astray
    new = np.clip(new, *problem.log_bounds)
    members, g = todo[can_move], np.exp(new[can_move]).astype(state.g.dtype)
    if problem.keep_dics:
        members, g = _with_dics_kept(problem, members, g)
    return members, g, num_slopes


def accept(
    state: State,
    members: Int[np.ndarray, " some"],
    proposed: Float[np.ndarray, "some channels"],
    spike_times: Float[np.ndarray, "some spikes"],
    verdict: Verdict,
) -> State:
    """Moves those of `members` whose proposal is nearer to the target."""
    is_better = verdict.score < state.verdict.score[members]
    better = members[is_better]
    width = max(spike_times.shape[1], state.spike_times.shape[1])
    # A member that overshot tries a shorter step next time.
    trust = state.trust[members]
    trust = np.where(is_better, np.minimum(1, 2 * trust), trust / 2)
    return state._replace(
        g=with_rows(state.g, better, proposed[is_better]),
        verdict=with_rows(state.verdict, better, verdict[is_better]),
        spike_times=with_rows(
            widened(state.spike_times, width),
            better,
            widened(spike_times[is_better], width),
        ),
        trust=with_rows(state.trust, members, trust),
    )


def learn(
    known: Known, log_g: Float[np.ndarray, "cells channels"], verdict: Verdict
) -> Known:
    """Adds simulated members, and keeps the `MEMORY` that are nearest to the target."""
    usable = np.isfinite(verdict.score)
    misses = np.where(usable[:, None], verdict.errors, 0).astype(log_g.dtype)
    join = lambda a, b: np.concatenate([a, b])
    known = jax.tree.map(join, Known(log_g, misses, usable), known)
    size = np.where(known.usable, np.abs(known.misses).max(axis=1), np.inf)
    nearest = np.argsort(size, kind="stable")[:MEMORY]
    return jax.tree.map(lambda x: x[nearest], known)


def _slopes(problem: Problem, state: State, todo, log_g):
    """Slopes of features by log conductances in units of a scale, the scale, and the
    number of cycles that were differentiated."""
    if problem.estimator == "autodiff":
        slopes = feature_slopes(
            problem.neuron,
            state.g[todo],
            problem.target.features,
            estimator=Autodiff(),
            **problem.window._asdict(),
        )
        return slopes, np.ones(log_g.shape[1], log_g.dtype), len(todo)
    num = int(state.known.usable.sum())
    if num < MIN_KNOWN:
        raise ValueError(
            f"An ensemble needs {MIN_KNOWN} members that fire in the target's pattern "
            f"to learn from, but only {num} do: give more members, or choose "
            'estimator="autodiff".'
        )
    return *slopes_of_ensemble(state.known, log_g), 0


def _towards_the_pattern(known: Known, log_g, trust):
    """Members of another pattern some of the way to the nearest that has the target's.

    The way is longer for those that came no nearer with shorter steps.
    """
    has_pattern = known.log_g[known.usable]
    spread = np.maximum(has_pattern.std(axis=0), 0.05)
    nearest = has_pattern[KDTree(has_pattern / spread).query(log_g / spread)[1]]
    share = MIN_SHARE / np.maximum(trust, MIN_SHARE)
    return log_g + share[:, None] * (nearest - log_g)


def _dic_slopes(problem: Problem, g):
    neuron = problem.neuron.with_dtype(g.dtype)
    return in_batches(functools.partial(_slopes_of_dics, neuron), g, size=BATCH)


def _with_dics_kept(problem: Problem, members, g):
    """Members with the input conductances they were given with; others are left out."""
    imposed = impose(
        problem.neuron, g, problem.dics[members].astype(float), through="best"
    )
    inside = (imposed.g <= np.exp(problem.log_bounds[1])).all(axis=1)
    ok = (imposed.status == OK) & inside
    return members[ok], imposed.g[ok]


def slopes_of_ensemble(
    known: Known, log_g: Float[np.ndarray, "cells channels"]
) -> tuple[Float[np.ndarray, "cells 4 channels"], Float[np.ndarray, " channels"]]:
    """Slopes around members, estimated from at most `MEMORY` known ones.

    They are by log conductances in units of a scale, which is returned too.
    """
    num_rows = -(-len(log_g) // BATCH) * BATCH
    rows = jnp.asarray(padded(log_g, num_rows))
    slopes, scale = local_slopes(known.padded(MEMORY), rows)
    return np.array(slopes)[: len(log_g)], np.asarray(scale)


def stepped(
    log_g: Float[np.ndarray, "cells channels"],
    slopes: Float[np.ndarray, "cells 4 channels"],
    scale: Float[np.ndarray, " channels"],
    errors: Float[np.ndarray, "cells 4"],
    limits: Float[np.ndarray, "cells 4"],
    trust: Float[np.ndarray, " cells"],
    longest: float,
    dic_slopes: Float[np.ndarray, "cells 2 channels"] | None = None,
) -> Float[np.ndarray, "cells channels"]:
    """Members, as logarithms of conductances, after a Gauss-Newton step each.

    **Arguments:**

    - `slopes`: of features, by log conductances in units of `scale`.
    - `errors`: logarithms of features over the target's; `limits`: how much of them is
        allowed.
    - `trust`: the part of the step that is taken.
    - `longest`: step of any channel, in units of `scale`.
    - `dic_slopes`: of input conductances that are to stay, by log conductances.
    """
    dtype = log_g.dtype
    if dic_slopes is None:
        dic_slopes = np.zeros((len(log_g), 2, log_g.shape[1]), dtype)
    steps = in_batches(
        functools.partial(_step, jnp.asarray(longest, dtype)),
        np.nan_to_num(slopes / limits[:, :, None]).astype(dtype),
        (errors / limits).astype(dtype),
        (dic_slopes * scale).astype(dtype),
        trust.astype(dtype),
        (MAX_STRIDE / limits).astype(dtype),
        size=BATCH,
    )
    return log_g + steps * scale


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
