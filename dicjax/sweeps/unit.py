"""The interface of a sweep's jobs."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from dicjax._core import Progress


Part = tuple[pa.Table, dict[str, int]]  # the table of a part, and its counts
Finish = Callable[[], Part]
Inputs = Mapping[str, pa.Table]
ReadStage = Callable[[int], Iterator[Part]]


class Span(NamedTuple):
    """The units of a part: `num` units of a stage, from `first` on."""

    stage: int
    first: int
    num: int

    @property
    def units(self) -> np.ndarray:
        """Numbers of the units."""
        return np.arange(self.first, self.first + self.num)


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
        self, spans: Sequence[Span], on_progress: Progress | None
    ) -> Sequence[Finish]:
        """Computes parts of a stage; returns functions that make their tables."""
        ...


class OneByOne(abc.ABC):
    """A job whose parts are computed one after the other."""

    at_once = 1

    def compute(
        self, spans: Sequence[Span], on_progress: Progress | None
    ) -> Sequence[Finish]:
        """Computes one part after the other."""
        return [self.part(span, on_progress) for span in spans]

    @abc.abstractmethod
    def part(self, span: Span, on_progress: Progress | None) -> Finish:
        """Computes a part."""
