"""`generate` on trains that are irregular, made and recorded."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

import dicjax as dj
from dicjax.spikes import agreement_with
from scripts.bench.generate.recordings import columns_of
from scripts.bench.results import Benchmark, Measurement, row


Rng = np.random.Generator
NUM_FRESH = 200  # trains of the same process that are compared with the first


def wandering(rng: Rng, num: int) -> np.ndarray:
    """Random intervals (ms) around a mean that wanders within tens of intervals."""
    log_mean = np.zeros(num)
    for i in range(1, num):
        log_mean[i] = 0.98 * log_mean[i - 1] + 0.12 * rng.normal()
    return rng.exponential(100 * np.exp(log_mean))


MADE: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "Poisson, 5 Hz": lambda rng, num: rng.exponential(200, num),
    "Poisson, 20 Hz": lambda rng, num: rng.exponential(50, num),
    "gamma (shape 3), 10 Hz": lambda rng, num: rng.gamma(3, 100 / 3, num),
    "log-normal, median 80 ms": lambda rng, num: rng.lognormal(np.log(80), 0.8, num),
    "wandering rate": wandering,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Irregular(Benchmark):
    """Members found for irregular trains: made ones, or those of a folder.

    Of a made train, "same process" is the share of fresh trains, as long as those that
    members are selected by, that agree with it.
    """

    folder: pathlib.Path | None = None
    """Folder with the spike times of one neuron in each *.csv; made trains if none."""
    model: str = "auto"
    """Model of the members."""
    members: int = 50
    """Valid members to find for each train."""
    num_spikes: int = 600
    """Spikes of a made train."""
    seed: int = 0
    """The same seed makes the same trains and populations."""

    def measure(self) -> Iterator[Measurement]:
        """Generates a population for every train."""
        for name, train, columns in self._trains():
            case, began = {"train": name}, time.perf_counter()
            try:
                result = dj.generate(
                    jax.random.key(self.seed), train, model=self.model, num=self.members
                )
            except ValueError as e:
                yield Measurement("members", case, note=str(e))
                continue
            columns |= columns_of(result, time.perf_counter() - began)
            distance = result.distribution_distance[result.accepted]
            if result.agreement is not None and len(distance):
                columns |= {
                    ("distance of ISIs", ""): float(np.median(distance)),
                    ("of stretches", ""): result.agreement.furthest,
                }
            yield from row("members", case | {"model": result.neuron.name}, columns)
            if result.num_accepted < self.members:
                yield Measurement("members", case, note=result.main_failures())

    def _trains(self) -> Iterator[tuple[str, dj.SpikeTrain, dict]]:
        if self.folder is not None:
            for path in sorted(self.folder.glob("*.csv")):
                yield path.stem, dj.read_spike_trains(path)[0], {}
            return
        for name, make in MADE.items():
            rng = np.random.default_rng(self.seed)
            intervals = make(rng, self.num_spikes)
            train = dj.SpikeTrain(np.cumsum(intervals))
            span = 100 * float(np.mean(intervals))
            agreement = agreement_with(train, span, 0.1)
            fresh = np.cumsum([make(rng, 200) for _ in range(NUM_FRESH)], axis=1)
            fresh = np.where(fresh <= span, fresh, np.inf)
            share = float(agreement.compare(fresh).agrees.mean())
            yield name, train, {("same process", ""): share}
