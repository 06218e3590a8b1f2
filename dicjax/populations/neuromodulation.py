"""Neuromodulation: a population led along a path of dynamic input conductances."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dicjax._core import (
    check_targets,
    conductances_of,
    on_host,
    Progress,
    renamed_argument,
    Stage,
)
from dicjax.dics import impose, OK, Population, Potentials
from dicjax.neurons import Neuron
from dicjax.populations.evaluation import (
    evaluate,
    simulate_by_recipe,
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
    - `labels`: index into `dicjax.LABELS` of each member's pattern.
    - `pattern`: of each waypoint: the pattern of `expected`, or the commonest one.
    - `valid`: whether a member fires like its waypoint within the tolerance;
        `valid_before`: whether it did before it was corrected.
    - `features`: of members, by waypoint; `expected`: those they were compared with.
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
        num, name = self.g.shape[1], self.neuron.name
        lines = [f"{num} members of {name} led through {len(self.g)} waypoints:"]
        follows = self.status == OK
        for i, (g_s, g_u) in enumerate(self.targets):
            valid = int(self.valid[i].sum())
            low, high = wilson(valid, num)
            lines.append(
                f"  (g_s, g_u) = ({g_s:.4g}, {g_u:.4g}): {follows[i].sum()} follow; "
                f"{_firing_in_words(self.expected[i])}; {valid} match within "
                f"{self.tolerance:.0%} ({low:.0%} to {high:.0%}; "
                f"{self.valid_before[i].sum()} before correction)"
            )
        lines.append(f"{(follows & self.valid).all(axis=0).sum()} match all the way.")
        return "\n".join(lines)


@renamed_argument("at", "V")
@on_host()
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

    At every waypoint each member is brought to its (g_s, g_u) from where it was,
    simulated, and compared with the activity that is expected there. Members that miss
    are corrected at unchanged (g_s, g_u). This imitates a modulator whose effect on
    every member is known, although no two of them are built alike.

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

    **Raises:**

    - `ValueError`: if targets are not pairs, there are not as many expectations as
        waypoints, no member can reach a waypoint, or members there are silent.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    rows = check_targets(targets, None)[:, 0]
    if expected is not None and len(expected) != len(rows):
        found = f"There are {len(rows)} waypoints but {len(expected)} expectations"
        raise ValueError(f"{found}: give one for each.")
    g = conductances_of(neuron, population)
    report = on_progress or (lambda stage, done, total: None)
    steps = []
    for i, target in enumerate(rows):
        report(Stage("moving", f"waypoint {i + 1}"), i, len(rows))
        moved = impose(neuron, g, np.tile(target, (len(g), 1)), through=through, V=V)
        ok = moved.status == OK
        if ok.sum() < MIN_MEMBERS:
            raise ValueError(
                f"Waypoint {i + 1}, ({target[0]:g}, {target[1]:g}), is out of reach: "
                f"{moved}. Choose a nearer one, or other channels to modulate."
            )
        g = np.where(ok[:, None], moved.g, g)
        if expected is None:
            wanted = Target(_in_the_middle(neuron, g[ok], target), tolerance)
        else:
            wanted = as_target(expected[i], tolerance)
        steps.append(_at_waypoint(neuron, g, moved.status, wanted, correct))
        g = steps[-1]["g"]
    report(Stage("moving"), len(rows), len(rows))
    columns = {name: tuple(step[name] for step in steps) for name in steps[0]}
    kept: dict[str, Any] = {x: columns.pop(x) for x in ("features", "expected")}
    kept |= {name: np.stack(x) for name, x in columns.items()}
    return Path(neuron=neuron, targets=rows, tolerance=tolerance, **kept)


def _at_waypoint(neuron, g, status, wanted: Target, correct: bool) -> dict[str, Any]:
    """A waypoint's entries of a `Path`, with members corrected if they can be."""
    ok = status == OK
    _, found = evaluate(neuron, g, wanted, window_for(neuron, wanted), halved=True)
    features, valid = found.features, found.valid
    can_learn = (np.isfinite(found.score) & ok).sum() >= MIN_KNOWN
    if correct and can_learn and not valid[ok].all():
        refined = refine(neuron, g[ok], wanted, keep_dics=True, max_rounds=NUM_ROUNDS)
        new = (refined.g, refined.features, refined.valid)
        g, features, valid = with_rows((g, features, valid), ok, new)
    return {
        "g": g,
        "status": status,
        "labels": features.label,
        "pattern": np.asarray(wanted.features.label),
        "valid": valid & ok,
        "valid_before": found.valid & ok,
        "features": features,
        "expected": wanted.features,
    }


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
    label = LABELS[expected.label]
    if expected.label == BURSTING:
        spikes = f"with {expected.spikes_per_burst:.1f} spikes"
        return f"{label} every {expected.period:.0f} ms {spikes}"
    return f"{label} every {expected.mean_isi:.0f} ms"
