"""The search for members that fire like a recording, round by round."""

import contextlib
import functools
import math

import jax.random as jr
import numpy as np
from jaxtyping import Array, Key

from dicjax._core import Progress, Stage
from dicjax.generation.candidates import Candidates, least_crowded, propose
from dicjax.generation.result import count_failures, Round
from dicjax.generation.state import (
    initial_state,
    joined,
    MAX_NEAR_MISSES,
    Members,
    NearMisses,
    Problem,
    rows,
    SearchState,
)
from dicjax.populations import evaluate, update_known, Verdict
from dicjax.simulation import Run


# Where more candidates are valid than this share, more members are sought than wanted,
# to choose the most diverse of them.
LOW_SHARE = 0.15
FOUND_PER_MEMBER = 2.0  # valid members sought then, for each that is wanted
CERTIFIED_PER_MEMBER = 1.03  # members certified for each that is likely to be needed
MAX_REFINED = 3  # times that a member is refined
MIN_SPREAD, MAX_SPREAD = 0.05, 2.0


class Cancelled(Exception):
    """What `on_progress` raises to end a search as Ctrl-C does, with what it found."""


INTERRUPTIONS = (KeyboardInterrupt, Cancelled)


def search(
    key: Key[Array, ""], problem: Problem, on_progress: Progress
) -> tuple[SearchState, bool]:
    """Simulates round after round until enough members are valid.

    It returns what was found, and whether Ctrl-C or [`dicjax.Cancelled`][] from
    `on_progress` ended it. Before the end of the first round, it raises these.
    """
    state = initial_state(problem)
    try:
        most = problem.config.budget - problem.config.candidates_per_round
        while not state.rounds or state.num_simulated <= most:
            if state.rounds and not wants_more(problem, state):
                state = certify_found(problem, state, on_progress)
                if state.num_certified >= problem.num_wanted:
                    break
            round_key = jr.fold_in(key, len(state.rounds))
            report = functools.partial(on_progress, *_stage(problem, state))
            report()
            candidates = propose(round_key, problem, state)
            run, verdict = _evaluated(problem, candidates.g, report)
            state = remember(problem, state, candidates, run, verdict)
        return certify_found(problem, state, on_progress), False
    except INTERRUPTIONS:
        if not state.rounds:
            raise

    def uninterrupted(*how_far) -> None:
        with contextlib.suppress(Cancelled):
            on_progress(*how_far)

    return certify_found(problem, state, uninterrupted), True


def wants_more(problem: Problem, state: SearchState) -> bool:
    """Whether to go on: for enough members, or, where cheap, to choose from."""
    is_cheap = max(state.shares.values()) > LOW_SHARE
    factor = FOUND_PER_MEMBER if is_cheap else 1
    return state.num_expected < factor * problem.num_wanted


def remember(
    problem: Problem,
    state: SearchState,
    candidates: Candidates,
    run: Run,
    verdict: Verdict,
) -> SearchState:
    """Keeps what is valid, and what later rounds learn from."""
    source, log_g = candidates.source, problem.log_g(candidates.g)
    labels = np.asarray(verdict.features.label)
    last = Round(
        name=f"{source} {len(state.rounds) + 1}",
        num=len(log_g),
        num_label=int((labels == problem.target.label).sum()),
        num_valid=int(verdict.valid.sum()),
        failures=count_failures(verdict, problem.target),
    )
    share = last.num_valid / last.num
    state = state._replace(
        rounds=(*state.rounds, last),
        known=update_known(state.known, log_g, verdict),
        near_misses=_with_near_misses(state.near_misses, candidates, log_g, verdict),
        found=np.concatenate([state.found, candidates.g[verdict.valid]]),
        nearest=_with_nearest(problem, state.nearest, candidates, run, verdict),
        shares={**state.shares, source: share},
    )
    return state._replace(spread=_next_spread(state, source, share))


def certify_found(
    problem: Problem, state: SearchState, on_progress: Progress
) -> SearchState:
    """Keeps the found members that are valid at half the time step, as they then fire.

    Where more were found than are wanted, the least alike are tried first.
    """
    num = problem.num_wanted
    while state.num_certified < num and len(state.found):
        lacking = num - state.num_certified
        most = math.ceil(CERTIFIED_PER_MEMBER * lacking / state.survival)
        tried = least_crowded(problem.log_g(state.found), most)
        g = state.found[tried]
        stage, done = Stage("halving_the_time_step"), min(state.num_expected, num)
        report = functools.partial(on_progress, stage, done, num)
        report()
        run, verdict = _evaluated(problem, g, report, halved=True)
        valid = rows(
            Members(g, np.asarray(run.spike_times), np.zeros(len(g))), verdict.valid
        )
        state = state._replace(
            found=np.delete(state.found, tried, axis=0),
            certified=joined(state.certified, valid),
            num_uncertified=state.num_uncertified + int((~verdict.valid).sum()),
        )
    return state


def _stage(problem, state) -> tuple[Stage, int, int]:
    """What the next round does, the members found so far, and those wanted."""
    num, number = problem.num_wanted, len(state.rounds)
    done = min(state.num_expected, num)
    aim = "widening" if done == num else "correcting"
    stage = Stage(aim, f"round {number}")
    return stage if number else Stage("simulating_the_posterior"), done, num


def _evaluated(problem, g, report, halved=False) -> tuple[Run, Verdict]:
    # Reported anew now and then, for a caller who may want to end a long simulation.
    anew = lambda *_: report()
    tried = problem.neuron, g, problem.target, problem.window
    return evaluate(*tried, halved=halved, on_progress=anew)


def _with_near_misses(near_misses, candidates: Candidates, log_g, verdict: Verdict):
    """Without those that were refined, with those that missed and may be."""
    if candidates.source == "refinement":
        near_misses = rows(near_misses, slice(len(candidates.g), None))
    missed = np.isfinite(verdict.score) & ~verdict.valid
    missed &= candidates.num_refined < MAX_REFINED
    new = NearMisses(log_g, verdict.errors, verdict.score, candidates.num_refined)
    both = joined(near_misses, rows(new, missed))
    return rows(both, np.argsort(both.score, kind="stable")[:MAX_NEAR_MISSES])


def _with_nearest(problem, nearest: Members, candidates, run: Run, verdict: Verdict):
    """The invalid members that miss by least, as many as are wanted."""
    missed, num = np.flatnonzero(~verdict.valid), problem.num_wanted
    has_pattern = np.isfinite(verdict.score)
    distance = np.where(has_pattern, np.abs(verdict.errors).max(axis=1), np.inf)
    missed = missed[np.argsort(distance[missed])[:num]]
    new = rows(Members(candidates.g, np.asarray(run.spike_times), distance), missed)
    both = joined(nearest, rows(new, np.isfinite(new.distance)))
    # By indices, whose rows are copies: views would keep the whole round in memory.
    return rows(both, np.argsort(both.distance, kind="stable")[:num])


def _next_spread(state: SearchState, source, share: float) -> float:
    """How far corrected candidates stray next: far, for diversity, where that works;
    less where little is valid, or where children do not fire like their parents."""
    spread, last = state.spread, state.rounds[-1]
    if source != "correction":
        return spread / 3 if len(state.rounds) == 1 and share < LOW_SHARE else spread
    if last.num_label < 0.3 * last.num:
        spread *= 0.5
    else:
        spread *= 1.15 if share > 0.4 else 0.75 if share < 0.15 else 1.0
    return min(max(spread, MIN_SPREAD), MAX_SPREAD)
