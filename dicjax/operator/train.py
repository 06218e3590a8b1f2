"""From a family to a trained and tested operator: what the command line calls."""

import dataclasses
import pathlib
import time

import jax.random as jr
import numpy as np

from dicjax._core import from_first, Progress, renamed, replacing, Stage, Swept
from dicjax.operator.characteristics import (
    characterise,
    Characteristics,
    to_coordinates,
)
from dicjax.operator.checkpoint import load_operator, operator_config, save_operator
from dicjax.operator.config import OperatorConfig, OperatorTraining
from dicjax.operator.curve_correction import correct_curves
from dicjax.operator.families import Family, find_family
from dicjax.operator.model import Operator, untrained
from dicjax.operator.prediction import respond
from dicjax.operator.scores import EVERY, make_trial, score, Scores, Trial
from dicjax.operator.training import members_of, placement_of, train_operator
from dicjax.operator.tuning import Feature, feature_errors, tune


CHUNK = 2048  # members that are characterised at once
APART = 16  # one member in so many is never learned from
TESTED = 512  # traces of each test


@dataclasses.dataclass(frozen=True)
class CharacterisedMembers:
    """Members of a family with their features; those apart are for tests alone."""

    g: np.ndarray
    measured: Characteristics

    def __len__(self) -> int:
        return len(self.g)

    def __getitem__(self, rows) -> "CharacterisedMembers":
        return CharacterisedMembers(self.g[rows], self.measured.of(rows))

    @property
    def seen(self) -> "CharacterisedMembers":
        """Those that are learned from."""
        return self[np.arange(len(self)) % APART != 0]

    @property
    def unseen(self) -> "CharacterisedMembers":
        """Those that are not."""
        return self[np.arange(len(self)) % APART == 0]


def characterise_members(
    family: Family,
    num: int,
    seed: int,
    *,
    at_once: int = CHUNK,
    folder: pathlib.Path | None = None,
    on_progress: Progress | None = None,
) -> CharacterisedMembers:
    """Draws and characterises members, and keeps those that are complete.

    **Arguments:**

    - `at_once`: members of a part. They are drawn part by part, so that parts of
        another size hold other members.
    - `folder`: where parts are kept, if anywhere; those that are there already are not
        simulated again.
    - `on_progress`: called with (stage, done, total).
    """
    parts = []
    num_chunks = -(-num // at_once)
    for i in range(num_chunks):

        def report(stage, done, total, i=i):
            if on_progress is not None:
                on_progress(stage, i * total + done, num_chunks * total)

        size = min(at_once, num - i * at_once)
        g = family.sample(jr.fold_in(jr.key(seed), i), size)
        parts.append(_chunk(family, g, seed, i, folder, report))
    measured = [part.measured for part in parts]
    cells = CharacterisedMembers(
        np.concatenate([part.g for part in parts]),
        Characteristics(
            np.concatenate([one.values for one in measured]),
            np.concatenate([one.is_complete for one in measured]),
            measured[0].names,
        ),
    )
    return cells[cells.measured.is_complete]


def _chunk(family, g, seed, i, folder, report) -> CharacterisedMembers:
    name = f"{family.name}-{seed}-{i:04}-{len(g)}.npz"
    path = None if folder is None else folder / name
    if path is not None and path.exists():
        with np.load(path) as file:
            if np.array_equal(file["g"], g):
                measured = Characteristics(
                    file["values"], file["is_complete"], tuple(file["names"].tolist())
                )
                return CharacterisedMembers(g, measured)
    measured = characterise(family, g, on_progress=report)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                g=g,
                values=measured.values,
                is_complete=measured.is_complete,
                names=measured.names,
            )
    return CharacterisedMembers(g, measured)


def fit_operator(
    family: Family,
    out: pathlib.Path,
    *,
    config: OperatorConfig | None = None,
    training: OperatorTraining | None = None,
    data: pathlib.Path | None = None,
    characterised: Swept[CharacterisedMembers] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Scores]:
    """Trains an operator of a family, tests it and writes its checkpoint.

    If several processes were joined by `jax.distributed`, all have to call this with
    the same arguments. They share the training of the branch. The first one does all
    else, keeps all files and reports progress.

    **Arguments:**

    - `out`: the folder of the checkpoint.
    - `data`: where members and the state of training are kept; the same call then goes
        on where it was stopped.
    - `characterised`: members that were characterised elsewhere, whose number and seed
        then count; see [`dicjax.sweeps.swept_library`][].
    - `on_progress`: called with (stage, done, total).

    **Returns:**

    Scores on members that were learned from, under new currents, and on others.
    """
    config = config or OperatorConfig()
    training = training or OperatorTraining()
    report = on_progress or (lambda stage, done, total: None)
    placement_of(training)  # before long simulations
    if characterised is None:
        num, seed = training.members, training.library_seed
        make = lambda: characterise_members(
            family, num, seed, folder=data, on_progress=report
        )
    else:
        num, seed, make = characterised.num, characterised.seed, characterised.read
        training = dataclasses.replace(training, members=num, library_seed=seed)
    cells = from_first(make)
    began = time.monotonic()
    operator = fit_to(family, cells, config, training, data=data, on_progress=report)
    seconds = time.monotonic() - began

    def finish():
        report(Stage("testing"), 0, 2)
        scores = test_operator(operator, family, cells, training.seed)
        about = {
            "training": dataclasses.asdict(training),
            "seconds": round(seconds),
            "scores": {name: dataclasses.asdict(s) for name, s in scores.items()},
        }
        save_operator(out, operator, config, about)
        return scores

    return from_first(finish)


def fit_to(
    family: Family,
    cells: CharacterisedMembers,
    config: OperatorConfig,
    training: OperatorTraining,
    *,
    data: pathlib.Path | None = None,
    on_progress: Progress,
) -> Operator:
    """An operator trained on those members that are seen."""
    key = jr.key(training.seed)
    seen = cells.seen
    members = members_of(seen.g, seen.measured)
    names = seen.measured.names
    x = np.asarray(to_coordinates(seen.measured.values, names))
    operator = from_first(
        lambda: correct_curves(
            jr.fold_in(key, 1),
            untrained(jr.fold_in(key, 0), config, family, names, x, seen.g),
            members,
            training,
            on_progress=renamed(on_progress, "correcting_curves"),
        )
    )
    return train_operator(
        operator,
        family,
        members,
        training,
        folder=data,
        on_progress=on_progress,
    )


def test_operator(
    operator: Operator, family: Family, cells: CharacterisedMembers, seed: int
) -> dict[str, Scores]:
    """Scores on seen members under new currents, and on unseen ones."""
    scores = {}
    for name, members in (("seen", cells.seen), ("unseen", cells.unseen)):
        some = members[:TESTED]
        trial = make_trial(seed, family, some.g, some.measured)
        scores[name] = score(predict_trial(operator, trial), trial.V)
    return scores


def predict_trial(operator: Operator, trial: Trial) -> np.ndarray:
    """Potentials (mV) that the operator answers in a trial."""
    answer = respond(
        operator, trial.current, trial.features, every=EVERY, out_of_range="try"
    )
    return np.asarray(answer.V)


def tune_to_feature(
    name: str | pathlib.Path,
    feature: Feature,
    out: pathlib.Path,
    *,
    num_members: int = 2048,
    num_steps: int = 300,
    seed: int = 0,
    data: pathlib.Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[float, float]:
    """Fine-tunes an operator on one feature and writes its checkpoint.

    **Arguments:**

    - `name`: of a family whose operator ships, or the folder of one.
    - `feature`: "sag", "width" or "height".
    - `out`: the folder of the new checkpoint.
    - `data`: where characterised members are kept.

    **Returns:**

    The median error of the feature before and after, on members kept apart.
    """
    operator, config = load_operator(name), operator_config(name)
    family = find_family(operator.family)
    cells = characterise_members(
        family, num_members, seed, folder=data, on_progress=on_progress
    )
    members, apart = (
        members_of(part.g, part.measured) for part in (cells.seen, cells.unseen)
    )

    tuned = tune(
        jr.key(seed), operator, members, feature, num_steps, on_progress=on_progress
    )
    before, after = (
        float(np.nanmedian(np.abs(feature_errors(o, apart, feature))))
        for o in (operator, tuned)
    )
    scores = test_operator(tuned, family, cells, seed)
    about = {
        "tuned": {"feature": feature, "num_steps": num_steps, "seed": seed},
        "scores": {name: dataclasses.asdict(s) for name, s in scores.items()},
    }
    save_operator(out, tuned, config, about)
    return before, after
