"""How accurate operators are beside tables, neighbours and the simulator."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from dicjax.operator import CharacterisedMembers, Family
from dicjax.operator.scores import simulate_steps, Trial
from dicjax.operator.train import predict_trial
from scripts.bench.operator.baselines import (
    amplitudes_at,
    coarser,
    look_up,
    predict_with_amplitudes,
    trivial,
)
from scripts.bench.operator.common import (
    answers_of,
    counts,
    OperatorBenchmark,
    Operators,
    score_rows,
    Traces,
)
from scripts.bench.operator.neighbours import by_neighbours, coordinates, Neighbourhood
from scripts.bench.results import Measurement, row


TABLES = (30, 300, 1512)  # currents per member; the last is NOBLE's density
PARTS = np.linspace(0, 1, 12)  # of an F-I curve, from ...
LOWEST = 0.9  # ... this part of the threshold
FINE = np.linspace(0.5, 1.2, 71)  # of the threshold, where first spikes are looked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy(OperatorBenchmark):
    """Scores of operators on members they were trained on, and on others.

    Beside them: tables, neighbours and regression, the simulator with longer steps, and
    the operators' own steps with true conductances. Then errors by distance from the
    nearest member, and errors of F-I curves.
    """

    curves: int = 64
    """F-I curves of members that were not learned from."""

    def measure(self) -> Iterator[Measurement]:
        """Scores all predictions of both trials."""
        family, library = self.library()
        operators = self.loaded()
        for kind, trial in self.trials(family, library).items():
            answers = answers_of(operators, trial, kind)
            others = trivial(trial.V)
            for dt, V in coarser(family, trial):
                others[f"simulator, dt {dt:g} ms"] = V
            if kind == "seen":
                for num in TABLES:
                    V = look_up(family, trial, num)
                    others[f"table of {num} currents"] = V
            else:
                others |= by_neighbours(family, library.seen, trial)
            some = {name: operators[name] for name in answers}
            predictions = {
                "operator": list(answers.values()),
                **true_parts(family, some, trial),
                **{name: [V] for name, V in others.items()},
            }
            yield from score_rows(f"{kind} members", trial, predictions)
            if kind == "unseen":
                yield from by_distance(library.seen, answers, trial)
        some = library.unseen[: self.curves]
        yield from firing_curves(family, some, operators)


def true_parts(
    family: Family, operators: Operators, trial: Trial
) -> dict[str, list[Traces]]:
    """What an operator's steps cost, and what its features do not determine."""
    steps, features = [], []
    for operator in operators.values():
        steps.append(predict_with_amplitudes(operator, trial.g, trial))
        a = operator.amplitudes(jnp.asarray(coordinates(trial.features)))
        features.append(simulate_steps(family, np.asarray(a), trial.amplitude))
    return {
        "operator, true conductances": steps,
        "simulator, its amplitudes": features,
    }


def by_distance(
    seen: CharacterisedMembers, answers: Mapping[str, Traces], trial: Trial
) -> Iterator[Measurement]:
    """Whether members far from those that are known are predicted less well.

    Distances are in standard deviations of features.
    """
    near = Neighbourhood(coordinates(seen.measured.values))
    distance = near.distance(trial.features)
    low, median, high = np.quantile(distance, (0.05, 0.5, 0.95))
    columns = {("median", ""): median, ("5 %", ""): low, ("95 %", ""): high}
    yield from row("distance of unseen members from the nearest seen one", {}, columns)
    order, third = np.argsort(distance), len(distance) // 3
    size = np.linalg.norm(trial.V - trial.V.mean(axis=1, keepdims=True), axis=1)
    for name, V in answers.items():
        errors = {
            "centred L2": np.linalg.norm(V - trial.V, axis=1) / size,
            "spikes": np.abs(counts(V) - counts(trial.V)),
        }
        for of, error in errors.items():
            rank = np.corrcoef(rankdata(distance), rankdata(error))[0, 1]
            columns = {
                ("rank correlation", ""): float(rank),
                ("mean of the nearest third", ""): float(error[order[:third]].mean()),
                ("of the farthest", ""): float(error[order[-third:]].mean()),
            }
            case = {"operator": name, "error": of}
            yield from row("errors by distance, unseen members", case, columns)


def firing_curves(
    family: Family, some: CharacterisedMembers, operators: Operators
) -> Iterator[Measurement]:
    """Errors of F-I curves, and of the current of the first spike in a step."""
    threshold = some.measured["threshold"][:, None]
    highest = amplitudes_at(np.ones(len(some)), some.measured)[:, None]
    curve = LOWEST * threshold + PARTS * (highest - LOWEST * threshold)
    amplitude = np.concatenate([curve, threshold * FINE], axis=1).astype(np.float32)
    num = amplitude.shape[1]
    g, features = (np.repeat(x, num, axis=0) for x in (some.g, some.measured.values))
    V = simulate_steps(family, g, amplitude.ravel())
    trial = Trial(g, features, amplitude.ravel(), V)
    split = lambda V: np.split(counts(V).reshape(-1, num), [len(PARTS)], axis=1)
    first = lambda k: np.where((k > 0).any(1), FINE[(k > 0).argmax(1)], np.nan)
    true, true_fine = split(V)
    found = {name: split(predict_trial(o, trial)) for name, o in operators.items()}
    for dt, V in coarser(family, trial):
        found[f"simulator, dt {dt:g} ms"] = split(V)
    for name, (ours, fine) in found.items():
        off = np.abs(ours - true)
        shift = 100 * np.abs(first(fine) - first(true_fine))
        shift = shift[np.isfinite(shift)]
        of = lambda f, x=shift: float(f(x)) if len(x) else np.nan
        columns = {
            ("spikes off", ""): float(off.mean()),
            ("of all", "%"): float(100 * off.sum() / true.sum()),
            ("at most", ""): int(off.max()),
            ("first spike off, median", "%"): of(np.median),
            ("mean", "%"): of(np.mean),
            ("90 % within", "%"): of(lambda x: np.quantile(x, 0.9)),
            ("members", ""): len(shift),
        }
        title = f"F-I curves of {len(some)} unseen members, {len(PARTS)} currents"
        yield from row(title, {"prediction": name}, columns)
