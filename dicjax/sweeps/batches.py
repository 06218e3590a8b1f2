"""The size of batches: enough for all devices, and no more than memory holds."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import psutil

from dicjax.simulation import num_cores


SHARE = 0.25  # of the free memory, for the arrays of one batch
GPU_SHARE = 0.5
# Members simulated at once. In batches of this size, waiting for the slowest
# members costs a few per cent at most.
CORE_MEMBERS, GPU_MEMBERS = 32_768, 524_288

T = TypeVar("T")


@dataclasses.dataclass
class Batches:
    """Calls a function on batches of members, and halves them if memory runs out.

    - `largest`: size of the largest batch that is tried next.
    """

    largest: int

    def run(self, run: Callable[[int, int], T], num: int) -> list[T]:
        """Returns the results of `run(first, num)` for one batch after the other."""
        done, results = 0, []
        while done < num:
            size = min(self.largest, num - done)
            try:
                results.append(run(done, size))
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self.largest = size // 2
            else:
                done += size
        return results


def num_at_once() -> int:
    """The number of members that keeps all devices busy nearly until the end."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return CORE_MEMBERS * num_cores()
    return GPU_MEMBERS * len(devices)


def free_bytes() -> int:
    """Bytes that a batch may take: limited by the host and by every device."""
    free = int(SHARE * psutil.virtual_memory().available)
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            unused = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
            free = min(free, int(GPU_SHARE * unused))
    return free


def is_out_of_memory(error: Exception) -> bool:
    """Whether the host or a device ran out of memory."""
    # XLA raises one class for all errors; its message begins with a code.
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and str(error).startswith("RESOURCE_EXHAUSTED")
    )
