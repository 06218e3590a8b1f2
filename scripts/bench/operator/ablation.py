"""Operators trained without some features, on conductances, or on fewer members."""

import dataclasses
import time
from collections.abc import Iterator

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dicjax.operator import (
    CharacterisedMembers,
    Family,
    OperatorConfig,
    OperatorTraining,
)
from dicjax.operator.characteristics import from_coordinates, NAMES, to_coordinates
from dicjax.operator.curve_correction import correct_curves
from dicjax.operator.model import untrained
from dicjax.operator.scores import score, Trial
from dicjax.operator.training import members_of, train_operator
from scripts.bench.operator.baselines import predict_with_amplitudes
from scripts.bench.operator.common import columns_of, OperatorBenchmark, Traces
from scripts.bench.results import Measurement, row


GROUPS = {
    "F-I curve": ("threshold", "gain", "high_gain"),
    "shape": ("height", "width", "depth"),
    "passive": ("rest", "resistance", "sag", "rebound"),
    "dynamics": ("adaptation", "latency"),
}
FEW = ("threshold", "gain")  # by which NOBLE distinguishes neurons
MEMBERS = (64, 512, 4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ablation(OperatorBenchmark):
    """Scores on unseen members of operators that are trained anew, each with less.

    They lack some of the features, have conductances in place of them, or learn from
    fewer members.
    """

    steps: int = 6000
    """Steps of each training."""
    corrections: int = 300
    """Steps that correct the curves."""
    seeds: int = 1
    """Trainings of each kind."""
    only: str = ""
    """Only kinds with this in their name."""

    def measure(self) -> Iterator[Measurement]:
        """Trains and scores every kind."""
        family, library = self.library()
        seen, trial = library.seen, self.trials(family, library)["unseen"]
        title = f"{self.steps} steps, {len(seen)} members, unseen ones"
        for name, (kept, some) in variants(seen).items():
            if self.only not in name:
                continue
            scores, seconds = [], []
            for seed in range(self.seeds):
                began = time.perf_counter()
                training = OperatorTraining(
                    num_steps=self.steps, num_corrections=self.corrections, seed=seed
                )
                V = predict_ablated(family, some, trial, kept, training)
                scores.append(score(V, trial.V))
                seconds.append(time.perf_counter() - began)
            columns = {**columns_of(scores), ("training", "s"): seconds}
            yield from row(title, {"operator": name}, columns)


def variants(
    seen: CharacterisedMembers,
) -> dict[str, tuple[tuple[str, ...] | None, CharacterisedMembers]]:
    """Features to receive, or None for conductances, and members to learn from."""
    found: dict[str, tuple[tuple[str, ...] | None, CharacterisedMembers]] = {
        "all features": (tuple(NAMES), seen)
    }
    for group, names in GROUPS.items():
        kept = tuple(name for name in NAMES if name not in names)
        found[f"without {group}"] = kept, seen
    found[f"{' and '.join(FEW)} alone"] = FEW, seen
    found["conductances instead"] = None, seen
    for n in MEMBERS:
        if n < len(seen):
            found[f"{n} members"] = tuple(NAMES), seen[:n]
    return found


def predict_ablated(
    family: Family,
    seen: CharacterisedMembers,
    trial: Trial,
    kept: tuple[str, ...] | None,
    training: OperatorTraining,
) -> Traces:
    """Potentials by an operator that has received some features, or all conductances.

    In place of what it lacks it has the mean of its members, rest included, from which
    it then starts. Curves are corrected with all features: they are common to members.
    """
    key = jr.key(training.seed)
    members = members_of(seen.g, seen.measured)
    x, wanted = members.x, to_coordinates(trial.features)
    new = lambda x: untrained(
        jr.fold_in(key, 0), OperatorConfig(), family, NAMES, np.asarray(x), seen.g
    )
    stepped = correct_curves(jr.fold_in(key, 1), new(x), members, training)
    operator, features = stepped, trial.features
    if kept is None:
        shown, wanted = jnp.log(members.g), jnp.log(trial.g)
        operator = new(shown)
    else:
        hide = lambda x: jnp.where(np.isin(NAMES, kept), x, stepped.branch.center)
        shown, wanted = hide(x), hide(wanted)
        features = np.asarray(from_coordinates(wanted))
    members = eqx.tree_at(lambda m: m.x, members, shown)
    operator = train_operator(operator, family, members, training)
    # Few members span less than those that are tested, which would be refused.
    everyone = jnp.concatenate([x, to_coordinates(trial.features)])
    stepped = eqx.tree_at(lambda o: o.library, stepped, everyone)
    trial = dataclasses.replace(trial, features=features)
    return predict_with_amplitudes(stepped, operator.amplitudes(wanted), trial)
