"""The interface of a sweep's jobs."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from dicjax._core import Progress, Row


Part = tuple[pa.Table, dict[str, int]]  # the table of a part, and its counts
Finish = Callable[[], Part]
Inputs = Mapping[str, pa.Table]
Earlier = Callable[[int], Iterator[Part]]  # reads the parts of an earlier stage
Outcome = tuple[int, Row | str]  # a part's line of the manifest, or an error
Groups = Sequence[Sequence[int]]  # numbers of parts
Report = Progress | None  # what is called with the progress of one part


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

    - `stages`: number of units of each stage, which begins when earlier ones are done.
    - `shard`: number of units of a part.
    """

    stages: tuple[int, ...]
    shard: int

    @property
    def at_once(self) -> int:
        """Number of parts that are best computed together."""
        ...

    def compute(self, spans: Sequence[Span], on_progress: Report) -> Sequence[Finish]:
        """Computes parts of a stage; returns functions that make their tables."""
        ...


class Serial(abc.ABC):
    """A job whose parts are computed one after the other."""

    at_once = 1

    def compute(self, spans: Sequence[Span], on_progress: Report) -> Sequence[Finish]:
        return [self.part(span, on_progress) for span in spans]

    @abc.abstractmethod
    def part(self, span: Span, on_progress: Report) -> Finish:
        """Computes a part."""


def error_line(error: Exception) -> str:
    """The class and the first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500] if text else 'no more is known'}"
