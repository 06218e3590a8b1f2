"""What a worker does: computes parts, and writes one while it computes the next."""

import functools
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from dicjax.sweeps.jobs import Finish, Job, Told
from dicjax.sweeps.parts import Row
from dicjax.sweeps.plan import PLAN, Plan, read_plan


TIMED_OUT = 124  # exit status of a worker that gave itself up

Outcome = tuple[int, Row | str]  # a part's line of the manifest, or what went wrong


def work(folder: str, shards: Sequence[int], timeout: float | None) -> list[Outcome]:
    """Computes parts of the sweep in `folder`, in a process of its own.

    With `timeout`, in seconds for each part, the process ends itself when it gets
    nowhere, for others to take over.
    """
    return list(work_through(folder, shards, None, timeout))


def work_through(
    folder: str | pathlib.Path,
    shards: Sequence[int],
    told: Told = None,
    timeout: float | None = None,
) -> Iterator[Outcome]:
    """Computes parts, and tells of each when it is written, or why it could not be."""
    plan, job = _begun(str(folder), (pathlib.Path(folder) / PLAN).stat().st_mtime_ns)
    with ThreadPoolExecutor(1) as writer:
        pending: tuple[int, Future[Row]] | None = None
        for shard in shards:
            began = time.perf_counter()
            computed: Finish | str
            try:
                with _watched(timeout):
                    span = plan.spans[shard]
                    computed = job.compute(span.stage, span.first, span.num, told)
            except Exception as error:
                computed = _said(error)
            if pending is not None:
                yield _settled(*pending)
                pending = None
            if isinstance(computed, str):
                yield shard, computed
            else:
                written = writer.submit(_write, plan, shard, computed, began)
                pending = shard, written
        if pending is not None:
            yield _settled(*pending)


@functools.lru_cache(1)
def _begun(folder: str, planned: int) -> tuple[Plan, Job]:
    # Read once per process, unless the sweep is planned anew.
    del planned
    plan = read_plan(pathlib.Path(folder))
    return plan, plan.begin()


def _write(plan: Plan, shard: int, finish: Finish, began: float) -> Row:
    table, counts = finish()
    device = jax.local_devices()[0]
    about: dict[str, Any] = {
        "units": plan.spans[shard].num,
        "counts": counts,
        "device": device.device_kind,
        "seconds": round(time.perf_counter() - began, 3),
    }
    return plan.store.write(shard, table, about)


def _settled(shard: int, written: "Future[Row]") -> Outcome:
    try:
        return shard, written.result()
    except Exception as error:
        return shard, _said(error)


def _said(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500] if text else 'no more is known'}"


class _watched:
    """Ends the process if what is done inside takes longer than `timeout` seconds."""

    def __init__(self, timeout: float | None):
        self.timer = None
        if timeout is not None:
            # Compiled code cannot be interrupted otherwise.
            self.timer = threading.Timer(timeout, os._exit, (TIMED_OUT,))
            self.timer.daemon = True

    def __enter__(self):
        if self.timer is not None:
            self.timer.start()

    def __exit__(self, *_):
        if self.timer is not None:
            self.timer.cancel()
