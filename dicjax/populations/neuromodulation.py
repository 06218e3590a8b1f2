"""Neuromodulation: a population led along a path of dynamic input conductances."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dicjax._core import (
    check_targets,
    conductances_of,
    Progress,
    renamed_argument,
    Stage,
)
from dicjax.dics import impose, OK, Population, Potentials
from dicjax.neurons import Neuron
from dicjax.populations.evaluation import (
    judge,
    simulate_by_recipe,
    Verdict,
    wilson,
    window_for,
    with_rows,
)
from dicjax.populations.refinement import MIN_KNOWN, refine
from dicjax.spikes import (
    as_target,
    BURSTING,
    Features,
    LABELS,
    PATTERNS,
    SILENT,
    spike_features,
    SpikeTrain,
    Target,
)


MIN_MEMBERS = 3  # that must follow to a waypoint, whose activity they define
NUM_ROUNDS = 3  # of correction


@dataclasses.dataclass(frozen=True)
class Path:
    """A population along a path, waypoint by waypoint.

    - `neuron`: the model; `targets`: (g_s, g_u) of every waypoint.
    - `g`: maximal conductances, in mS/cm², of every member at every waypoint.
    - `status`: index into `dicjax.dics.sampling.STATUS`; a member that could not follow
        stays where it was, and tries again at the next waypoint.
    - `labels`: index into `dicjax.LABELS` of what it fires.
    - `pattern`: of each waypoint: the pattern of `expected`, or the commonest one.
    - `valid`: whether a member fires like its waypoint within the tolerance, and
        `valid_before` whether it did before it was corrected.
    - `features`: of members, by waypoint.
    - `expected`: what members were compared with.
    """

    neuron: Neuron
    targets: Float[np.ndarray, "waypoints 2"]
    g: Float[np.ndarray, "waypoints cells channels"]
    status: Int[np.ndarray, "waypoints cells"]
    labels: Int[np.ndarray, "waypoints cells"]
    pattern: Int[np.ndarray, " waypoints"]
    valid: Bool[np.ndarray, "waypoints cells"]
    valid_before: Bool[np.ndarray, "waypoints cells"]
    features: tuple[Features, ...]
    expected: tuple[Features, ...]
    tolerance: float

    def __str__(self) -> str:
        num = self.g.shape[1]
        lines = [
            f"{num} members of {self.neuron.name} led through {len(self.g)} waypoints:"
        ]
        for i, (g_s, g_u) in enumerate(self.targets):
            ok, valid = (int(x[i].sum()) for x in (self.status == OK, self.valid))
            low, high = wilson(valid, num)
            lines.append(
                f"  (g_s, g_u) = ({g_s:.4g}, {g_u:.4g}): {ok} follow; "
                f"{_firing_in_words(self.expected[i])}; {valid} fire so within "
                f"{self.tolerance:.0%} ({low:.0%} to {high:.0%}; "
                f"{int(self.valid_before[i].sum())} before correction)"
            )
        followed = int(((self.status == OK) & self.valid).all(axis=0).sum())
        lines.append(f"{followed} are valid all the way.")
        return "\n".join(lines)


@renamed_argument("at", "V")
def path(
    neuron: Neuron,
    population: Population | Float[np.ndarray, "cells channels"],
    targets: Float[np.ndarray, "waypoints 2"] | Sequence[Sequence[float | int]],
    *,
    through: str | Sequence[str] | None = None,
    V: Potentials = "V_ref",
    expected: Sequence[Features | SpikeTrain | np.ndarray] | None = None,
    correct: bool = True,
    tolerance: float = 0.10,
    on_progress: Progress | None = None,
) -> Path:
    """Leads a population along a path of input conductances.

    At every waypoint each member is brought to its (g_s, g_u) from where it was at the
    one before, simulated, and compared with what the waypoint should fire like. Members
    that do not are corrected at unchanged (g_s, g_u). So a modulator is imitated whose
    effect on every member is known, although no two of them are built alike.

    **Arguments:**

    - `neuron`: the model; it must have a recipe.
    - `population`: members to start from, or their conductances in mS/cm². Members
        of a population that are not "ok" are left out.
    - `targets`: (g_s, g_u) of every waypoint, in order.
    - `through`, `V`: which conductances are modulated, and where the target holds, as
        [`dicjax.impose`][] takes them.
    - `expected`: what members should fire like at each waypoint; by default, like the
        member in the middle of all that fire in the commonest pattern there.
    - `correct`: whether members that fire otherwise are refined.
    - `tolerance`: how far each feature may be off, as a share.
    - `on_progress`: called with (stage, waypoints done, waypoints).

    **Returns:**

    A [`dicjax.Path`][].

    **Raises:**

    - `ValueError`: if targets are not pairs, there are not as many expectations as
        waypoints, no member can reach a waypoint, or members there are silent.
    """
    rows = check_targets(targets, None)[:, 0]
    if expected is not None and len(expected) != len(rows):
        raise ValueError(
            f"There are {len(rows)} waypoints but {len(expected)} expectations: give "
            "one for each."
        )
    g = conductances_of(neuron, population)
    report = on_progress or (lambda stage, done, total: None)
    steps = []
    for i, target in enumerate(rows):
        report(Stage("moving", f"waypoint {i + 1}"), i, len(rows))
        wanted = None
        if expected is not None:
            wanted = as_target(expected[i], tolerance)
        moved = impose(neuron, g, np.tile(target, (len(g), 1)), through=through, V=V)
        ok = moved.status == OK
        if ok.sum() < MIN_MEMBERS:
            raise ValueError(
                f"Waypoint {i + 1}, ({target[0]:g}, {target[1]:g}), is out of reach: "
                f"{moved}. Choose a nearer one, or other channels to modulate."
            )
        g = np.where(ok[:, None], moved.g, g)
        step = _at_waypoint(neuron, g, ok, wanted, correct, tolerance, target)
        g = step["g"]
        steps.append({"status": moved.status, **step})
    report(Stage("moving"), len(rows), len(rows))
    stacked = {
        name: np.stack([step[name] for step in steps])
        for name in ("g", "status", "labels", "pattern", "valid", "valid_before")
    }
    return Path(
        neuron=neuron,
        targets=rows,
        features=tuple(step["features"] for step in steps),
        expected=tuple(step["expected"] for step in steps),
        tolerance=tolerance,
        **stacked,
    )


def _at_waypoint(neuron, g, ok, wanted, correct, tolerance, target) -> dict:
    """What members fire like at a waypoint, corrected where they may be."""
    if wanted is None:
        wanted = Target(_in_the_middle(neuron, g[ok], target), tolerance)
    window = window_for(neuron, wanted)
    dt = neuron.required_recipe.dt / 2
    found = judge(simulate_by_recipe(neuron, g, **window._asdict(), dt=dt), wanted)
    before = found.valid & ok
    if correct and not before[ok].all() and _can_be_refined(found, ok):
        refined = refine(
            neuron,
            g[ok],
            wanted,
            keep_dics=True,
            max_rounds=NUM_ROUNDS,
        )
        g = g.copy()
        g[ok] = refined.g
        found = dataclasses.replace(
            found,
            features=with_rows(found.features, ok, refined.features),
            valid=with_rows(found.valid, ok, refined.valid),
        )
    return {
        "g": g,
        "labels": found.features.label,
        "pattern": np.asarray(wanted.features.label),
        "valid": found.valid & ok,
        "valid_before": before,
        "features": found.features,
        "expected": wanted.features,
    }


def _can_be_refined(found: Verdict, ok) -> bool:
    return int((np.isfinite(found.score) & ok).sum()) >= MIN_KNOWN


def _in_the_middle(neuron, g, target) -> Features:
    """Features of the member in the middle of the commonest firing pattern."""
    run = simulate_by_recipe(neuron, g)
    features = jax.tree.map(np.asarray, spike_features(run.spike_times))
    label = int(np.bincount(features.label, minlength=len(LABELS)).argmax())
    if label == SILENT:
        raise ValueError(
            f"Most members at ({target[0]:g}, {target[1]:g}) are silent: there is "
            "nothing to compare the others with. Say what is expected, or go elsewhere."
        )
    of = np.flatnonzero(features.label == label)
    compared = PATTERNS[label].compared
    logs = np.log(np.stack([x.read(features)[of] for x in compared], axis=1))
    away = np.abs(logs - np.nanmedian(logs, axis=0)).max(axis=1)
    middle = of[np.argmin(np.nan_to_num(away, nan=np.inf))]
    return jax.tree.map(lambda x: x[middle], features)


def _firing_in_words(expected: Features) -> str:
    label = LABELS[int(expected.label)]
    if int(expected.label) == BURSTING:
        return (
            f"{label} every {float(expected.period):.0f} ms with "
            f"{float(expected.spikes_per_burst):.1f} spikes"
        )
    return f"{label} every {float(expected.mean_isi):.0f} ms"
