"""What benchmarks of operators share: members, trials and scores."""

import dataclasses
import pathlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float

from dicjax.operator import (
    CharacterisedMembers,
    Family,
    find_family,
    load_operator,
    Operator,
)
from dicjax.operator.scores import EVERY, make_trial, score, Scores, START, STOP, Trial
from dicjax.operator.train import characterise_members, predict_trial
from dicjax.spikes import step_response
from scripts.bench.operator.neighbours import Neighbourhood
from scripts.bench.processes import reuse_compiled_programs
from scripts.bench.results import Benchmark, Measurement, row


SEED = 77  # of currents that operators were not tested on
# Of each score: its name, its unit, and the factor between them.
SCORES = {
    "centred_l2": ("centred L2", "%", 100),
    "centred_l2_mean": ("its mean", "%", 100),
    "centred_l2_firing": ("where cells fire", "%", 100),
    "l2": ("raw L2", "%", 100),
    "spike_count": ("spike count", "%", 100),
    "wrong_count": ("wrong count", "%", 100),
    "missed": ("missed", "%", 100),
    "false": ("false", "%", 100),
    "timing": ("timing", "ms", 1),
    "matched": ("F1 in 2 ms", "", 1),
    "latency": ("latency", "ms", 1),
    "height": ("height", "%", 100),
    "width": ("width", "%", 100),
    "depth": ("depth", "mV", 1),
    "steady": ("steady", "mV", 1),
    "num": ("traces", "", 1),
}
Traces = Float[np.ndarray, "cells samples"]
Operators = Mapping[str, Operator]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorBenchmark(Benchmark):
    """Options of every benchmark of operators."""

    operators: tyro.conf.Positional[tuple[str, ...]] = ()
    """Folders of checkpoints, which may differ in seed, or names of shipped operators;
    the family's own if not given."""
    data: pathlib.Path | None = None
    """Folder that keeps members with their features; those that are not there are
    simulated, and kept."""
    family: str = "cortical"
    """Family of the operators and of all members."""
    members: int = 20_000
    """Members of the family to draw; one in sixteen is never learned from."""
    num: int = 1024
    """Traces of each test."""

    def library(self) -> tuple[Family, CharacterisedMembers]:
        """The family, and members of it with their features."""
        reuse_compiled_programs()
        # Where nothing fires there is nothing to take a median of.
        warnings.filterwarnings("ignore", message="(Mean of|All-NaN)", module="numpy")
        family = find_family(self.family)
        library = characterise_members(
            family, self.members, 0, folder=self.data, on_progress=_show
        )
        print(f"{len(library)} members of {self.family}, {len(library.unseen)} unseen")
        return family, library

    def loaded(self) -> dict[str, Operator]:
        """Operators by name."""
        names = self.operators or (self.family,)
        return {x: load_operator(x, family=self.family) for x in names}

    def trials(self, family: Family, library: CharacterisedMembers) -> dict[str, Trial]:
        """Tests on members that operators have learned from, and on others."""
        some = {"seen": library.seen[: self.num], "unseen": library.unseen[: self.num]}
        return {k: make_trial(SEED, family, x.g, x.measured) for k, x in some.items()}


def _show(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", end="\r", file=sys.stderr)


def answers_of(operators: Operators, trial: Trial, kind: str) -> dict[str, Traces]:
    """Predictions of the operators for which a trial's members are "seen" or not.

    An operator may have been trained on other members than the benchmark's.
    """
    answers = {}
    for name, operator in operators.items():
        near = Neighbourhood(np.asarray(operator.library))
        is_seen = near.distance(trial.features) < 1e-3
        if is_seen.all() if kind == "seen" else not is_seen.any():
            answers[name] = predict_trial(operator, trial)
        else:
            print(f"{name} was trained on other members: no row for those {kind}")
    return answers


def score_rows(
    title: str, trial: Trial, answers: Mapping[str, Iterable[Traces]]
) -> Iterator[Measurement]:
    """A row of scores for each way to predict a trial, with a value for each seed."""
    for name, of in answers.items():
        scores = [score(V, trial.V) for V in of]
        if scores:
            yield from row(title, {"prediction": name}, columns_of(scores))


def columns_of(scores: Sequence[Scores]) -> dict[tuple[str, str], list[float]]:
    """Scores as columns; a score has the same name in every table."""
    return {
        (name, unit): [factor * getattr(x, key) for x in scores]
        for key, (name, unit, factor) in SCORES.items()
    }


def counts(V: Any, start: float = START, stop: float = STOP) -> np.ndarray:
    """Spikes during a step."""
    V = np.where(np.isfinite(V), V, 0.0).astype(np.float32)
    return np.asarray(step_response(jnp.asarray(V), EVERY, start, stop).num_spikes)
