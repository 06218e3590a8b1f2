"""What can be mended in the stamps of a file, on request and with counts."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dicjax._core import CLEANING
from dicjax.recordings.pauses import pauses_of
from dicjax.recordings.quality import is_double, overflows, WRAP
from dicjax.spikes import SpikeTrain


MAX_REPEATS = 0.01  # share of repeated times, which detectors mark by mistake
MACHINE_RATIO = 10.0  # of when stamps begin and how long they last
MACHINE_MS = 6e5  # a machine's clock says more; what begins earlier is left as it is

Times = Float[np.ndarray, " spikes"]


class Cleaned(NamedTuple):
    """Times, and what was done to how many of them."""

    times: Times
    done: dict[str, int]


def cleanings(names: str | Iterable[str]) -> frozenset[str]:
    """The cleanings that are asked for; a `ValueError` if there is no such."""
    wanted = frozenset([names] if isinstance(names, str) else names)
    for name in sorted(map(str, wanted - CLEANING.keys())):
        raise ValueError(f"`clean` must be among {', '.join(CLEANING)}, not {name!r}.")
    return wanted


def counted_on(numbers: Times) -> Cleaned:
    """Whole numbers of 32 bits, counted on where they start over."""
    places = overflows(numbers)
    rounds = np.zeros(numbers.size)
    rounds[places] = WRAP
    done = {"counted on where 32 bits overflow": places.size}
    return Cleaned(numbers + np.cumsum(rounds), done)


def clean_times(times: Times, wanted: frozenset[str]) -> Cleaned:
    """Times (ms), cleaned as `wanted`; a few that are repeated go in any case."""
    done = {}

    def drop(is_bad: np.ndarray, which: str) -> np.ndarray:
        done[f"dropped {which}"] = int(is_bad.sum())
        return times[~is_bad]

    if "negative" in wanted:
        times = drop(times < 0, "negative stamps")
    if "order" in wanted:
        done["sorted stamps, with some out of order"] = int((np.diff(times) < 0).sum())
        times = np.sort(times)
    if not (np.diff(times) >= 0).all():
        return Cleaned(times, done)  # refused later, with a remedy
    if "doubles" in wanted:
        times = drop(is_double(times), "stamps within 0.5 ms of the one before")
    repeats = np.diff(times, prepend=-np.inf) == 0
    if repeats.sum() <= MAX_REPEATS * times.size:
        times = drop(repeats, "stamps that repeat the one before")
    return Cleaned(times, done)


def without_pauses(train: SpikeTrain) -> tuple[SpikeTrain, dict[str, int]]:
    """The train, observed but in silences that look like pauses of the recording."""
    pauses = pauses_of(train)
    ends = np.sort(np.concatenate([train.observed.ravel(), pauses.ravel()]))
    observed = ends.reshape(-1, 2)
    new = SpikeTrain(train.times, train.name, train.source, observed=observed)
    return new, {"took silences as pauses of the recording": len(pauses)}


def start_of_session(times: list[Times], starts: list[float]) -> float:
    """What to count times (ms) of the units of a file from; 0 if they do themselves.

    That is the first stamp, or the start that the file states if it is earlier, where
    stamps are of a machine's clock, or where sorted ones begin below zero.
    """
    known = [x[np.isfinite(x)] for x in times]
    known = [x for x in known if x.size]
    if not known:
        return 0.0
    first = min(float(x.min()) for x in known)
    last = max(float(x.max()) for x in known)
    first = min([first, *(start for start in starts if np.isfinite(start))])
    if first >= max(MACHINE_MS, MACHINE_RATIO * (last - first)):
        return first
    below = [x for x in known if x.min() < 0]
    is_clock = bool(below) and all((np.diff(x) >= 0).all() for x in below)
    return first if is_clock else 0.0


def is_mark(numbers: Times) -> bool:
    """Whether all negative numbers are -1, which marks that there is no spike."""
    below = numbers[numbers < 0]
    return bool(below.size) and bool((below == -1).all())
