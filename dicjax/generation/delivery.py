"""What a search delivers: its most diverse members, tried once more, as a result."""

import functools
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Key

from dicjax._core import Advice, Progress, Remedy, Stage
from dicjax.generation.candidates import least_crowded
from dicjax.generation.result import Generated
from dicjax.generation.search import evaluated
from dicjax.generation.state import joined, Members, Problem, rows, SearchState
from dicjax.inference import measured
from dicjax.populations import (
    Certificate,
    certify,
    drive_at,
    participation_ratio,
    PERTURBING_AXES,
)
from dicjax.spikes import spike_features


FOLD_OF_CERTIFICATES = 2**32 - 1  # into the key, like the numbers of rounds


def most_diverse(problem: Problem, state: SearchState) -> Members:
    """As many valid members as are wanted: those in the least crowded places."""
    at = problem.coordinates(state.certified.makeup)
    return rows(state.certified, least_crowded(at, problem.num_wanted))


def certificate_of(
    key: Key[Array, ""], problem: Problem, members: Members, on_progress: Progress
) -> Certificate | None:
    """Under what else members stay valid; `None` of no members, and of members that
    vary, which are tried on another run as it is."""
    if not len(members.distance) or problem.is_driven:
        return None
    num = problem.num_wanted
    report = lambda stage, done, total: on_progress(stage, num * done // total, num)
    report(Stage("certifying"), 0, 1)
    return certify(
        problem.neuron,
        members.makeup.g,
        problem.target,
        axes=("start", *(PERTURBING_AXES if problem.config.robustness else ())),
        key=jr.fold_in(key, FOLD_OF_CERTIFICATES),
        **problem.window._asdict(),
        on_progress=report,
    )


def tried_anew(
    key: Key[Array, ""], problem: Problem, members: Members, on_progress: Progress
) -> Bool[np.ndarray, " cells"] | None:
    """Which members that vary are valid on one more run with other noise."""
    if not len(members.distance) or not problem.is_driven:
        return None
    num = problem.num_wanted
    report = functools.partial(on_progress, Stage("certifying"), num, num)
    own_key = jr.fold_in(key, FOLD_OF_CERTIFICATES)
    _, verdict = evaluated(own_key, problem, members.makeup, report, is_final=True)
    return verdict.valid


def untested(error: Exception) -> str:
    """What to say where members could not be tried under other conditions."""
    what = str(error).partition("\n")[0][:200]
    return (
        "The models could not be tested under other conditions "
        f"({type(error).__name__}: {what}). They match the recording all the same."
    )


def stopped(error: Exception) -> str:
    """What to say where a search ended early by an error."""
    what = str(error).partition("\n")[0][:200]
    return (
        f"The search ended early ({type(error).__name__}: {what}). This is what it had "
        "found."
    )


def delivered(
    problem: Problem,
    state: SearchState,
    members: Members,
    tried_again: tuple[Certificate | None, Bool[np.ndarray, " cells"] | None],
    seconds: float,
    settings: dict[str, Any],
) -> Generated:
    """Valid members and, if they are too few, the nearest others; an error if none.

    `tried_again` is what came of trying the valid ones once more.
    """
    neuron, target, num = problem.neuron, problem.final_target, problem.num_wanted
    (g, drive), spike_times, _ = rows(joined(members, state.nearest), slice(num))
    if not len(g):
        raise ValueError(
            Advice(
                f"None of {state.num_simulated} candidates fired in the recording's "
                "pattern: try another model, a steadier window, or ",
                Remedy("budget", 4 * problem.config.budget),
                ".",
            )
        )
    dics, V_th = measured(neuron, g)
    accepted = np.arange(len(g)) < len(members.distance)
    features = spike_features(spike_times)
    agreement = target.agreement
    judged_by = target if agreement is None else agreement
    errors = np.abs(np.asarray(judged_by.errors(features)))
    current = neuron.required_recipe.current
    assert target.train is not None, "members are searched for a recorded train"
    return Generated(
        neuron=neuron,
        train=target.train,
        target=target.features,
        posterior=problem.posterior,
        tolerance=target.tolerance,
        num_asked=num,
        g=g,
        dics=dics,
        V_th=V_th,
        spike_times=spike_times,
        features=features,
        distance=np.where(np.isfinite(errors), errors, np.inf).max(axis=1),
        accepted=accepted,
        num_uncertified=state.num_uncertified,
        certificate=tried_again[0],
        valid_anew=tried_again[1],
        **problem.final_window._asdict(),
        rounds=state.rounds,
        participation_ratio=participation_ratio(g[accepted]),
        seconds=seconds,
        settings=settings,
        drive=drive_at(drive, current) if problem.is_driven else None,
        agreement=agreement,
    )
