"""Time, with compilation apart, and side by side for what is to be compared."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds of repeated calls.

    - `first`: of the first call, which compiles.
    - `later`: of all others, in order.
    """

    first: float
    later: tuple[float, ...]


def clocked(call: Callable[[], T]) -> tuple[T, float]:
    """The result of a call and its wall seconds, until all arrays are there."""
    began = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - began


def timed(call: Callable[[], object], repeats: int) -> Timed:
    """Seconds of a call that compiles and of so many that do not."""
    return side_by_side({"": call}, repeats)[""]


def side_by_side(
    calls: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, Timed]:
    """Seconds of several calls that take turns, after one of each that compiles."""
    first = {name: clocked(call)[1] for name, call in calls.items()}
    later = in_turn(calls, repeats)
    return {name: Timed(first[name], later[name]) for name in calls}


def in_turn(
    calls: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, tuple[float, ...]]:
    """Seconds of several calls, A B A B, so that other load slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(clocked(call)[1])
    return {name: tuple(x) for name, x in seconds.items()}


def ratios(of: Sequence[float], to: Sequence[float]) -> tuple[float, ...]:
    """How many times as long as another each call took, for calls of the same turn."""
    return tuple(a / b for a, b in zip(of, to, strict=True))
