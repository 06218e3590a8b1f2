"""How many members at once: enough for all devices, no more than memory holds."""

from collections.abc import Callable
from typing import TypeVar

import jax
import psutil

from dicjax.simulation import num_cores


SHARE = 0.25  # of the memory that is free, for arrays of one batch
GPU_SHARE = 0.5
# Simulated at once, for waiting for the last to cost a few per cent at most.
CORE_MEMBERS, GPU_MEMBERS = 32_768, 524_288

T = TypeVar("T")


class Batches:
    """Runs over members in batches, which are halved when memory runs out.

    - `bytes_each`: what a member is estimated to need.
    - `largest`: members of a batch; what fitted before is what is tried next.
    """

    def __init__(self, bytes_each: int):
        self.bytes_each = bytes_each
        self.largest: int | None = None

    def most(self) -> int:
        """Members that a batch may have."""
        if self.largest is None:
            self.largest = max(1, free_bytes() // self.bytes_each)
        return self.largest

    def run(self, run: Callable[[int, int], T], num: int) -> list[T]:
        """What `run(first, num)` gives, of one batch after the other."""
        done, results = 0, []
        while done < num:
            size = min(self.most(), num - done)
            try:
                results.append(run(done, size))
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self.largest = size // 2
            else:
                done += size
        return results


def num_worthwhile() -> int:
    """Members that are simulated at once with next to no lane idle in the end."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return CORE_MEMBERS * num_cores()
    return GPU_MEMBERS * len(devices)


def free_bytes() -> int:
    """Memory that a batch may take: of the host, or less where a device has less."""
    free = int(SHARE * psutil.virtual_memory().available)
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            unused = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
            free = min(free, int(GPU_SHARE * unused))
    return free


def is_out_of_memory(error: Exception) -> bool:
    """Whether host or device had too little memory."""
    # XLA has one class for all that goes wrong, and begins with a code that says what.
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and str(error).startswith("RESOURCE_EXHAUSTED")
    )
