"""Processes that JAX has joined, and threads that work on devices.

The first of the processes does what is done only once.
"""

import contextlib
import itertools
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils


Made = TypeVar("Made")
Report = TypeVar("Report")
Work = Callable[[Any, Callable[[Report], None], threading.Event], None]
MOST_HELD = 2  # interruptions that wait
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


def reports(devices: list[Any], work: Work[Report]) -> Generator[Report]:
    """What workers report, as it comes in: one thread for each of `devices`.

    `work(device, report, stopped)` does the work of a thread, calls `report`, and ends
    soon after `stopped` is set. That happens when this generator is closed. An error in
    a thread is raised here.
    """
    stopped = threading.Event()
    reported: queue.SimpleQueue[tuple[Report] | BaseException | None] = (
        queue.SimpleQueue()
    )
    # The caller may have set the precision for its own thread only.
    x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore

    def run(device: Any) -> None:
        try:
            with jax.enable_x64(x64), jax.default_device(device):
                work(device, lambda report: reported.put((report,)), stopped)
            reported.put(None)
        except BaseException as error:
            reported.put(error)

    threads = [threading.Thread(target=run, args=(x,), daemon=True) for x in devices]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            report = reported.get()
            if isinstance(report, BaseException):
                raise report
            if report is None:
                running -= 1
            else:
                yield report[0]
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def handed_out(num: int) -> Callable[[int], range]:
    """A function that hands out the next of `num` things, at most so many at once.

    It may be called from any thread.
    """
    lock, first = threading.Lock(), 0

    def take(most: int) -> range:
        nonlocal first
        with lock:
            taken = range(first, min(first + most, num))
            first = taken.stop
            return taken

    return take


class Held:
    """Interruptions that wait until something is done.

    - `interrupted`: whether there was one.
    """

    def __init__(self):
        self.interrupted, self.is_released, self.num_held = False, False, 0

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """A part that an interruption ends at once, by `KeyboardInterrupt`."""
        self.is_released = True
        try:
            yield
        finally:
            self.is_released = False

    def __call__(self, number: int, frame: object) -> None:
        del number, frame
        self.interrupted = True
        self.num_held += not self.is_released
        if self.is_released or self.num_held > MOST_HELD:
            raise KeyboardInterrupt


@contextlib.contextmanager
def holding_interrupts() -> Iterator[Held]:
    """Lets Ctrl-C, and SIGTERM where it does the same, wait until a block is done.

    Whoever insists ends the block all the same. Threads other than the first get no
    signals.
    """
    held, old = Held(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            own = signal.getsignal(number)
            if own is signal.default_int_handler or isinstance(own, Held):
                old[number] = signal.signal(number, held)
    try:
        yield held
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
