"""Rounds of refinement: members `propose` steps, and `accept` those that help."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial import KDTree

from dicjax._core import in_batches, solve, widened
from dicjax.dics import dics_of_one_cell, dynamic_input_conductances, impose, OK
from dicjax.neurons import by_member, Neuron, of_members
from dicjax.populations.correction import Known, local_slopes, Slopes, update_known
from dicjax.populations.evaluation import Conditions, Verdict, with_rows
from dicjax.populations.refinement.targets import AbstractTarget, Outcome
from dicjax.populations.refinement.unknowns import Numbers, with_numbers


BATCH = 256  # members whose steps are computed at once
MIN_KNOWN = 20  # members that can be compared, which an ensemble's slopes take
RIDGE = 1e-2
MAX_STRIDE = 0.3  # of a large error that one step corrects at most
LONGEST_BY_DERIVATIVES = 0.5  # step, in log conductance, that they are good for
FLOOR = 1e-3  # of a channel's bound: what counts as none of it
BEYOND = 10.0  # bounds over the largest conductance, where no recipe has any
LEAST_BOUND = 1e-6  # mS/cm²
MIN_SHARE = 0.5  # of the way to the nearest member that can be compared
PROBED = 0.5  # of their reach, by which numbers are displaced to learn slopes


class Place(eqx.Module):
    """Where members are: their conductances (mS/cm²) and numbers of the neuron."""

    g: Float[np.ndarray, "cells channels"]
    numbers: Float[np.ndarray, "cells numbers"]

    def __getitem__(self, members) -> "Place":
        return Place(self.g[members], self.numbers[members])


class Problem(NamedTuple):
    """What members are refined for: it is the same in every round.

    - `neuron`: for members in a row.
    - `numbers`: of the neuron, that change beside conductances.
    - `bounds`: of unknowns: log conductances, and numbers in units of their reach.
    - `dics`: (g_s, g_u) of the members as they were given, if these are kept.
    """

    neuron: Neuron
    target: AbstractTarget
    conditions: Conditions
    estimator: str
    numbers: Numbers
    bounds: Float[np.ndarray, "2 unknowns"]
    dics: Float[np.ndarray, "cells 2"] | None

    def neuron_of(self, members: Int[np.ndarray, " some"], place: Place) -> Neuron:
        """The neuron of some members with the numbers of a place."""
        neuron = of_members(self.neuron, members)
        return with_numbers(neuron, self.numbers.leaves, place.numbers)

    def evaluate(self, members: Int[np.ndarray, " some"], place: Place) -> Outcome:
        """What some members do at a place."""
        neuron = self.neuron_of(members, place)
        return self.target.evaluate(neuron, place.g, self.conditions)

    def unknowns(
        self, members: Int[np.ndarray, " some"], place: Place
    ) -> Float[np.ndarray, "some unknowns"]:
        """Logarithms of conductances, of which zero has a finite one, and numbers."""
        g = place.g
        least = np.exp(self.bounds[0, : g.shape[1]])
        log_g = np.log(np.maximum(g, least)).astype(g.dtype)
        moved = (place.numbers - self.numbers.given[members]) / self.numbers.reach
        return np.concatenate([log_g, moved.astype(g.dtype)], axis=1)

    def place(
        self,
        members: Int[np.ndarray, " some"],
        unknowns: Float[np.ndarray, "some unknowns"],
    ) -> Place:
        """Where some members are that have these unknowns."""
        log_g, moved = np.split(unknowns, [len(self.neuron.channels)], axis=1)
        numbers = self.numbers.given[members] + moved * self.numbers.reach
        return Place(np.exp(log_g), numbers)

    def learn(self, known: Known | None, unknowns, verdict: Verdict) -> Known:
        """Adds members that were judged, by errors in units of large ones."""
        errors = verdict.errors / self.target.large
        verdict = eqx.tree_at(lambda x: x.errors, verdict, errors)
        return update_known(known, unknowns, verdict)


class State(NamedTuple):
    """Members after some rounds, and what was learned from all simulations so far.

    `trust` is the part of its Gauss-Newton step that each member takes.
    """

    place: Place
    verdict: Verdict
    spike_times: Float[np.ndarray, "cells *steps spikes"]
    trust: Float[np.ndarray, " cells"]
    known: Known


def begin(
    neuron: Neuron,
    target: AbstractTarget,
    conditions: Conditions,
    g: Float[np.ndarray, "cells channels"],
    numbers: Numbers,
    estimator: str,
    keep_dics: bool,
) -> tuple[Problem, State]:
    """Members as they are given, simulated."""
    if neuron.recipe is None:
        highest = np.maximum(BEYOND * g.max(axis=0), LEAST_BOUND).astype(g.dtype)
    else:
        highest = np.maximum(neuron.bounds.astype(g.dtype), g.max(axis=0))
    log_bounds = np.log(np.stack([FLOOR * highest, highest]))
    ends = np.repeat(np.array([[-1], [1]], g.dtype), len(numbers.reach), axis=1)
    dics, members = None, np.arange(len(g))
    if keep_dics:
        at = float(neuron.V_ref)
        dics = np.asarray(dynamic_input_conductances(neuron, g, at))[:, 1:]
    problem = Problem(
        by_member(neuron, (len(g),)),
        target,
        conditions,
        estimator,
        numbers,
        np.concatenate([log_bounds, ends], axis=1),
        dics,
    )
    place = Place(g.copy(), numbers.given.copy())
    spike_times, verdict = problem.evaluate(members, place)
    trust = np.ones(len(g), g.dtype)
    known = problem.learn(None, problem.unknowns(members, place), verdict)
    return problem, State(place, verdict, spike_times, trust, known)


def probe(problem: Problem, state: State) -> State:
    """Learns what numbers do, from members in which they are displaced at random.

    Until then, members may not differ in them.
    """
    num, members = problem.numbers.given.shape, np.arange(len(state.trust))
    drawn = np.asarray(jr.uniform(jr.key(0), num, minval=-PROBED, maxval=PROBED))
    numbers = problem.numbers.given + drawn * problem.numbers.reach
    place = Place(state.place.g, numbers)
    _, verdict = problem.evaluate(members, place)
    known = problem.learn(state.known, problem.unknowns(members, place), verdict)
    return state._replace(known=known)


def propose(problem: Problem, state: State) -> tuple[Int[np.ndarray, " some"], Place]:
    """Members that can take a step, and where it leads."""
    todo = np.flatnonzero(~state.verdict.valid)
    verdict, trust, place = state.verdict[todo], state.trust[todo], state.place[todo]
    unknowns = problem.unknowns(todo, place)
    errors, slopes = _slopes(problem, state, todo, unknowns)
    dic_slopes = None
    if problem.dics is not None:
        neuron = problem.neuron.with_dtype(unknowns.dtype)
        of_dics = functools.partial(_slopes_of_dics, neuron)
        dic_slopes = in_batches(of_dics, place.g, size=BATCH)
    errors = np.nan_to_num(errors)
    new = _stepped(
        unknowns,
        slopes,
        errors,
        verdict.limits,
        trust,
        dic_slopes,
        large=problem.target.large,
        ridge=problem.target.ridge,
    )
    is_comparable = np.isfinite(verdict.score)
    can_move = np.isfinite(slopes.values).all(axis=(1, 2)) & is_comparable
    if problem.estimator == "ensemble" and not is_comparable.all():
        astray = ~is_comparable
        new[astray] = _towards_known(state.known, unknowns[astray], trust[astray])
        can_move |= astray
    members = todo[can_move]
    place = problem.place(members, np.clip(new, *problem.bounds)[can_move])
    place = Place(place.g.astype(state.place.g.dtype), place.numbers)
    if problem.dics is not None and len(members):
        dics = problem.dics[members].astype(float)
        imposed = impose(problem.neuron, place.g, dics, through="best")
        ok = (imposed.g <= np.exp(problem.bounds[1])).all(axis=1)
        ok &= imposed.status == OK
        members, place = members[ok], Place(imposed.g[ok], place.numbers[ok])
    return members, place


def accept(
    problem: Problem, state: State, members: Int[np.ndarray, " some"], proposed: Place
) -> State:
    """Simulates proposals, and moves those members that they bring nearer."""
    spike_times, verdict = problem.evaluate(members, proposed)
    is_better = verdict.score < state.verdict.score[members]
    width = max(spike_times.shape[-1], state.spike_times.shape[-1])
    old = state.place, state.verdict, widened(state.spike_times, width)
    new = proposed, verdict, widened(spike_times, width)
    new = jax.tree.map(lambda x: x[is_better], new)
    place, moved, spike_times = with_rows(old, members[is_better], new)
    # A member that overshot tries a shorter step next time.
    trust = state.trust[members]
    trust = np.where(is_better, np.minimum(1, 2 * trust), trust / 2)
    trust = with_rows(state.trust, members, trust)
    unknowns = problem.unknowns(members, proposed)
    known = problem.learn(state.known, unknowns, verdict)
    return State(place, moved, spike_times, trust, known)


def _slopes(problem: Problem, state: State, todo, unknowns):
    """Errors of members, and their slopes."""
    target, place, verdict = problem.target, state.place[todo], state.verdict[todo]
    if problem.estimator == "autodiff":
        neuron = problem.neuron_of(todo, place)
        how = problem.numbers, problem.conditions, verdict, state.trust[todo]
        errors, slopes = target.differentiate(neuron, place.g, *how)
        return errors, Slopes(slopes, np.ones_like(unknowns[0]), LONGEST_BY_DERIVATIVES)
    num = int(state.known.usable.sum())
    if num < MIN_KNOWN:
        other = ', or choose estimator="autodiff"' * target.has_derivatives
        raise ValueError(
            f"An ensemble needs {MIN_KNOWN} members that {target.comparable} to learn "
            f"from, but only {num} do: give more members{other}."
        )
    slopes = local_slopes(state.known, unknowns)
    return verdict.errors, slopes._replace(values=slopes.values * target.large)


def _towards_known(known: Known, unknowns, trust):
    """Members that cannot be compared some of the way to the nearest that can.

    The way is longer for those that came no nearer with shorter steps.
    """
    comparable = known.log_g[known.usable]
    spread = np.maximum(comparable.std(axis=0), 0.05)
    nearest = comparable[KDTree(comparable / spread).query(unknowns / spread)[1]]
    share = MIN_SHARE / np.maximum(trust, MIN_SHARE)
    return unknowns + share[:, None] * (nearest - unknowns)


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


def _stepped(
    unknowns,
    slopes: Slopes,
    errors,
    limits,
    trust,
    dic_slopes=None,
    large=1.0,
    ridge=RIDGE,
):
    """Members after a step that leaves input conductances of these slopes alone."""
    dtype = unknowns.dtype
    if dic_slopes is None:
        dic_slopes = np.zeros((len(unknowns), 2, unknowns.shape[1]), dtype)
    steps = in_batches(
        functools.partial(_step, ridge, np.asarray(slopes.longest, dtype)),
        np.nan_to_num(slopes.values / limits[:, :, None]).astype(dtype),
        (errors / limits).astype(dtype),
        (dic_slopes * slopes.scale).astype(dtype),
        trust.astype(dtype),
        (MAX_STRIDE * large / limits).astype(dtype),
        size=BATCH,
    )
    return unknowns + steps * slopes.scale


@functools.partial(jax.jit, static_argnums=0)
def _step(
    ridge: float,
    longest: Float[Array | np.ndarray, ""],
    slopes: Float[Array, "cells errors unknowns"],
    missed: Float[Array, "cells errors"],
    dic_slopes: Float[Array, "cells 2 unknowns"],
    trust: Float[Array, " cells"],
    strides: Float[Array, "cells errors"],
) -> Float[Array, "cells unknowns"]:
    """Gauss-Newton steps of least change, that leave input conductances alone."""

    def one(J, missed, D, trust, stride):
        unfelt = _unfelt(D)
        J = J @ unfelt
        missed = jnp.clip(missed, -stride, stride)
        # The smaller of two systems that have the same solution.
        is_wide = J.shape[0] <= J.shape[1]
        gram = J @ J.T if is_wide else J.T @ J
        gram += ridge * (1 + jnp.trace(gram)) * jnp.eye(len(gram), dtype=J.dtype)
        step = -J.T @ solve(gram, missed) if is_wide else -solve(gram, J.T @ missed)
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
