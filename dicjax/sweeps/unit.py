"""What a job of a sweep is."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import pyarrow as pa

from dicjax._core import Progress


Told = Progress | None
Finish = Callable[[], tuple[pa.Table, dict[str, int]]]
Stretch = tuple[int, int]  # the first unit of a part, and how many
Inputs = Mapping[str, pa.Table]
Earlier = Callable[[int], list[tuple[pa.Table, dict[str, int]]]]


@runtime_checkable
class Job(Protocol):
    """A kind of sweep.

    - `stages`: how many units there are, stage by stage; a stage begins when the ones
        before are complete.
    - `shard`: units of a part.
    """

    stages: tuple[int, ...]
    shard: int

    @property
    def at_once(self) -> int:
        """How many parts are best computed together."""
        ...

    def compute(
        self, stage: int, parts: Sequence[Stretch], told: Told
    ) -> Sequence[Finish]:
        """Computes parts; what it returns makes their tables."""
        ...


class OneByOne(abc.ABC):
    """A job of parts that gain nothing from being computed together."""

    @property
    def at_once(self) -> int:
        """One."""
        return 1

    def compute(
        self, stage: int, parts: Sequence[Stretch], told: Told
    ) -> Sequence[Finish]:
        """Computes one part after the other."""
        return [self.part(stage, first, num, told) for first, num in parts]

    @abc.abstractmethod
    def part(self, stage: int, first: int, num: int, told: Told) -> Finish:
        """Computes a part of so many units."""
