"""Processes that JAX has joined; the first of them does what is done only once."""

import itertools
import pickle
from collections.abc import Callable
from typing import cast, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils


Made = TypeVar("Made")
PIECE = 1 << 26  # bytes that are sent at once
LONGEST = 7 * 24 * 3600 * 1000  # ms that the others wait
_numbers = itertools.count()


def is_first() -> bool:
    """Whether this process is the first, or the only one."""
    return jax.process_index() == 0


def from_first(make: Callable[[], Made]) -> Made:
    """What the first process makes, in every process.

    All processes have to call this in the same order. The others wait as long as it
    takes, and raise the errors that the first one raises.
    """
    if jax.process_count() == 1:
        return make()
    sent = _attempt(make) if is_first() else b""
    _wait()
    size = int.from_bytes(_broadcast(len(sent).to_bytes(8, "little")), "little")
    sent = sent or bytes(size)
    pieces = [sent[i : i + PIECE] for i in range(0, size, PIECE)]
    made, error = pickle.loads(b"".join(map(_broadcast, pieces)))
    if error is not None:
        raise error
    return made


def only_first(make: Callable[[], Made]) -> Made:
    """What the first process makes, in that process alone; None in the others.

    It need not be possible to send it. Errors are raised in every process.
    """
    made = []
    from_first(lambda: made.append(make()))
    return made[0] if made else cast(Made, None)


def _attempt(make: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((make(), None))
    except Exception as error:
        return pickle.dumps((None, error))


def _wait() -> None:
    """Waits for all processes; devices that wait for one another give up earlier."""
    from orbax.checkpoint.multihost import get_barrier_sync_fn

    wait = get_barrier_sync_fn()
    assert wait is not None, "there are several processes"
    wait(key=f"dicjax-{next(_numbers)}", timeout_ms=LONGEST)


def _broadcast(content: bytes) -> bytes:
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8))
    return np.asarray(sent).tobytes()
