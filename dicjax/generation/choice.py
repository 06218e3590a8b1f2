"""Which model to search in: the one of which most members fire like the recording."""

from collections.abc import Sequence

import jax.random as jr
import numpy as np
from jaxtyping import Array, Key

from dicjax._core import Progress, Stage
from dicjax.generation.search import explore
from dicjax.generation.state import initial_state, Problem, SearchState
from dicjax.populations import certify


NUM_NEAREST = 16  # members whose errors decide where none are valid
MOST_STARTED = 64  # members that are tried from another start


def choose(
    key: Key[Array, ""], problems: Sequence[Problem], on_progress: Progress
) -> tuple[Problem, SearchState]:
    """Tries the first round in every model, and returns the one that promises most.

    That is the model with the largest share of members that are valid, and are from
    another start too; if none is valid, the one whose nearest members miss by least. A
    single problem is returned as it is.
    """
    if len(problems) == 1:
        return problems[0], initial_state(problems[0])
    tried = [(problem, explore(key, problem, on_progress)) for problem in problems]
    if all(problem.is_driven for problem in problems):
        promises = [_promise(problem, state, 1.0) for problem, state in tried]
    else:
        promises = [
            _promise(problem, state, _from_another_start(problem, state, on_progress))
            for problem, state in tried
        ]
    return tried[max(range(len(tried)), key=lambda i: promises[i])]


def _promise(
    problem: Problem, state: SearchState, robust: float
) -> tuple[float, float]:
    """How much a model promises after a round: by shares, else by nearness."""
    first = state.rounds[0]
    num = min(NUM_NEAREST, problem.num_wanted)  # no more of the nearest are kept
    distance = np.sort(state.nearest.distance)[:num]
    lacking = num - len(distance)
    nearness = -float(np.mean(np.append(distance, np.full(lacking, np.inf))))
    return first.num_valid / first.num * robust, nearness


def _from_another_start(problem: Problem, state: SearchState, on_progress) -> float:
    """The share of valid members that are so from another start as well."""
    g = state.found.g[:MOST_STARTED]
    if not len(g):
        return 1.0
    report = lambda *_: on_progress(Stage("certifying"), 0, problem.num_wanted)
    certificate = certify(
        problem.neuron,
        g,
        problem.target,
        axes=("start",),
        key=jr.key(0),
        **problem.window._asdict(),
        on_progress=report,
    )
    return float(certificate.valid.mean())
