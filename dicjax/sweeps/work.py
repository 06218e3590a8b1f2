"""What a worker does: computes parts, and writes one while it computes the next."""

import functools
import itertools
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from dicjax.sweeps.job import Finish, Job, Told
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
        pending: list[tuple[int, Future[Row]]] = []
        for some in _together(plan, job, shards):
            for parts, computed, seconds in _computed(plan, job, some, told, timeout):
                yield from itertools.starmap(_settled, pending)
                pending = []
                if isinstance(computed, str):
                    yield from ((shard, computed) for shard in parts)
                    continue
                pending = [
                    (shard, writer.submit(_write, plan, shard, finish, seconds))
                    for shard, finish in zip(parts, computed, strict=True)
                ]
        yield from itertools.starmap(_settled, pending)


def _together(plan: Plan, job: Job, shards: Sequence[int]) -> Iterator[list[int]]:
    """Parts that are best computed at once; those of one stage."""
    for _, of_stage in itertools.groupby(shards, lambda i: plan.spans[i].stage):
        while some := list(itertools.islice(of_stage, job.at_once)):
            yield some


def _computed(
    plan: Plan, job: Job, shards: list[int], told: Told, timeout: float | None
) -> Iterator[tuple[list[int], Sequence[Finish] | str, float]]:
    """Parts, what was computed or why nothing was, and seconds for each.

    Where parts fail together, each is tried alone.
    """
    num, spans = len(shards), [plan.spans[shard] for shard in shards]
    parts = [(span.first, span.num) for span in spans]
    tell = told and (lambda done, total: told(num * done, total))
    began = time.perf_counter()
    try:
        with _watched(timeout and timeout * num):
            computed = job.compute(spans[0].stage, parts, tell)
    except Exception as error:
        if num > 1:
            for shard in shards:
                yield from _computed(plan, job, [shard], told, timeout)
            return
        computed = _said(error)
    yield shards, computed, (time.perf_counter() - began) / num


@functools.lru_cache(1)
def _begun(folder: str, planned: int) -> tuple[Plan, Job]:
    # Read once per process, unless the sweep is planned anew.
    del planned
    plan = read_plan(pathlib.Path(folder))
    return plan, plan.begin()


def _write(plan: Plan, shard: int, finish: Finish, seconds: float) -> Row:
    began = time.perf_counter()
    table, counts = finish()
    device = jax.local_devices()[0]
    about: dict[str, Any] = {
        "units": plan.spans[shard].num,
        "counts": counts,
        "device": device.device_kind,
        "seconds": round(seconds + time.perf_counter() - began, 3),
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
