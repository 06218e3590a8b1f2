r"""How a member's spikes depend on its numbers: $\partial \ln f / \partial \ln g$.

Beside conductances, these may be numbers of the kinetics or of the stimulus. Two
estimators give the same slopes. *Differences* simulate every member twice per number, a
little above and below; they hold for any firing pattern. *Autodiff* differentiates one
cycle of a regular rhythm (`rhythm_gradient`). That is exact and costs a few simulations
whatever the count of numbers, but sees neither irregular firing nor the number of
spikes in a burst.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from dicjax._core import (
    as_progress,
    conductances_of,
    HasConductances,
    on_host,
    option_of,
    Progress,
    renamed,
)
from dicjax.neurons import Neuron
from dicjax.populations.evaluation import simulated_times, stimulus_for
from dicjax.populations.rhythm_gradient import (
    AGREEMENT,
    cycles,
    LEAST_SLOPE,
    rhythm_of,
)
from dicjax.populations.rhythms import check_constant
from dicjax.simulation import (
    AbstractStimulus,
    Cell,
    in_a_row,
    log_conductances,
    Numbers,
    picked,
    simulate,
)
from dicjax.spikes import (
    BURSTING,
    feature_errors,
    Features,
    NUM_COMPARED,
    spike_features,
    TONIC,
)


@dataclasses.dataclass(frozen=True)
class Differences:
    """Slopes from simulations a little above and below each number.

    - `step`: to either side. One step is of ln g, or relative to the magnitude of a
        number that `where` picks; to one unit, if it is zero. Several are steps of each
        number, in its own unit. Short steps give slopes at the member. Longer ones give
        the overall slope of spikes per burst, which change in steps. A relative step of
        a potential may be long: 1 mV at -50 mV.
    - `check`: whether to compare with half of the step, for twice as many simulations.
        Slopes of a feature are nan where they differ by more than 10 % of the largest
        one, or of 0.05 if that is more. Numbers that `where` picks are compared by
        slopes per 100 % of them. By default nothing is compared, and a feature that
        jumps within a step makes a slope that depends on the step.
    """

    step: float | tuple[float, ...] = 0.02
    check: bool = False

    def of(
        self, sizes: Float[np.ndarray, "cells numbers"]
    ) -> Float[np.ndarray, "cells numbers"]:
        """The step of every number, given what one step is relative to.

        Raises `ValueError` if it is not positive, or there are others than numbers.
        """
        steps, num = np.asarray(self.step, sizes.dtype), sizes.shape[1]
        if steps.shape not in ((), (num,)) or not np.all(
            np.isfinite(steps) & (steps > 0)
        ):
            raise ValueError(
                f"`step` must be positive, one for all or one for each of {num} "
                f"numbers, got {self.step}."
            )
        return steps * sizes if steps.ndim == 0 else np.tile(steps, (len(sizes), 1))


@dataclasses.dataclass(frozen=True)
class Autodiff:
    """Exact slopes from one cycle of a regular rhythm, of members that have one.

    Two cycles are compared, the second in shorter steps. Where their slopes differ by
    more than 10 % of the largest slope of the same feature (or of 0.05 if that is
    more), a member has none. [`dicjax.rhythm`][] says how much they differ.
    """


ESTIMATORS = {"differences": Differences, "autodiff": Autodiff}


@on_host(
    "call it outside of them, and where JAX should differentiate use `dicjax.solve`"
)
def feature_slopes(
    neuron: Neuron,
    g: Float[np.ndarray, "*#cells channels"] | HasConductances,
    target: Features | None = None,
    *,
    where: Callable[[Cell], Any] | None = None,
    estimator: Differences | Autodiff | str = Differences(),
    step: float | None = None,
    stimulus: AbstractStimulus | Callable | None = None,
    duration: float | None = None,
    discard: float | None = None,
    dt: float | None = None,
    on_progress: Progress | None = None,
) -> Float[np.ndarray, "*cells 4 numbers"]:
    r"""Slopes of the logarithms of features by numbers of cells.

    By default these are the logarithms of conductances.

    **Arguments:**

    - `neuron`: the model. Each of its numbers may be an array with the axes of cells in
        front.
    - `g`: maximal conductances, in mS/cm², or a [`dicjax.Population`][], of which
        members that are not "ok" are left out. Leading axes index cells.
    - `target`: features of one train, whose pattern says which features are meant;
        each member's own pattern by default.
    - `where`: picks the numbers, as `equinox.tree_at` does: a function of a cell with
        the fields `neuron`, `g` (mS/cm², one number for every channel) and `stimulus`,
        such as `lambda cell: (cell.neuron.capacitance, cell.stimulus.amplitude)`.
    - `estimator`: [`dicjax.Differences`][] or [`dicjax.Autodiff`][]. The old spelling,
        "differences" with `step` or "autodiff", works until the next release.
    - `stimulus`: an applied current, the same as for [`dicjax.simulate`][]; by default
        that of the recipe, or none. For `Autodiff` it is constant after `discard` ms.
    - `duration`, `discard`, `dt`: of simulations, in ms; by default what the recipe
        says, with half of its `dt`.
    - `on_progress`: called with (stage, done, total), in units of work.

    **Returns:**

    Slopes of the features that [`dicjax.feature_errors`][] compares, in its order; zero
    where a pattern has fewer. They are by ln g, or per unit of each number that `where`
    picks (mV, ms, µF/cm²), in the order in which it does. They are nan where a member
    fires in another pattern than the target, or leaves it on the way, or, of
    `Autodiff`, has no regular rhythm. They are nan, too, where they are not trusted:
    where two cycles of `Autodiff`, or the two steps of `Differences(check=True)`,
    disagree by more than 10 %.

    **Raises:**

    - `ValueError`: if the estimator is unknown, conductances, steps or times are bad,
        the neuron has no recipe and a time is not given, `where` picks nothing or what
        is no single number, the stimulus of `Autodiff` changes after `discard`, or
        conductances, numbers of the neuron and stimulus are for other numbers of cells.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    estimator = option_of("estimator", estimator, ESTIMATORS, step=step)
    on_progress = renamed(as_progress(on_progress), "measuring_slopes")
    duration, discard, dt = simulated_times(neuron, duration, discard, dt)
    g = conductances_of(neuron, g)
    cells = in_a_row(neuron, g, stimulus_for(neuron, stimulus))
    cell = cells.row
    numbers = log_conductances(cell) if where is None else picked(cell, where)
    how: Any = {"discard": discard, "dt": dt, "on_progress": on_progress}
    features_of = functools.partial(_features_of, duration=duration, **how)
    if isinstance(estimator, Differences):
        sizes = np.asarray(numbers.sizes(cell))
        steps = estimator.of(sizes)
        slopes, label = _differences(cell, numbers, steps, features_of)
        if estimator.check:
            finer, _ = _differences(cell, numbers, steps / 2, features_of)
            slopes = _agreeing(finer, slopes, sizes)
    else:
        check_constant(cell, discard, duration)
        own = features_of(cell)
        # Slopes by logarithms of conductances come first, whatever else is asked for.
        others, first = (None, 0) if numbers.are_log else (numbers, len(cell.g))
        slopes = rhythm_slopes(cell, others, own, discard, dt)[:, :, first:]
        label = own.label
    if target is not None:
        slopes[label != int(target.label)] = np.nan
    return slopes.reshape(*cells.shape, *slopes.shape[1:])


def _features_of(cell: Cell, *, duration: float, **how: Any) -> Features:
    g = np.stack(cell.g, axis=-1)
    run = simulate(cell.neuron, g, duration, stimulus=cell.stimulus, **how)
    return jax.tree.map(np.asarray, spike_features(run.spike_times))


def _differences(cell, numbers, steps, features_of):
    num, count = steps.shape
    each = steps[:, None] * np.eye(count, dtype=steps.dtype)
    by = np.concatenate([0 * steps[:, None], each, -each], axis=1)
    rows = cell.of_rows(np.repeat(np.arange(num), 2 * count + 1))
    features = features_of(numbers.moved(rows, by.reshape(-1, count)))
    features = jax.tree.map(lambda x: x.reshape(num, -1, *x.shape[1:]), features)
    repeated = lambda x: np.repeat(x[:, :1], 2 * count + 1, axis=1)
    own = jax.tree.map(repeated, features)
    errors = np.array(feature_errors(features, own))
    errors[features.label != own.label] = np.nan
    above, below = errors[:, 1 : count + 1], errors[:, count + 1 :]
    slopes = np.swapaxes((above - below) / (2 * steps[:, :, None]), 1, 2)
    return slopes, own.label[:, 0]


def _agreeing(slopes, others, sizes):
    """Slopes of features (rows), or nan where others differ from them."""
    relative, away = (x * sizes[:, None] for x in (slopes, slopes - others))
    largest = np.maximum(np.abs(relative).max(axis=2), LEAST_SLOPE)
    differ = np.abs(away).max(axis=2) > AGREEMENT * largest
    return np.where(differ[:, :, None], np.nan, slopes)


def rhythm_slopes(
    cell: Cell, numbers: Numbers | None, own: Features, settle: float, dt: float
) -> Float[np.ndarray, "cells 4 unknowns"]:
    """Exact slopes of members with a rhythm, nan where none is to be trusted.

    They are by ln g, and then by `numbers`. Members have the features `own`, and are
    simulated `settle` ms before their cycle, in steps of `dt` ms.
    """
    num, channels = len(own.label), len(cell.g)
    count = channels + (0 if numbers is None else len(numbers.places))
    slopes = np.full((num, NUM_COMPARED, count), np.nan, cell.g[0].dtype)
    bursts = own.label == BURSTING
    regular = np.flatnonzero(bursts | (own.label == TONIC))
    if not len(regular):
        return slopes
    rhythm = rhythm_of(jax.tree.map(lambda x: x[regular], own))
    how: Any = {"settle": settle, "dt": dt, "numbers": numbers}
    found = cycles(cell.of_rows(regular), rhythm, **how)
    well = regular[found.is_trusted]
    slopes[well] = 0
    slopes[well, :2] = found.slopes[found.is_trusted]
    slopes[well, 1] *= bursts[well, None]
    return slopes
