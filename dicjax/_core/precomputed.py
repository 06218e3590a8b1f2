"""Members that were simulated elsewhere, to learn from."""

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Swept(Generic[T]):
    """Members that a sweep has simulated.

    - `num`: how many were drawn; `seed`: what they follow from.
    - `read`: reads them. Training with this number and seed would simulate the same
        members: to the last bit, on the same kind of device with the same versions of
        packages.
    """

    num: int
    seed: int
    read: Callable[[], T]
