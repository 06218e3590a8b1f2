"""Which members are simulated next."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, Key
from scipy.spatial import KDTree

from dicjax._core import padded
from dicjax.dics import impose, OK, sample
from dicjax.generation.state import (
    Conductances,
    Makeup,
    Problem,
    rows,
    SearchState,
    Source,
)
from dicjax.inference import contexts, log_features, polish, sample_density
from dicjax.populations import (
    corrected_children,
    draw_drives,
    refined_by_ensemble,
)


DRAWN_PER_CANDIDATE = 8  # in each of two ways, to choose the first ones from
PILOTS_PER_CANDIDATE = 4  # of which few are near
POLISHED_PER_CANDIDATE = 2.5  # of which the least crowded are taken
LARGEST_CORRECTION = 0.3  # of ln(feature / target), at once
MIN_SHARE = 0.05  # of valid candidates, below which a source is given up
HIGH_SHARE = 0.6  # from which fresh draws need no refinement
NUM_NEIGHBOURS = 6  # whose distance says how crowded a member's surroundings are


class Candidates(NamedTuple):
    """Members to be simulated, and how often each was refined, this time included."""

    source: Source
    makeup: Makeup
    num_refined: Int[np.ndarray, " cells"]


def propose(key: Key[Array, ""], problem: Problem, state: SearchState) -> Candidates:
    """The candidates of the next round, from the source that promises most."""
    source, num = choose_source(problem, state), problem.config.candidates_per_round
    known = state.known
    if source == "posterior":
        g = first_candidates(key, problem)
        makeup = Makeup(g, np.zeros((len(g), 0), np.float32))
    elif source == "pilot" or known is None:
        makeup = pilot_candidates(key, problem)
    elif source == "refinement":
        missed = rows(state.near_misses, slice(num))
        limits = np.asarray(problem.target.limits(missed.errors))
        trust = 0.5**missed.num_refined
        at = refined_by_ensemble(
            known, missed.coordinates, missed.errors, limits, trust
        )
        return Candidates(source, problem.makeup_at(at), missed.num_refined + 1)
    else:
        spread = jnp.asarray(state.spread, jnp.float32)
        born = corrected_children(
            key,
            known.padded(),
            problem.bounds,
            spread,
            num,
            LARGEST_CORRECTION,
            is_noisy=problem.is_driven,
        )
        makeup = problem.makeup_at(np.asarray(born))
    return Candidates(source, makeup, np.zeros(len(makeup.g), int))


def choose_source(problem: Problem, state: SearchState) -> Source:
    """Fresh draws where many are valid, else refined near misses; where neither helps,
    new children of the nearest members.

    Where members vary, a pilot round comes first, and then its children.
    """
    if problem.is_driven:
        return "correction" if state.rounds else "pilot"
    drawn, refined = state.share("posterior"), state.share("refinement")
    corrected = state.share("correction")
    if drawn >= max(HIGH_SHARE, corrected):
        return "posterior"
    enough = problem.config.candidates_per_round // 2
    has_enough = len(state.near_misses.score) >= enough
    if has_enough and refined >= max(corrected, MIN_SHARE):
        return "refinement"
    return "posterior" if drawn >= max(corrected, MIN_SHARE) else "correction"


def pilot_candidates(key: Key[Array, ""], problem: Problem) -> Makeup:
    """Members of the library with drives of all kinds."""
    which, how = jr.split(key)
    config = problem.config
    num = min(PILOTS_PER_CANDIDATE * config.candidates_per_round, config.budget)
    g = problem.checkpoint.library.g
    g = g[np.asarray(jr.choice(which, len(g), (num,), replace=num > len(g)))]
    return Makeup(np.exp(problem.log_g(g)), draw_drives(how, num))


def first_candidates(key: Key[Array, ""], problem: Problem) -> Conductances:
    """Members whose DICs are draws of the posterior.

    The conductances that DICs leave free are drawn from the learned density, given the
    recording's features, and, for more diversity, from the Monte-Carlo box. The
    emulator corrects what they probably miss, and picks the most promising of both.
    """
    draw_key, free_key, box_key = jr.split(key, 3)
    num = problem.config.candidates_per_round
    num_drawn = DRAWN_PER_CANDIDATE * num
    draws = np.asarray(problem.posterior.sample(draw_key, 2 * num_drawn))[0]
    likely, wide = np.split(draws, 2)
    target = problem.target
    features = log_features(jax.tree.map(lambda x: x[None], target.features))[0]
    repeat = lambda x: np.repeat(np.asarray(x)[None], num_drawn, axis=0)
    label = repeat(target.label)
    given = contexts(repeat(problem.latent), repeat(features), label, likely)
    g = sample_density(problem.checkpoint.density, free_key, jnp.asarray(given))
    box = sample(box_key, problem.neuron, num_drawn, dtype=jnp.dtype("float32"))
    diverse = _promising(problem, np.asarray(box), wide, num // 2)
    rest = _promising(problem, np.asarray(g), likely, num - len(diverse))
    return np.unique(np.exp(np.concatenate([diverse, rest])), axis=0)


def _promising(problem, g, draws, num):
    """Logarithms of conductances of members that have these DICs before the emulator
    corrects them: of the likeliest to be valid, the `num` that are least alike."""
    neuron, emulator = problem.neuron, problem.checkpoint.emulator
    population = impose(neuron, g, draws, through=neuron.required_recipe.solved_pair)
    solved = np.flatnonzero(population.status == OK)
    if not len(solved):
        solved = np.arange(len(g))
    # A fixed number, so that nothing is compiled for each recording.
    start = jnp.asarray(padded(problem.log_g(population.g[solved]), len(g)))
    log_g, chance = polish(emulator, start, problem.goal, problem.bounds)
    log_g, chance = np.asarray(log_g), np.asarray(chance)[: len(solved)]
    likeliest = np.argsort(-chance, kind="stable")
    best = log_g[likeliest[: int(POLISHED_PER_CANDIDATE * num)]]
    return best[least_crowded(best, num)]


def least_crowded(log_g: Conductances, num: int) -> Int[np.ndarray, " some"]:
    """Which `num` members have the most room around them, in their own order."""
    if len(log_g) <= num:
        return np.arange(len(log_g))
    scaled = log_g / np.maximum(log_g.std(axis=0), 1e-3)
    near = min(NUM_NEIGHBOURS, len(log_g) - 1)
    distance = np.asarray(KDTree(scaled).query(scaled, near + 1)[0])[:, -1]
    return np.sort(np.argsort(-distance, kind="stable")[:num])
