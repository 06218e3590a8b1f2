"""How good an encoder's posteriors are: ranks, flaws of recordings, recordings."""

import dataclasses
import pathlib
from collections.abc import Iterator

import jax.random as jr
import numpy as np
import scipy.stats
import tyro

import dicjax as dj
from dicjax.inference import Posterior, posterior_of, read_trains, shipped_models
from dicjax.inference.calibration import evaluate, NUM_DRAWS
from dicjax.inference.dataset import batch_of
from dicjax.spikes import pad_trains
from scripts.bench.encoder.held_out import held_out, load, prior_of, SEED
from scripts.bench.processes import reuse_compiled_programs
from scripts.bench.results import Benchmark, Measurement, row


FEWEST = 30  # members of a pattern that is measured
FLAWS = {
    "jitter, ms": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
    "missed": (0.02, 0.05, 0.1),
    "spurious": (0.01, 0.03),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration(Benchmark):
    """Ranks of true values under posteriors of held-out members: SBC and TARP.

    Each figure is the largest distance of ranks from a uniform distribution. Uniform
    numbers stay below the last column in 95 % of all cases.
    """

    model: tyro.conf.Positional[str]
    """Model of the encoder."""
    members: int = 4000
    """Members to read."""

    def measure(self) -> Iterator[Measurement]:
        """Reads all members, and compares their ranks by pattern."""
        loaded = load(self.model)
        test = held_out(self.model, self.members)
        known, prior = batch_of(test), prior_of(test)
        labels = np.asarray(known.labels)
        reading = read_trains(loaded.encoder, known.spike_times, prior)
        plain = loaded.calibration.ranks_of(prior, labels)
        posterior = posterior_of(loaded.encoder, reading, plain)
        dics = np.asarray(known.slow)
        ranks = ranks_of_truths(posterior, dics)
        coverage = expected_coverage(posterior, dics)
        distance = lambda x: float(scipy.stats.kstest(x, "uniform").statistic)
        for index, name in enumerate(dj.LABELS):
            of = labels == index
            if of.sum() < FEWEST:
                continue
            columns = {
                ("members", ""): int(of.sum()),
                ("SBC, g_s", ""): distance(ranks[of, 0]),
                ("SBC, g_u", ""): distance(ranks[of, 1]),
                ("TARP", ""): distance(coverage[of]),
                ("uniform, 95 %", ""): 1.36 / float(np.sqrt(of.sum())),
            }
            yield from row(
                f"distances from uniform, {self.model}", {"pattern": name}, columns
            )


def ranks_of_truths(
    posterior: Posterior, dics: np.ndarray, seed: int = 2
) -> np.ndarray:
    """The share of draws below each truth, which is uniform if posteriors are true.

    ??? cite "Reference"

        Talts, Betancourt, Simpson, Vehtari & Gelman (2018). *Validating Bayesian
        inference algorithms with simulation-based calibration.* arXiv 1804.06788.
    """
    draws = np.asarray(posterior.sample(jr.key(seed), NUM_DRAWS))
    return np.mean(draws < dics[:, None], axis=1)


def expected_coverage(
    posterior: Posterior, dics: np.ndarray, seed: int = 3
) -> np.ndarray:
    """The share of draws nearer to a random point than the truth is.

    Uniform if posteriors are true, and only then (TARP).

    ??? cite "Reference"

        Lemos, Coogan, Hezaveh & Perreault-Levasseur (2023). *Sampling-based accuracy
        testing of posterior estimators for general inference.* ICML.
    """
    low, high = np.asarray(posterior.low), np.asarray(posterior.high)
    share = lambda x: (np.asarray(x) - low) / (high - low)
    reference = np.random.default_rng(seed).uniform(size=dics.shape)
    draws = share(posterior.sample(jr.key(seed), NUM_DRAWS))
    of_draws = np.linalg.norm(draws - reference[:, None], axis=2)
    of_truth = np.linalg.norm(share(dics) - reference, axis=1)
    return np.mean(of_draws < of_truth[:, None], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flaws(Benchmark):
    """Errors and coverage as jitter, missed spikes and spurious spikes grow."""

    model: tyro.conf.Positional[str]
    """Model of the encoder."""
    members: int = 2000
    """Members whose trains are spoiled."""

    def measure(self) -> Iterator[Measurement]:
        """Reads all members with each flaw."""
        loaded = load(self.model)
        test = held_out(self.model, self.members)
        known = batch_of(test)
        trains = [row[np.isfinite(row)] for row in np.asarray(known.spike_times)]
        rng = np.random.default_rng(SEED)
        for flaw, sizes in FLAWS.items():
            for size in sizes:
                spoiled = pad_trains([spoil(rng, x, flaw, size) for x in trains])
                table = evaluate(
                    loaded.encoder,
                    loaded.calibration,
                    dataclasses.replace(known, spike_times=spoiled),
                    prior_of(test),
                )
                for label in ("tonic", "bursting"):
                    if label not in table:
                        continue
                    columns = {
                        ("error of g_s", ""): table[label]["mae_g_s"],
                        ("error of g_u", ""): table[label]["mae_g_u"],
                        ("90 % regions hold", ""): table[label]["coverage_90"],
                        ("flagged", ""): table[label]["flagged"],
                    }
                    case = {"flaw": flaw, "size": size, "pattern": label}
                    yield from row(f"spoiled trains, {self.model}", case, columns)


def spoil(
    rng: np.random.Generator, times: np.ndarray, flaw: str, size: float
) -> np.ndarray:
    """Spike times (ms) of a train with one flaw."""
    jitter, missed, spurious = (size if flaw == x else 0.0 for x in FLAWS)
    kept = times[rng.random(len(times)) >= missed]
    extra = rng.uniform(times[0], times[-1], rng.poisson(spurious * len(times)))
    moved = kept + jitter * rng.normal(size=len(kept))
    return np.sort(np.concatenate([moved, extra]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recordings(Benchmark):
    """Which recordings each encoder takes to be like those it was trained on."""

    folder: tyro.conf.Positional[pathlib.Path]
    """Folder with spike times as *.csv; the first neuron of each is read."""

    def measure(self) -> Iterator[Measurement]:
        """Reads every recording with every encoder."""
        reuse_compiled_programs()
        for path in sorted(self.folder.glob("*.csv")):
            train = dj.read_spike_trains(path)[0]
            for model in shipped_models():
                posterior = dj.infer([train], model)
                columns = {
                    ("spikes", ""): train.num_spikes,
                    ("anomaly", ""): float(np.asarray(posterior.anomaly)[0]),
                    ("at most", ""): float(posterior.max_anomaly),
                    ("distance", ""): float(np.asarray(posterior.distance)[0]),
                    ("in distribution", ""): int(posterior.in_distribution[0]),
                }
                yield from row(model, {"recording": path.stem}, columns)
