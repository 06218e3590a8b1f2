"""The interface of a sweep's jobs."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import pyarrow as pa

from dicjax._core import Progress


Finish = Callable[[], tuple[pa.Table, dict[str, int]]]
Stretch = tuple[int, int]  # number of the first unit of a part, and number of units
Inputs = Mapping[str, pa.Table]
ReadStage = Callable[[int], list[tuple[pa.Table, dict[str, int]]]]


@runtime_checkable
class Job(Protocol):
    """A kind of sweep.

    - `stages`: number of units of each stage. A stage begins when the earlier ones are
        complete.
    - `shard`: number of units of a part.
    """

    stages: tuple[int, ...]
    shard: int

    @property
    def at_once(self) -> int:
        """Number of parts that are best computed together."""
        ...

    def compute(
        self, stage: int, parts: Sequence[Stretch], on_progress: Progress | None
    ) -> Sequence[Finish]:
        """Computes parts; returns functions that make their tables and counts."""
        ...


class OneByOne(abc.ABC):
    """A job whose parts are computed one after the other."""

    @property
    def at_once(self) -> int:
        """One part."""
        return 1

    def compute(
        self, stage: int, parts: Sequence[Stretch], on_progress: Progress | None
    ) -> Sequence[Finish]:
        """Computes one part after the other."""
        return [self.part(stage, first, num, on_progress) for first, num in parts]

    @abc.abstractmethod
    def part(
        self, stage: int, first: int, num: int, on_progress: Progress | None
    ) -> Finish:
        """Computes the part of `num` units from `first` on."""
