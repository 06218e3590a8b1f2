"""How often changes of a recording are found, and how often where there is none."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from dicjax.recordings import steady_stretches
from scripts.bench.results import Benchmark, Measurement, row


Rng = np.random.Generator
Kind = Callable[[Rng, int], np.ndarray]
NEAR = 0.03  # of the recording, around a change that counts as found


def tonic(rng: Rng, num: int, mean: float = 200.0) -> np.ndarray:
    """Regular intervals (ms)."""
    return mean * rng.normal(1, 0.08, num).clip(0.6)


def missed(rng: Rng, num: int) -> np.ndarray:
    """Regular intervals of which 3 % of the spikes are missed."""
    times = np.cumsum(tonic(rng, 2 * num))
    return np.diff(times[rng.random(times.size) > 0.03])[:num]


def irregular(rng: Rng, num: int, mean: float = 200.0) -> np.ndarray:
    """Random intervals after a dead time of 3 ms."""
    return 3 + rng.exponential(mean - 3, num)


def bursting(
    rng: Rng, num: int, period: float = 1000.0, within: float = 20.0
) -> np.ndarray:
    """Whole bursts of five spikes."""
    isi = within * rng.normal(1, 0.05, (num // 5, 4)).clip(0.7)
    pauses = period * rng.normal(1, 0.05, num // 5) - isi.sum(axis=1)
    return np.column_stack([isi, pauses]).ravel()


def loose(rng: Rng, num: int) -> np.ndarray:
    """Bursts of random lengths after random pauses."""
    sizes = 1 + rng.geometric(0.2, num)
    bursts = [
        np.append(rng.gamma(4, 5, size), 60 + rng.exponential(800)) for size in sizes
    ]
    return np.concatenate(bursts)[:num]


def waxing(rng: Rng, num: int) -> np.ndarray:
    """Random intervals whose rate wanders over some twenty of them."""
    noise, level = rng.normal(size=num) * 0.18, np.zeros(num)
    for i in range(1, num):
        level[i] = 0.95 * level[i - 1] + noise[i]
    return 3 + rng.exponential(197, num) * np.exp(level)


STEADY: dict[str, Kind] = {
    "tonic": tonic,
    "tonic, 3 % of spikes missed": missed,
    "irregular": irregular,
    "bursting": bursting,
    "bursting, of random lengths and pauses": loose,
    "irregular, of a wandering rate": waxing,
}
CHANGES: dict[str, tuple[Kind, ...]] = {
    "tonic, 1.5 times as fast": (tonic, lambda r, n: tonic(r, n, 133.0)),
    "irregular, 1.5 times as fast": (irregular, lambda r, n: irregular(r, n, 133.0)),
    "irregular, 2 times as fast": (irregular, lambda r, n: irregular(r, n, 100.0)),
    "bursting, of 2/3 of the period": (bursting, lambda r, n: bursting(r, n, 667.0)),
    "bursting, half as fast within": (
        bursting,
        lambda r, n: bursting(r, n, within=40.0),
    ),
    "tonic to irregular": (tonic, irregular),
    "tonic to bursting": (tonic, bursting),
    "bursting to irregular": (bursting, irregular),
    "tonic, bursting, irregular": (tonic, bursting, irregular),
    "tonic, bursting, tonic": (tonic, bursting, tonic),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretches(Benchmark):
    """How often changes of made trains are found, by their number of spikes.

    A change is found if `steady_stretches` has as many bounds as there are changes,
    each within 3 % of the recording. In steady trains, every bound is a mistake.
    """

    trains: int = 100
    """Trains of each kind and size."""
    sizes: tuple[int, ...] = (150, 300, 600, 3000)
    """Spikes of a train."""
    seed: int = 0
    """The same seed makes the same trains."""

    def measure(self) -> Iterator[Measurement]:
        """Measures steady trains, and then those that change."""
        columns = [(f"{size} spikes", "%") for size in self.sizes]
        of_size = lambda values: dict(zip(columns, values, strict=True))
        for name, kind in STEADY.items():
            shares = [self._share((kind,), size) for size in self.sizes]
            wrong = [100 - share for share in shares]
            yield from row("steady: parted", {"train": name}, of_size(wrong))
        for name, kinds in CHANGES.items():
            shares = [self._share(kinds, size) for size in self.sizes]
            yield from row("changing: found", {"train": name}, of_size(shares))

    def _share(self, kinds: tuple[Kind, ...], size: int) -> float:
        rng = np.random.default_rng(self.seed)
        right = sum(_is_right(rng, kinds, size) for _ in range(self.trains))
        return 100 * right / self.trains


def _is_right(rng: Rng, kinds: tuple[Kind, ...], size: int) -> bool:
    parts = [kind(rng, size // len(kinds)) for kind in kinds]
    times = np.cumsum(np.concatenate(parts))
    changes = np.cumsum([part.sum() for part in parts])[:-1]
    bounds = np.array([x.stop for x in steady_stretches(times)][:-1])
    if bounds.size != changes.size:
        return False
    return bool((np.abs(bounds - changes) <= NEAR * np.ptp(times)).all())
