"""The start of a worker process: it takes a share of the machine.

It sets environment variables, and so must run before JAX looks for devices.
"""

import multiprocessing
import os
import pathlib
import threading
from multiprocessing.connection import wait

import portalocker


_held: list = []  # files that stay open as long as the process lives


def begin_worker(slots: str, num: int) -> None:
    """Takes one of `num` places on this machine: a GPU, or a share of the cores.

    A place is a lock on a file in the folder `slots`. The system frees it when the
    process ends, however it ends. The process that replaces it takes the place.
    """
    _watch_parent()
    place = _take(pathlib.Path(slots), num)
    num_gpus = len(list(pathlib.Path("/proc/driver/nvidia/gpus").glob("*")))
    all_gpus = ",".join(map(str, range(num_gpus)))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", all_gpus)
    gpus = [x for x in devices.split(",") if x]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
        if num > len(gpus):  # processes on one GPU share its memory
            share = 0.9 / -(-num // len(gpus))
            os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{share:.2f}")
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[place::num] or [cores[place % len(cores)]]
        os.sched_setaffinity(0, own)


def _watch_parent() -> None:
    """Ends this process when its parent dies, so that no process is left over."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch():
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _take(folder: pathlib.Path, num: int) -> int:
    for place in range(num):
        file = (folder / f"place-{place}").open("a")
        try:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.LockException:
            file.close()
            continue
        _held.append(file)
        return place
    return os.getpid() % num  # more processes than places, for a moment
