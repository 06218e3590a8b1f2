r"""Refinement: moving members that miss a target until they fire like it.

A member that misses by $r$ (logarithms of features over those of the target) takes the
Gauss-Newton step of least change in log conductances,
$\Delta = -J^\top (J J^\top + \lambda I)^{-1} r$. The slopes $J$ are told from the
members that are known already (*ensemble*), or by differentiating one cycle of each
(*autodiff*). Where input conductances are to stay, steps are projected on what they do
not feel, and what is left is put right exactly.

A step is kept only if the member, simulated anew, misses by less.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.spatial import KDTree

from dicjax._core import check_conductances, solve
from dicjax.dics import dics_of_one_cell, dynamic_input_conductances, impose, OK
from dicjax.neurons import Neuron
from dicjax.populations.correction import Known, local_slopes, MEMORY
from dicjax.populations.evaluation import (
    judge,
    simulate_by_recipe,
    Verdict,
    Window,
    window_for,
)
from dicjax.populations.sensitivities import feature_slopes
from dicjax.spikes import as_target, Features, NUM_COMPARED, SpikeTrain, Target


ESTIMATORS = ("ensemble", "autodiff")
BATCH = 256  # members whose steps are computed at once
ENOUGH = 20  # members of the right pattern that an ensemble's slopes take
RIDGE = 1e-2
STRIDE = 0.3  # of ln(feature / target) that one step takes at most
LONGEST = {"ensemble": 3.0, "autodiff": 0.5}  # step, in units of each estimator
FLOOR = 1e-3  # of a channel's bound: what counts as none of it
TOWARDS = 0.5  # of the way to the nearest member that has the target's pattern

Progress = Callable[[str, int, int], None]


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
    g: Float[np.ndarray, "cells channels"],
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
    - `g`: maximal conductances, in mS/cm²; thousands of members at once.
    - `target`: a spike train (ms), or its features.
    - `estimator`: where slopes come from: "ensemble", the members themselves, which
        takes at least twenty of the target's firing pattern; or "autodiff",
        derivatives of each member's cycle, which does for a single one.
    - `keep_dics`: leave (g_s, g_u) at `neuron.V_ref` as they are.
    - `tolerance`: how far each feature may be off, as a share.
    - `max_rounds`: of steps; it ends before where all members are valid.
    - `duration`, `discard`: of simulations, in ms; by default as long as the target
        needs.
    - `on_progress`: called with (what is being done, valid members, members).

    **Returns:**

    A [`dicjax.Refined`][]. No member is further from the target than it was.

    **Raises:**

    - `ValueError`: if the estimator is unknown, the target silent, conductances bad, or
        members too few or too unlike the target to learn from.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {ESTIMATORS}, got {estimator!r}.")
    neuron.required_recipe  # noqa: B018 - a model without a recipe is refused at once
    g = np.asarray(g)
    if not np.issubdtype(g.dtype, np.floating):
        g = g.astype(np.float32)
    check_conductances(neuron, g)
    wanted = as_target(target, tolerance)
    window = window_for(neuron, wanted, duration=duration, discard=discard)
    refinement = _Refinement(neuron, wanted, window, g, estimator, keep_dics)
    return refinement.run(max_rounds, on_progress or (lambda stage, done, total: None))


class _Refinement:
    """The members as they are, and all that was simulated on the way."""

    def __init__(
        self,
        neuron: Neuron,
        target: Target,
        window: Window,
        g,
        estimator: str,
        keep_dics: bool,
    ):
        self.target, self.window = target, window
        self.estimator, self.keep_dics = estimator, keep_dics
        self.neuron = neuron
        self.dt = self.neuron.required_recipe.dt / 2
        bounds = np.maximum(self.neuron.bounds.astype(g.dtype), g.max(axis=0))
        self.bounds = np.log(np.stack([FLOOR * bounds, bounds]))
        self.g_before = g
        run = simulate_by_recipe(neuron, g, **window._asdict(), dt=self.dt)
        self.before = self.verdict = judge(run, target)
        self.g, self.spike_times = g.copy(), run.spike_times
        self.trust = np.ones(len(g), g.dtype)
        self.dics = np.asarray(dynamic_input_conductances(self.neuron, g, self.V))
        self.num_simulated, self.num_slopes = len(g), 0
        self.known = Known(
            np.zeros((0, g.shape[1]), g.dtype),
            np.zeros((0, NUM_COMPARED), g.dtype),
            np.zeros(0, bool),
        )
        self._learn(g, self.verdict)

    @property
    def V(self) -> float:
        return float(self.neuron.V_ref)

    def run(self, max_rounds: int, report: Progress) -> Refined:
        shares = [float(self.verdict.valid.mean())]
        for number in range(max_rounds):
            todo = np.flatnonzero(~self.verdict.valid)
            report(
                f"refining, round {number + 1}", len(self.g) - len(todo), len(self.g)
            )
            if not len(todo):
                break
            self._round(todo)
            shares.append(float(self.verdict.valid.mean()))
        return Refined(
            neuron=self.neuron,
            target=self.target.features,
            tolerance=self.target.tolerance,
            estimator=self.estimator,
            keep_dics=self.keep_dics,
            g=self.g,
            g_before=self.g_before,
            valid=self.verdict.valid,
            valid_before=self.before.valid,
            score=self.verdict.score,
            score_before=self.before.score,
            features=self.verdict.features,
            spike_times=self.spike_times,
            duration=self.window.duration,
            shares=tuple(shares),
            num_simulated=self.num_simulated,
            num_slopes=self.num_slopes,
        )

    def _round(self, todo) -> None:
        members, proposed = self._proposed(todo)
        if self.keep_dics:
            members, proposed = self._put_right(members, proposed)
        if not len(members):
            return
        run = simulate_by_recipe(
            self.neuron, proposed, **self.window._asdict(), dt=self.dt
        )
        verdict = judge(run, self.target)
        self.num_simulated += len(members)
        self._learn(proposed, verdict)
        better = verdict.score < self.verdict.score[members]
        self._keep(members[better], proposed[better], verdict[better])
        self._keep_spikes(members[better], run.spike_times[better])
        # A member that overshot tries a shorter step next time.
        trust = self.trust[members]
        self.trust[members] = np.where(better, np.minimum(1, 2 * trust), trust / 2)

    def _keep(self, members, g, verdict: Verdict) -> None:
        def put(x, new):
            x = np.array(x)
            x[members] = new
            return x

        self.verdict = jax.tree.map(put, self.verdict, verdict)
        self.g[members] = g

    def _keep_spikes(self, members, spike_times) -> None:
        extra = spike_times.shape[1] - self.spike_times.shape[1]
        if extra > 0:
            room = ((0, 0), (0, extra))
            self.spike_times = np.pad(self.spike_times, room, constant_values=np.inf)
        self.spike_times[members] = np.inf
        self.spike_times[members, : spike_times.shape[1]] = spike_times

    def _learn(self, g, verdict: Verdict) -> None:
        usable = np.isfinite(verdict.score)
        misses = np.where(usable[:, None], verdict.errors, 0).astype(g.dtype)
        new = Known(self._logarithms(g), misses, usable)
        join = lambda a, b: np.concatenate([a, b])
        known = jax.tree.map(join, new, self.known)
        size = np.where(known.usable, np.abs(known.misses).max(axis=1), np.inf)
        nearest = np.argsort(size, kind="stable")[:MEMORY]
        self.known = jax.tree.map(lambda x: x[nearest], known)

    def _logarithms(self, g):
        return np.log(np.maximum(g, np.exp(self.bounds[0]))).astype(g.dtype)

    def _proposed(self, todo):
        """Members that can take a step, and where it leads."""
        log_g = self._logarithms(self.g[todo])
        dic_slopes = self._dic_slopes(self.g[todo]) if self.keep_dics else None
        slopes, scale = self._slopes(todo, log_g)
        new = stepped(
            log_g,
            slopes,
            scale,
            np.nan_to_num(self.verdict.errors[todo]),
            self.verdict.limits[todo],
            self.trust[todo],
            LONGEST[self.estimator],
            dic_slopes,
        )
        able = np.isfinite(slopes).all(axis=(1, 2))
        able &= np.isfinite(self.verdict.score[todo])
        if self.estimator == "ensemble":
            new, able = self._towards_the_pattern(todo, log_g, new, able)
        new = np.clip(new, *self.bounds)
        return todo[able], np.exp(new[able]).astype(self.g.dtype)

    def _slopes(self, todo, log_g):
        """Slopes of features by log conductances in units of a scale, and the scale."""
        if self.estimator == "autodiff":
            slopes = feature_slopes(
                self.neuron,
                self.g[todo],
                self.target.features,
                estimator="autodiff",
                **self.window._asdict(),
            )
            self.num_slopes += len(todo)
            return slopes, np.ones(self.g.shape[1], self.g.dtype)
        num = int(self.known.usable.sum())
        if num < ENOUGH:
            raise ValueError(
                f"An ensemble needs {ENOUGH} members that fire in the target's pattern "
                f"to learn from, but only {num} do: give more members, or choose "
                'estimator="autodiff".'
            )
        return slopes_of_ensemble(self.known, log_g)

    def _towards_the_pattern(self, todo, log_g, new, able):
        """Members of another pattern go some of the way to the nearest that has it."""
        astray = np.flatnonzero(~np.isfinite(self.verdict.score[todo]))
        known = self.known.log_g[self.known.usable]
        if not len(astray):
            return new, able
        spread = np.maximum(known.std(axis=0), 0.05)
        nearest = known[KDTree(known / spread).query(log_g[astray] / spread)[1]]
        share = TOWARDS / np.maximum(self.trust[todo][astray], TOWARDS)
        new, able = new.copy(), able.copy()
        new[astray] = log_g[astray] + share[:, None] * (nearest - log_g[astray])
        able[astray] = True
        return new, able

    def _dic_slopes(self, g):
        neuron = self.neuron.with_dtype(g.dtype)
        return _batched(_dic_slopes, g, constants=(neuron,))

    def _put_right(self, members, proposed):
        """The same members with the input conductances they had; others are left."""
        made = impose(
            self.neuron,
            proposed,
            self.dics[members][:, 1:].astype(float),
            through="best",
        )
        inside = (made.g <= np.exp(self.bounds[1])).all(axis=1)
        ok = (made.status == OK) & inside
        return members[ok], made.g[ok]


def slopes_of_ensemble(
    known: Known, log_g: Float[np.ndarray, "cells channels"]
) -> tuple[Float[np.ndarray, "cells 4 channels"], Float[np.ndarray, " channels"]]:
    """Slopes around members, told from at most `MEMORY` known ones.

    By log conductances in units of a scale, which is returned too.
    """
    rows = -(-len(log_g) // BATCH) * BATCH
    padded = np.pad(log_g, ((0, rows - len(log_g)), (0, 0)), mode="edge")
    slopes, scale = local_slopes(known.padded(MEMORY), jnp.asarray(padded))
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
    steps = _batched(
        _step,
        np.nan_to_num(slopes / limits[:, :, None]).astype(dtype),
        (errors / limits).astype(dtype),
        (dic_slopes * scale).astype(dtype),
        trust.astype(dtype),
        (STRIDE / limits).astype(dtype),
        constants=(jnp.asarray(longest, dtype),),
    )
    return log_g + steps * scale


def _batched(of, *arrays, constants=()):
    """Applies a compiled function to rows, in batches of one size."""
    num = len(arrays[0])
    parts = []
    for start in range(0, num, BATCH):
        take = np.minimum(np.arange(start, start + BATCH), num - 1)
        parts.append(
            np.asarray(of(*constants, *(jnp.asarray(x[take]) for x in arrays)))
        )
    return np.concatenate(parts)[:num]


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
def _dic_slopes(neuron: Neuron, g):
    def one(g):
        dics = lambda log_g: dics_of_one_cell(neuron, jnp.exp(log_g), neuron.V_ref)[1:]
        return jax.jacfwd(dics)(jnp.log(jnp.maximum(g, jnp.finfo(g.dtype).tiny)))

    return jax.vmap(one)(g)
