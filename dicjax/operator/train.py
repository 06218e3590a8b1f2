"""From a family to a trained and tested operator: what the command line calls."""

import dataclasses
import pathlib
import time

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Float

from dicjax._core import (
    check_numbers,
    from_first,
    Progress,
    renamed,
    replacing,
    Stage,
    Swept,
)
from dicjax.operator.characteristics import characterise, Characteristics
from dicjax.operator.checkpoint import load_operator, operator_config, save_operator
from dicjax.operator.config import OperatorConfig, OperatorTraining
from dicjax.operator.curve_correction import correct_curves
from dicjax.operator.families import Family, find_family
from dicjax.operator.model import Operator, untrained
from dicjax.operator.prediction import respond
from dicjax.operator.scores import EVERY, make_trial, score, Scores, Trial
from dicjax.operator.training import Members, members_of, placement_of, train_operator
from dicjax.operator.tuning import Feature, feature_errors, tune


CHUNK = 2048  # members that are characterised at once
APART = 16  # one member in so many is never learned from
TESTED = 512  # traces of each test


class CharacterisedMembers(eqx.Module):
    """Members of a family with their features; those apart are for tests alone."""

    g: Float[np.ndarray, "cells channels"]
    measured: Characteristics

    def __len__(self) -> int:
        return len(self.g)

    def __getitem__(self, rows) -> "CharacterisedMembers":
        return jax.tree.map(lambda x: x[rows], self)

    @property
    def members(self) -> Members:
        """They as training takes them."""
        return members_of(self.g, self.measured)

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

    They are drawn in parts of `at_once`: parts of another size hold other members. In
    `folder`, if it is given, parts are kept and found again.
    """
    parts = []
    num_parts = -(-num // at_once)
    for i in range(num_parts):

        def report(stage, done, total, i=i):
            if on_progress is not None:
                on_progress(stage, i * total + done, num_parts * total)

        size = min(at_once, num - i * at_once)
        g = family.sample(jr.fold_in(jr.key(seed), i), size)
        name = f"{family.name}-{seed}-{i:04}-{size}.npz"
        path = None if folder is None else folder / name
        measured = _kept(path, g)
        if measured is None:
            measured = characterise(family, g, on_progress=report)
            _keep(path, g, measured)
        parts.append(CharacterisedMembers(g, measured))
    cells = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return cells[cells.measured.is_complete]


def _kept(path: pathlib.Path | None, g) -> Characteristics | None:
    if path is None or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        if not np.array_equal(file["g"], g):
            return None
        names = tuple(file["names"].tolist())
        return Characteristics(file["values"], file["is_complete"], names)


def _keep(path: pathlib.Path | None, g, measured: Characteristics) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, g=g, **vars(measured))


def fit_operator(
    family: Family,
    out: pathlib.Path,
    *,
    config: OperatorConfig = OperatorConfig(),
    training: OperatorTraining = OperatorTraining(),
    data: pathlib.Path | None = None,
    characterised: Swept[CharacterisedMembers] | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Scores]:
    """Trains an operator of a family, tests it and writes its checkpoint to `out`.

    If several processes were joined by `jax.distributed`, all have to call this with
    the same arguments. They share the training of the branch. The first one does all
    else, keeps all files and reports progress.

    Members and the state of training are kept in the folder `data`, from which the same
    call goes on where it was stopped. If members were `characterised` elsewhere (see
    [`dicjax.sweeps.swept_library`][]), their number and seed count. Returns scores on
    members that were learned from, under new currents, and on others.
    """
    check_numbers(config)
    check_numbers(training)
    placement_of(training)  # before long simulations
    if characterised is None:
        num, seed = training.members, training.library_seed
        make = lambda: characterise_members(
            family, num, seed, folder=data, on_progress=on_progress
        )
    else:
        num, seed, make = characterised.num, characterised.seed, characterised.read
        training = dataclasses.replace(training, members=num, library_seed=seed)
    cells = from_first(make)
    began = time.monotonic()
    key, members, g = jr.key(training.seed), cells.seen.members, cells.seen.g
    names = cells.measured.names

    def begin():
        own, then, x = jr.fold_in(key, 0), jr.fold_in(key, 1), np.asarray(members.x)
        operator = untrained(own, config, family, names, x, g)
        report = renamed(on_progress, "correcting_curves")
        return correct_curves(then, operator, members, training, on_progress=report)

    operator = train_operator(
        from_first(begin),
        family,
        members,
        training,
        folder=data,
        on_progress=on_progress,
    )
    seconds = round(time.monotonic() - began)

    def finish():
        if on_progress is not None:
            on_progress(Stage("testing"), 0, 2)
        scores = scores_of(operator, family, cells, training.seed)
        about = {"training": dataclasses.asdict(training), "seconds": seconds}
        save_operator(out, operator, config, about | _header(scores))
        return scores

    return from_first(finish)


def scores_of(
    operator: Operator, family: Family, cells: CharacterisedMembers, seed: int
) -> dict[str, Scores]:
    """Scores on seen members under new currents, and on unseen ones."""
    scores, levels = {}, family.neuron.spike_levels
    for name, members in (("seen", cells.seen), ("unseen", cells.unseen)):
        some = members[:TESTED]
        trial = make_trial(seed, family, some.g, some.measured)
        scores[name] = score(predict_trial(operator, trial), trial.V, **levels)
    return scores


def _header(scores: dict[str, Scores]) -> dict[str, dict]:
    return {"scores": {name: dataclasses.asdict(x) for name, x in scores.items()}}


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
    """Fine-tunes an operator on one feature and writes its checkpoint to `out`.

    The operator is of a family's `name`, or of a folder. Characterised members are kept
    in `data`. Returns the median error of the feature before and after, on members kept
    apart. Raises `ValueError` if `num_steps` is less than 1.
    """
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    operator, config = load_operator(name), operator_config(name)
    family = find_family(operator.family)
    cells = characterise_members(
        family, num_members, seed, folder=data, on_progress=on_progress
    )
    key, seen = jr.key(seed), cells.seen.members
    tuned = tune(key, operator, seen, feature, num_steps, on_progress=on_progress)
    before, after = (
        float(np.nanmedian(np.abs(feature_errors(o, cells.unseen.members, feature))))
        for o in (operator, tuned)
    )
    about = {"tuned": {"feature": feature, "num_steps": num_steps, "seed": seed}}
    scores = scores_of(tuned, family, cells, seed)
    save_operator(out, tuned, config, about | _header(scores))
    return before, after
