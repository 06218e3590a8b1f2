r"""How a member's spikes depend on its conductances: $\partial \ln f / \partial \ln g$.

Two estimators of the same slopes. *Differences* simulate every member twice per
channel, a little above and below; they hold for any firing pattern. *Autodiff*
differentiates one cycle of a regular rhythm (`rhythm_gradient`). That is exact and
costs a few simulations whatever the number of channels, but sees neither irregular
firing nor the number of spikes in a burst.
"""

import dataclasses

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
from dicjax.populations.evaluation import simulate_by_recipe, Window
from dicjax.populations.rhythm_gradient import (
    AGREEMENT,
    cycles,
    LEAST_SLOPE,
    rhythm_of,
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
    """Slopes from simulations a little above and below each conductance.

    - `step`: of ln g to either side: small for slopes at the member, larger for the
        overall slope of spikes per burst, which change in steps.
    - `check`: whether to compare with half of the step, for twice as many simulations.
        Slopes of a feature are nan where they differ by more than 10 % of the largest
        one, or of 0.05 if that is more. By default nothing is compared, and a feature
        that jumps within a step makes a slope that depends on the step.
    """

    step: float = 0.02
    check: bool = False


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
    g: Float[np.ndarray, "cells channels"] | HasConductances,
    target: Features | None = None,
    *,
    estimator: Differences | Autodiff | str = Differences(),
    step: float | None = None,
    duration: float | None = None,
    discard: float | None = None,
    on_progress: Progress | None = None,
) -> Float[np.ndarray, "cells 4 channels"]:
    r"""Slopes of the logarithms of features by logarithms of conductances.

    **Arguments:**

    - `neuron`: the model; it must have a recipe.
    - `g`: maximal conductances, in mS/cm², or a [`dicjax.Population`][], of which
        members that are not "ok" are left out.
    - `target`: features of one train, whose pattern says which features are meant;
        each member's own pattern by default.
    - `estimator`: [`dicjax.Differences`][] or [`dicjax.Autodiff`][]. The old spelling,
        "differences" with `step` or "autodiff", works until the next release.
    - `duration`, `discard`: of simulations, in ms; by default what the recipe says.
    - `on_progress`: called with (stage, done, total), in units of work.

    **Returns:**

    Slopes of the features that [`dicjax.feature_errors`][] compares, in its order; zero
    where a pattern has fewer. They are nan where a member fires in another pattern than
    the target, or leaves it on the way, or, of `Autodiff`, has no regular rhythm. They
    are nan, too, where they are not trusted: where two cycles of `Autodiff`, or the two
    steps of `Differences(check=True)`, disagree by more than 10 %.

    **Raises:**

    - `ValueError`: if the estimator is unknown, or conductances are bad.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    estimator = option_of("estimator", estimator, ESTIMATORS, step=step)
    on_progress = renamed(as_progress(on_progress), "measuring_slopes")
    recipe = neuron.required_recipe
    discard = recipe.discard if discard is None else discard
    window = Window(duration or recipe.duration, discard)
    g = conductances_of(neuron, g)
    if isinstance(estimator, Differences):
        slopes, label = _differences(neuron, g, estimator.step, window, on_progress)
        if estimator.check:
            half = estimator.step / 2
            finer, _ = _differences(neuron, g, half, window, on_progress)
            slopes = _agreeing(finer, slopes)
    else:
        own = _simulated(neuron, g, window, on_progress)
        slopes, label = rhythm_slopes(neuron, g, own, window.discard), own.label
    if target is not None:
        slopes[label != int(target.label)] = np.nan
    return slopes


def _simulated(neuron, g, window, on_progress) -> Features:
    run = simulate_by_recipe(neuron, g, window, halved=True, on_progress=on_progress)
    return jax.tree.map(np.asarray, spike_features(run.spike_times))


def _differences(neuron, g, step, window, on_progress):
    num, channels = g.shape
    each = step * np.eye(channels, dtype=g.dtype)
    factors = np.exp(np.concatenate([np.zeros((1, channels), g.dtype), each, -each]))
    every = (g[:, None] * factors[None]).reshape(-1, channels)
    features = _simulated(neuron, every, window, on_progress)
    features = jax.tree.map(lambda x: x.reshape(num, -1, *x.shape[1:]), features)
    repeated = lambda x: np.repeat(x[:, :1], 2 * channels + 1, axis=1)
    own = jax.tree.map(repeated, features)
    errors = np.array(feature_errors(features, own))
    errors[features.label != own.label] = np.nan
    above, below = errors[:, 1 : channels + 1], errors[:, channels + 1 :]
    slopes = np.swapaxes((above - below) / (2 * step), 1, 2)
    return slopes, own.label[:, 0]


def _agreeing(slopes, others):
    """Slopes of features (rows), or nan where others differ from them."""
    size = np.maximum(np.abs(slopes).max(axis=2), LEAST_SLOPE)
    differ = np.abs(slopes - others).max(axis=2) > AGREEMENT * size
    return np.where(differ[:, :, None], np.nan, slopes)


def rhythm_slopes(
    neuron: Neuron, g: Float[np.ndarray, "cells channels"], own: Features, settle: float
) -> Float[np.ndarray, "cells 4 channels"]:
    """Exact slopes at members with a rhythm, nan where there is none to be trusted.

    Members have the features `own`, and are simulated `settle` ms before their cycle.
    """
    recipe = neuron.required_recipe
    slopes = np.full((len(g), NUM_COMPARED, g.shape[1]), np.nan, g.dtype)
    bursts = own.label == BURSTING
    regular = np.flatnonzero(bursts | (own.label == TONIC))
    if not len(regular):
        return slopes
    rhythm = rhythm_of(jax.tree.map(lambda x: x[regular], own))
    how = {"settle": settle, "dt": recipe.dt / 2, "current": recipe.current}
    found = cycles(neuron, g[regular], rhythm, **how)
    well = regular[found.is_trusted]
    slopes[well] = 0
    slopes[well, :2] = found.slopes[found.is_trusted]
    slopes[well, 1] *= bursts[well, None]
    return slopes
