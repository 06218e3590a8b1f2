"""Which of some named vectors of numbers are spike times, and whose they are."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from dicjax.recordings.readers.tabular.columns import is_count
from dicjax.recordings.readers.units import is_id, is_measure


MAX_ERROR = 1e-5  # of a recording, by which rounding may move times
LEAST_SCALE = 2.0  # of numbers in another unit
Vector = Shaped[np.ndarray, " _"]


def times_among(vectors: Mapping[str, Vector]) -> tuple[list[str], str | None]:
    """The names of those that may be times, and of the one that says whose they are.

    Measures, counts of rows and copies in another unit are left out. A vector of
    units groups the times if there is one vector of times, equally long.
    """
    ids = [x for x in vectors if names_neurons(x)]
    others = [x for x in vectors if x not in ids and not is_measure(x)]
    others = [x for x in others if not is_count(vectors[x])]
    if not others and len(ids) == len(vectors):
        return ids, None
    copies = copies_among([vectors[x] for x in others])
    times = [x for i, x in enumerate(others) if i not in copies]
    if len(times) != 1:
        return times, None
    size = vectors[times[0]].size
    return times, next((x for x in ids if vectors[x].size == size > 0), None)


def names_neurons(label: str) -> bool:
    """Whether a label names neurons, such as `spike_clusters`."""
    return is_id(re.sub("^spikes?_*", "", label, flags=re.IGNORECASE))


def copies_among(vectors: Sequence[Vector]) -> set[int]:
    """The places of vectors that repeat others in samples or another unit."""
    copies: set[int] = set()
    for i, first in enumerate(vectors):
        for j in range(i + 1, len(vectors)):
            if copies.isdisjoint((i, j)) and _are_copies(first, vectors[j]):
                is_whole = not np.any(first % 1)
                copies.add(i if is_whole and np.any(vectors[j] % 1) else j)
    return copies


def _are_copies(first: Vector, second: Vector) -> bool:
    """Whether numbers are the same times, scaled and perhaps shifted and rounded."""
    if not 3 < first.size == second.size:
        return False
    a, b = first.astype(float), second.astype(float)
    spans = [float(x[-1] - x[0]) for x in (a, b)]
    if not (min(spans) > 0 and np.isfinite(spans).all()):
        return False
    if max(spans) < LEAST_SCALE * min(spans):  # two cells may fire in one rhythm
        return False
    a, b = (a, b) if spans[0] < spans[1] else (b, a)
    scaled = b[0] + (a - a[0]) * (max(spans) / min(spans))
    rounding = max(2.0 * (not np.any(b % 1)), MAX_ERROR * max(spans))
    return bool(np.abs(scaled - b).max() <= rounding)
