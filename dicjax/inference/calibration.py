"""Whether posteriors say the truth: coverage, ranks, and where trains are too odd."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, Int

from dicjax._core import AnyArray, in_batches
from dicjax.inference.dataset import (
    Batch,
    batch_of,
    Dataset,
    PRIOR_OF,
    SAMPLERS,
    Source,
)
from dicjax.inference.encoder import Encoder, PRIORS
from dicjax.inference.posterior import Posterior, posterior_of, read_trains
from dicjax.spikes import LABELS


NUM_LEVELS = 101
NUM_DRAWS = 1024
CHUNK = 512  # posteriors that are drawn from at once
MIN_OF_LABEL = 200  # members below which a pattern takes another calibration
PASSING = 0.99  # share of ordinary trains that must not count as anomalies
LEVELS = (0.5, 0.8, 0.9, 0.95)
_EACH_LABEL = range(len(LABELS))


class Calibration(eqx.Module):
    """What was measured on held-out members.

    - `ranks`: for each prior and firing pattern, the share of truths that lie in the
        region of each nominal level.
    - `max_anomaly`: for each prior, the score up to which a train counts as ordinary.
    """

    ranks: Float[np.ndarray, "priors labels levels"]
    max_anomaly: Float[np.ndarray, " priors"]

    def ranks_of(
        self, prior: str, labels: Int[np.ndarray, " cells"]
    ) -> Float[np.ndarray, "cells levels"]:
        """The calibration of trains of these patterns, read under one prior."""
        return self.ranks[PRIORS.index(prior), labels]


def plain_calibration() -> Calibration:
    """One that takes posteriors at their word."""
    levels = np.linspace(0, 1, NUM_LEVELS, dtype=np.float32)
    ranks = np.tile(levels, (len(PRIORS), len(LABELS), 1))
    return Calibration(ranks, np.full(len(PRIORS), np.inf, np.float32))


def calibrate(
    encoder: Encoder, drawn: dict[str, Batch], recorded: Float[AnyArray, "cells spikes"]
) -> Calibration:
    """Measures coverage by prior and pattern, and how odd ordinary trains can seem.

    `drawn` has members of each prior by its name; of "any" at least, which stands in
    for patterns that too few show. `recorded` are ordinary trains with flaws; they set
    the score above which a train counts as an anomaly.

    Regions are then conformal: for a pattern with $n$ held-out members, a region of
    level $p$ covers between $p$ and $p + 1 / (n + 1)$ of new ones that are drawn alike.
    """
    known = {prior: _by_pattern(encoder, of, prior) for prior, of in drawn.items()}
    everyone = known["any"]
    ranks, passing = [], []
    for prior in PRIORS:
        own = {**everyone, **known.get(prior, {})}
        ranks.append([own.get(label, everyone[None]) for label in _EACH_LABEL])
        scores = read_trains(encoder, recorded, prior).anomaly
        passing.append(np.quantile(scores, PASSING))
    return Calibration(np.array(ranks), np.asarray(passing, np.float32))


def _by_pattern(encoder, members, prior) -> dict[int | None, np.ndarray]:
    """Ranks of each pattern that enough members show; of all members as `None`."""
    plain = plain_calibration().ranks_of(prior, np.asarray(members.labels))
    reading = read_trains(encoder, members.spike_times, prior)
    needed = levels_needed(posterior_of(encoder, reading, plain), members.slow)
    ranks: dict[int | None, np.ndarray] = {None: _ranks(needed)}
    for label in _EACH_LABEL:
        alike = members.labels == label
        if alike.sum() >= MIN_OF_LABEL:
            ranks[label] = _ranks(needed[alike])
    return ranks


def levels_needed(
    posterior: Posterior, dics: Float[AnyArray, "cells 2"]
) -> Float[np.ndarray, " cells"]:
    """The smallest nominal level whose region of highest density holds each truth."""
    of = lambda part, truth: _needed(part, part.sample(jr.key(1), NUM_DRAWS), truth)
    return _for_each(of, posterior, dics)


def _for_each(measure: Callable, posterior: Posterior, *rows: AnyArray) -> Any:
    """What `measure` returns of some trains at a time: draws of all would not fit."""

    ends = posterior.low, posterior.high

    def of(mixture, ranks, *rows):
        weights, means, factors = map(jnp.asarray, mixture)
        part = Posterior(weights, means, factors, *ends, jnp.asarray(ranks))
        return measure(part, *rows)

    mixture = (posterior.weights, posterior.means, posterior.factors)
    return in_batches(of, mixture, posterior.ranks, *rows, size=CHUNK)


def evaluate(
    encoder: Encoder, calibration: Calibration, members: Batch, prior: str = "any"
) -> dict[str, dict[str, float | int]]:
    """Errors and coverage by firing pattern, on members the encoder has not seen.

    For each: how many members, mean absolute error of the posterior medians (and means)
    of g_s and g_u, the share of truths within calibrated regions, the mean width of
    90 % intervals, how often the label is recognised, and how often a train is taken
    for an anomaly. `prior` is one of `PRIORS`: members are taken to be draws of it.
    """
    labels = np.asarray(members.labels)
    reading = read_trains(encoder, members.spike_times, prior)
    posterior = posterior_of(encoder, reading, calibration.ranks_of(prior, labels))
    miss, miss_of_mean, width, covered = _for_each(_errors, posterior, members.slow)
    columns = {}
    for i, name in enumerate(("g_s", "g_u")):
        columns[f"mae_{name}"] = miss[:, i]
        columns[f"mae_of_mean_{name}"] = miss_of_mean[:, i]
        columns[f"width_90_{name}"] = width[:, i]
    for i, level in enumerate(LEVELS):
        columns[f"coverage_{100 * level:.0f}"] = covered[:, i]
    columns["label"] = np.argmax(reading.labels, axis=1) == labels
    passing = calibration.max_anomaly[PRIORS.index(prior)]
    columns["flagged"] = np.asarray(reading.anomaly) > passing
    table = {}
    for index, name in enumerate(LABELS):
        of = labels == index
        if of.any():
            table[name] = {"num": int(of.sum())} | {
                column: float(values[of].mean()) for column, values in columns.items()
            }
    return table


def evaluate_sources(
    encoder: Encoder, calibration: Calibration, test: Dataset, sources: Sequence[Source]
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Errors and coverage on the members of each source, with its prior and without."""
    known, tests = batch_of(test), {}
    for source in sources:
        of = test.sampler == SAMPLERS.index(source.sampler)
        of &= test.sigma == np.float32(source.sigma)
        for prior in (PRIOR_OF[source.sampler], "any"):
            name = f"{source.sampler}, sigma {source.sigma:g}, prior {prior}"
            tests[name] = evaluate(encoder, calibration, known[of], prior)
    return tests


def _errors(posterior, dics):
    """Errors of medians and of means, widths, and whether regions of `LEVELS` cover."""
    sampled = posterior.sample(jr.key(1), NUM_DRAWS)
    draws = np.asarray(sampled)
    low, median, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=1)
    grid = np.linspace(0, 1, posterior.ranks.shape[1])
    nominal = [np.interp(LEVELS, row, grid) for row in np.asarray(posterior.ranks)]
    covered = _needed(posterior, sampled, dics)[:, None] <= np.stack(nominal)
    return abs(median - dics), abs(draws.mean(axis=1) - dics), high - low, covered


def _needed(part, sampled, truth):
    densities = part.log_prob(sampled)
    at = part.log_prob(jnp.asarray(truth)[:, None])
    return np.mean(np.asarray(densities) > np.asarray(at), axis=1)


def _ranks(needed):
    grid = np.linspace(0, 1, NUM_LEVELS)
    # One more truth counts as outside, so that regions cover at least their level.
    ranks = np.searchsorted(np.sort(needed), grid, side="right") / (len(needed) + 1)
    # Strictly increasing, so that it can be inverted, and whole at the end.
    ranks = np.maximum.accumulate(ranks) + 1e-6 * grid
    ranks[0], ranks[-1] = 0.0, 1.0
    return ranks.astype(np.float32)
