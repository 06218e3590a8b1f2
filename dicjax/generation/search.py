"""The search for members that fire like a recording, round by round."""

import contextlib
import functools
import math

import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, Key

from dicjax._core import Progress, Stage
from dicjax.generation.candidates import Candidates, least_crowded, propose
from dicjax.generation.result import count_failures, Round
from dicjax.generation.state import (
    initial_state,
    joined,
    Makeup,
    MAX_NEAR_MISSES,
    Members,
    NearMisses,
    Problem,
    rows,
    SearchState,
)
from dicjax.populations import (
    drive_at,
    evaluate,
    expected_misses,
    update_known,
    Verdict,
)
from dicjax.simulation import Run


# Where more candidates are valid than this share, more members are sought than wanted,
# to choose the most diverse of them.
LOW_SHARE = 0.15
FOUND_PER_MEMBER = 2.0  # valid members sought then, for each that is wanted
CERTIFIED_PER_MEMBER = 1.03  # members certified for each that is likely to be needed
MAX_REFINED = 3  # times that a member is refined
MIN_SPREAD, MAX_SPREAD = 0.05, 2.0
STANDARD_MISS = 0.1  # what the largest allowed error of members that vary counts as
GUARD = 0.5  # of what is allowed, within which members are expected to stay valid
FOLD_OF_NOISE = 2**31  # into keys of rounds, whose numbers are lower


class Cancelled(Exception):
    """What `on_progress` raises to end a search as Ctrl-C does, with what it found."""


INTERRUPTIONS = (KeyboardInterrupt, Cancelled)


def search(
    key: Key[Array, ""], problem: Problem, on_progress: Progress, state: SearchState
) -> tuple[SearchState, bool, Exception | None]:
    """Simulates round after round until enough members are valid.

    It goes on from `state`, and returns what was found, whether Ctrl-C or
    [`dicjax.Cancelled`][] from `on_progress` ended it, and the error that did, if any.
    Before the end of the first round, it raises these.
    """
    failure = None
    try:
        most = problem.config.budget - problem.config.candidates_per_round
        while not state.rounds or state.num_simulated <= most:
            if state.rounds and not wants_more(problem, state):
                state = certify_found(key, problem, state, on_progress)
                if state.num_certified >= problem.num_wanted:
                    break
            state = explore(key, problem, on_progress, state)
        state = certify_found(key, problem, state, on_progress, is_last=True)
        return state, False, None
    except INTERRUPTIONS:
        if not state.rounds:
            raise
    except Exception as error:
        if not len(state.found.g) and not state.num_certified:
            raise
        failure = error

    def uninterrupted(*how_far) -> None:
        with contextlib.suppress(Cancelled if failure is None else Exception):
            on_progress(*how_far)

    state = certify_found(key, problem, state, uninterrupted, is_last=True)
    return state, failure is None, failure


def explore(
    key: Key[Array, ""],
    problem: Problem,
    on_progress: Progress,
    state: SearchState | None = None,
) -> SearchState:
    """The state after one more round, the first one if there is no state."""
    state = initial_state(problem) if state is None else state
    round_key = jr.fold_in(key, len(state.rounds))
    report = functools.partial(on_progress, *_stage(problem, state))
    report()
    candidates = propose(round_key, problem, state)
    noise = jr.fold_in(round_key, FOLD_OF_NOISE)
    run, verdict = evaluated(noise, problem, candidates.makeup, report)
    return remember(problem, state, candidates, run, verdict)


def wants_more(problem: Problem, state: SearchState) -> bool:
    """Whether to go on: for enough members, or, where cheap, to choose from."""
    is_cheap = max(state.shares.values()) > LOW_SHARE and not problem.is_driven
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
    source, makeup = candidates.source, candidates.makeup
    coordinates = problem.coordinates(makeup)
    labels = np.asarray(verdict.features.label)
    last = Round(
        name=f"{source} {len(state.rounds) + 1}",
        num=len(coordinates),
        num_label=int(problem.target.has_pattern(labels).sum()),
        num_valid=int(verdict.valid.sum()),
        failures=count_failures(verdict, problem.target),
    )
    share = last.num_valid / last.num
    state = state._replace(
        rounds=(*state.rounds, last),
        known=learned(problem, state, coordinates, verdict),
        near_misses=_with_near_misses(
            state.near_misses, candidates, coordinates, verdict
        ),
        found=joined(state.found, rows(makeup, verdict.valid)),
        nearest=_with_nearest(problem, state.nearest, candidates, run, verdict),
        shares={**state.shares, source: share},
    )
    return state._replace(spread=_next_spread(state, source, share))


def learned(problem: Problem, state: SearchState, coordinates, verdict: Verdict):
    """What corrections learn from, with members that were judged."""
    unit = STANDARD_MISS if problem.is_driven else None
    return update_known(state.known, coordinates, verdict, unit)


def certify_found(
    key: Key[Array, ""],
    problem: Problem,
    state: SearchState,
    on_progress: Progress,
    *,
    is_last: bool = False,
) -> SearchState:
    """Keeps the found members that are valid at half the time step, as they then fire.

    Members that vary are valid on a run of their own, of other noise and twice as long.
    Where more were found than are wanted, the least alike are tried first. Members that
    vary and will hardly pass are tried only if nothing `is_last` to come.
    """
    num, tries = problem.num_wanted, state.num_certified + state.num_uncertified
    while state.num_certified < num and len(state.found.g):
        lacking = num - state.num_certified
        most = math.ceil(CERTIFIED_PER_MEMBER * lacking / state.survival)
        tried = promising(problem, state, most, is_last)
        if not len(tried):
            break
        makeup = rows(state.found, tried)
        stage, done = Stage("halving_the_time_step"), min(state.num_expected, num)
        report = functools.partial(on_progress, stage, done, num)
        report()
        own_key = jr.fold_in(jr.fold_in(key, FOLD_OF_NOISE), tries)
        run, verdict = evaluated(own_key, problem, makeup, report, is_final=True)
        tries += len(tried)
        valid = rows(
            Members(makeup, np.asarray(run.spike_times), np.zeros(len(tried))),
            verdict.valid,
        )
        left = np.delete(np.arange(len(state.found.g)), tried)
        if problem.is_driven:
            at = problem.coordinates(makeup)
            state = state._replace(known=learned(problem, state, at, verdict))
        state = state._replace(
            found=rows(state.found, left),
            certified=joined(state.certified, valid),
            num_uncertified=state.num_uncertified + int((~verdict.valid).sum()),
        )
    return state


def promising(
    problem: Problem, state: SearchState, num: int, is_last: bool
) -> Int[np.ndarray, " _"]:
    """Which `num` of the found members to certify: the least alike.

    Of members that vary, those are among them that members around them speak for, and
    others only at last.
    """
    at = problem.coordinates(state.found)
    likely = np.arange(len(at))
    if problem.is_driven and state.known is not None:
        expected = np.abs(expected_misses(state.known, at)).max(axis=1)
        order = np.argsort(expected, kind="stable")
        num_inside = int((expected < GUARD * STANDARD_MISS).sum())
        likely = order[: max(num, num_inside) if is_last else num_inside]
    return likely[least_crowded(at[likely], num)]


def _stage(problem, state) -> tuple[Stage, int, int]:
    """What the next round does, the members found so far, and those wanted."""
    num, number = problem.num_wanted, len(state.rounds)
    done = min(state.num_expected, num)
    aim = "widening" if done == num else "correcting"
    stage = Stage(aim, f"round {number}")
    return stage if number else Stage("simulating_the_posterior"), done, num


def evaluated(key, problem: Problem, makeup: Makeup, report, is_final=False):
    """Simulates members and judges them, as is done at first or at last."""
    # Reported anew now and then, for a caller who may want to end a long simulation.
    anew = lambda *_: report()
    drive = None
    if problem.is_driven:
        current = problem.neuron.required_recipe.current
        drive = drive_at(makeup.drive, current).stimulus(key)
    target = problem.final_target if is_final else problem.target
    window = problem.final_window if is_final else problem.window
    how = {"drive": drive, "halved": is_final, "on_progress": anew}
    return evaluate(problem.neuron, makeup.g, target, window, **how)


def _with_near_misses(
    near_misses, candidates: Candidates, coordinates, verdict: Verdict
):
    """Without those that were refined, with those that missed and may be."""
    if candidates.source == "refinement":
        near_misses = rows(near_misses, slice(len(coordinates), None))
    missed = np.isfinite(verdict.score) & ~verdict.valid
    missed &= candidates.num_refined < MAX_REFINED
    new = NearMisses(coordinates, verdict.errors, verdict.score, candidates.num_refined)
    both = joined(near_misses, rows(new, missed))
    return rows(both, np.argsort(both.score, kind="stable")[:MAX_NEAR_MISSES])


def _with_nearest(problem, nearest: Members, candidates, run: Run, verdict: Verdict):
    """The invalid members that miss by least, as many as are wanted."""
    missed, num = np.flatnonzero(~verdict.valid), problem.num_wanted
    has_pattern = np.isfinite(verdict.score)
    distance = np.where(has_pattern, np.abs(verdict.errors).max(axis=1), np.inf)
    missed = missed[np.argsort(distance[missed])[:num]]
    new = rows(
        Members(candidates.makeup, np.asarray(run.spike_times), distance), missed
    )
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
