"""How exact the slopes of a rhythm are that derivatives of its cycle give."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np

import dicjax as dj
from scripts.bench.results import Benchmark, Measurement, row


TARGETS = {"bursting": (-8.0, 4.0), "tonic": (5.0, 4.0)}  # (g_s, g_u) at V_ref
STEP = 1e-3  # of ln g, to either side
LEAST = 0.05  # that the largest slope of a member counts as, at least


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slopes(Benchmark):
    """Slopes of STG rhythms by `Autodiff`, beside converged central differences.

    Of members with the same (g_s, g_u), the slopes of the period, or of the interval
    between spikes. Differences take steps of 0.001 of ln g and time steps of 0.025 ms,
    of members whose number of spikes per burst does not change on the way. An error is
    the largest of a member, relative to its largest slope.
    """

    members: int = 40
    """Members of each pattern."""
    duration: float = 6000.0
    """Simulated time that differences are taken over, in ms, after as much."""
    seed: int = 1
    """Seed of the members."""

    def measure(self) -> Iterator[Measurement]:
        """Measures shares of members that have slopes, and how far these are off."""
        neuron = dj.stg()
        for label, target in TARGETS.items():
            with jax.enable_x64(True):
                key = jax.random.key(self.seed)
                g = dj.compensate(key, neuron, target, num=self.members).g
                g = np.asarray(g, np.float64)
                exact, is_known = self._differences(neuron, g)
                yield from self._row(neuron, g, "float64", label, exact, is_known)
            single = g.astype(np.float32)
            yield from self._row(neuron, single, "float32", label, exact, is_known)

    def _row(self, neuron, g, dtype, label, exact, is_known) -> Iterator[Measurement]:
        began = time.process_time()
        slopes = dj.feature_slopes(neuron, g, estimator=dj.Autodiff())[:, 0]
        took = time.process_time() - began
        is_trusted = np.isfinite(slopes).all(axis=1)
        both = is_trusted & is_known
        size = np.maximum(np.abs(exact).max(axis=1), LEAST)
        errors = np.abs(slopes - exact).max(axis=1)[both] / size[both]
        case = {"pattern": label, "dtype": dtype, "members": len(g)}
        columns = {
            ("with slopes", ""): float(is_trusted.sum()),
            ("compared", ""): float(both.sum()),
            ("median error", ""): float(np.median(errors)),
            ("worst error", ""): float(np.max(errors)),
            ("off by more than 10 %", ""): float((errors > 0.1).sum()),
            ("first call", "CPU-s"): took,
        }
        yield from row("slopes of periods by Autodiff", case, columns)

    def _differences(self, neuron, g):
        """Slopes of periods, and where they can be told from a change of the burst."""
        num, channels = g.shape
        each = STEP * np.eye(channels)
        factors = np.exp(np.concatenate([np.zeros((1, channels)), each, -each]))
        every = (g[:, None] * factors[None]).reshape(-1, channels)
        run = dj.simulate(
            neuron, every, 2 * self.duration, discard=self.duration, dt=0.025
        )
        found = dj.spike_features(run.spike_times)
        of = lambda x: np.asarray(x, np.float64).reshape(num, -1)
        bursts = of(found.label) == dj.LABELS.index("bursting")
        log = np.log(np.where(bursts, of(found.period), of(found.mean_isi)))
        above, below = log[:, 1 : channels + 1], log[:, channels + 1 :]
        spikes = np.where(bursts, of(found.spikes_per_burst), 1)
        is_whole = np.abs(spikes - np.round(spikes[:, :1])) < 1e-6
        is_same = is_whole.all(axis=1) & (bursts == bursts[:, :1]).all(axis=1)
        return (above - below) / (2 * STEP), is_same
