"""Whether posteriors say the truth: coverage, ranks, and where trains are too odd."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, Int

from dicjax.inference.dataset import Dataset, PRIOR_OF, SAMPLERS, Source
from dicjax.inference.encoder import Encoder, PRIORS
from dicjax.inference.posterior import Posterior, posterior_of, read_trains
from dicjax.spikes import features_of_all, LABELS


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
    return Calibration(
        np.tile(levels, (len(PRIORS), len(LABELS), 1)),
        np.full(len(PRIORS), np.inf, np.float32),
    )


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Members that no encoder has learned from: trains, (g_s, g_u) and patterns."""

    trains: list[np.ndarray]
    dics: Float[np.ndarray, "cells 2"]
    labels: Int[np.ndarray, " cells"]


def calibrate(
    encoder: Encoder, held_out: dict[str, HeldOut], recorded: list[np.ndarray]
) -> Calibration:
    """Measures coverage by prior and pattern, and how odd ordinary trains can seem.

    **Arguments:**

    - `held_out`: draws of each prior, by its name; of "any" at least. A pattern that
        too few of them show takes its calibration from "any".
    - `recorded`: trains of ordinary members as they might be recorded, with flaws, to
        choose the score above which a train counts as an anomaly.

    Regions are then conformal: for a pattern with $n$ held-out members, a region of
    level $p$ covers between $p$ and $p + 1 / (n + 1)$ of new ones that are drawn alike.
    """
    everyone = _by_pattern(encoder, held_out["any"], "any")
    everyone = {label: everyone.get(label, everyone[None]) for label in _EACH_LABEL}
    ranks, passing = [], []
    for prior in PRIORS:
        own = dict(everyone)
        if prior != "any" and prior in held_out:
            own |= _by_pattern(encoder, held_out[prior], prior)
        ranks.append(np.stack([own[label] for label in _EACH_LABEL]))
        scores = np.asarray(read_trains(encoder, recorded, prior).anomaly)
        passing.append(np.quantile(scores, PASSING))
    return Calibration(np.stack(ranks), np.asarray(passing, np.float32))


def _by_pattern(encoder, members, prior) -> dict[int | None, np.ndarray]:
    """Ranks of each pattern that enough members show; of all members as `None`."""
    reading = read_trains(encoder, members.trains, prior)
    plain = plain_calibration().ranks_of(prior, members.labels)
    needed = levels_needed(posterior_of(encoder, reading, plain), members.dics)
    ranks: dict[int | None, np.ndarray] = {None: _ranks(needed)}
    for label in _EACH_LABEL:
        alike = members.labels == label
        if alike.sum() >= MIN_OF_LABEL:
            ranks[label] = _ranks(needed[alike])
    return ranks


def levels_needed(
    posterior: Posterior, dics: Float[np.ndarray, "cells 2"]
) -> Float[np.ndarray, " cells"]:
    """The smallest nominal level whose region of highest density holds each truth."""
    needed = []
    for start in range(0, len(dics), CHUNK):
        part = _part(posterior, slice(start, start + CHUNK))
        sampled = part.sample(jr.key(1), NUM_DRAWS)
        needed.append(_needed(part, sampled, dics[start : start + CHUNK]))
    return np.concatenate(needed)


def ranks_of_truths(
    posterior: Posterior, dics: Float[np.ndarray, "cells 2"]
) -> Float[np.ndarray, "cells 2"]:
    """The share of draws below each truth, which is uniform if posteriors are true.

    ??? cite "Reference"

        Talts, Betancourt, Simpson, Vehtari & Gelman (2018). *Validating Bayesian
        inference algorithms with simulation-based calibration.* arXiv 1804.06788.
    """
    ranks = []
    for start in range(0, len(dics), CHUNK):
        part = _part(posterior, slice(start, start + CHUNK))
        draws = np.asarray(part.sample(jr.key(2), NUM_DRAWS))
        ranks.append(np.mean(draws < dics[start : start + CHUNK, None], axis=1))
    return np.concatenate(ranks)


def expected_coverage(
    posterior: Posterior, dics: Float[np.ndarray, "cells 2"], seed: int = 0
) -> Float[np.ndarray, " cells"]:
    """The share of draws nearer to a random point than the truth is.

    Uniform if posteriors are true, and only then (TARP).

    ??? cite "Reference"

        Lemos, Coogan, Hezaveh & Perreault-Levasseur (2023). *Sampling-based accuracy
        testing of posterior estimators for general inference.* ICML.
    """
    rng = np.random.default_rng(seed)
    low, high = np.asarray(posterior.low), np.asarray(posterior.high)
    reference = rng.uniform(size=dics.shape)
    share = lambda x: (x - low) / (high - low)
    nearer = []
    for start in range(0, len(dics), CHUNK):
        rows = slice(start, start + CHUNK)
        draws = np.asarray(_part(posterior, rows).sample(jr.key(3), NUM_DRAWS))
        of_draws = np.linalg.norm(share(draws) - reference[rows, None], axis=2)
        of_truth = np.linalg.norm(share(dics[rows]) - reference[rows], axis=1)
        nearer.append(np.mean(of_draws < of_truth[:, None], axis=1))
    return np.concatenate(nearer)


def evaluate(
    encoder: Encoder,
    calibration: Calibration,
    trains: list[np.ndarray],
    dics: Float[np.ndarray, "cells 2"],
    labels: Int[np.ndarray, " cells"],
    prior: str = "any",
) -> dict[str, dict[str, float | int]]:
    """Errors and coverage by firing pattern, on members the encoder has not seen.

    For each: how many members, mean absolute error of the posterior medians (and means)
    of g_s and g_u, the share of truths within calibrated regions, the median width of
    90 % intervals, how often the label is recognised, and how often a train is taken
    for an anomaly. `prior` is one of `PRIORS`: members are taken to be draws of it.
    """
    reading = read_trains(encoder, trains, prior)
    ranks = calibration.ranks_of(prior, labels)
    posterior = posterior_of(encoder, reading, ranks)
    columns = _errors(posterior, dics)
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
    encoder: Encoder,
    calibration: Calibration,
    test: Dataset,
    sources: Sequence[Source],
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Errors and coverage on the members of each source, with its prior and without."""
    labels = np.asarray(features_of_all(test.spike_times).label)
    tests = {}
    for source in sources:
        of = test.sampler == SAMPLERS.index(source.sampler)
        of &= test.sigma == np.float32(source.sigma)
        for prior in (PRIOR_OF[source.sampler], "any"):
            name = f"{source.sampler}, sigma {source.sigma:g}, prior {prior}"
            tests[name] = evaluate(
                encoder,
                calibration,
                trains_of(test.spike_times[of]),
                test.dics[of, 1:],
                labels[of],
                prior,
            )
    return tests


def trains_of(spike_times: np.ndarray) -> list[np.ndarray]:
    """Rows without their padding."""
    return [row[np.isfinite(row)] for row in spike_times]


def _errors(posterior, dics):
    """Columns of a table of errors, from one set of draws of every posterior."""
    pieces = []
    for start in range(0, len(dics), CHUNK):
        part = _part(posterior, slice(start, start + CHUNK))
        truth = dics[start : start + CHUNK]
        sampled = part.sample(jr.key(1), NUM_DRAWS)
        draws = np.asarray(sampled)
        low, median, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=1)
        columns = {}
        for i, name in enumerate(("g_s", "g_u")):
            columns[f"mae_{name}"] = abs(median - truth)[:, i]
            columns[f"mae_of_mean_{name}"] = abs(draws.mean(axis=1) - truth)[:, i]
            columns[f"width_90_{name}"] = (high - low)[:, i]
        needed = _needed(part, sampled, truth)
        ranks = np.asarray(part.ranks)
        grid = np.linspace(0, 1, ranks.shape[1])
        for level in LEVELS:
            nominal = np.array([np.interp(level, row, grid) for row in ranks])
            columns[f"coverage_{100 * level:.0f}"] = needed <= nominal
        pieces.append(columns)
    return {name: np.concatenate([x[name] for x in pieces]) for name in pieces[0]}


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


def _part(posterior: Posterior, rows: slice) -> Posterior:
    return dataclasses.replace(
        posterior,
        weights=posterior.weights[rows],
        means=posterior.means[rows],
        factors=posterior.factors[rows],
        ranks=posterior.ranks[rows],
        distance=None,
        anomaly=None,
        fast=None,
    )
