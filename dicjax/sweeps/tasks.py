"""The work of a worker: it computes parts, and writes some while it computes others."""

import contextlib
import functools
import itertools
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax

from dicjax._core import Row, Stage
from dicjax.sweeps.plan import PLAN, Plan, read_plan
from dicjax.sweeps.unit import error_line, Finish, Groups, Job, Outcome, Report


TIMED_OUT = 124  # exit status of a worker that ended itself


def work(folder: str, groups: Groups, timeout: float | None) -> list[Outcome]:
    """Computes parts of the sweep in `folder`, in a separate process.

    If a part takes longer than `timeout` (s), the process ends, and another takes over.
    """
    plan = open_plan(pathlib.Path(folder))
    return list(work_through(plan, plan.job, groups, timeout=timeout))


def open_plan(folder: pathlib.Path) -> Plan:
    """The plan of a sweep, read once per process unless it was written again."""
    return _open_plan(folder, (folder / PLAN).stat().st_mtime_ns)


@functools.lru_cache(1)
def _open_plan(folder: pathlib.Path, written: int) -> Plan:
    del written
    return read_plan(folder)


def work_through(
    plan: Plan,
    job: Job,
    groups: Groups,
    on_progress: Report = None,
    timeout: float | None = None,
) -> Iterator[Outcome]:
    """Computes parts, and yields each when it is written, or the reason why it failed.

    Parts of a group may be computed together, unless there is a `timeout` for each.
    """
    with ThreadPoolExecutor(1) as writer:
        pending: list[tuple[int, Future[Row]]] = []

        def report(num: int, stage: Stage, done: int, total: int) -> None:
            # Parts that are being written are already computed.
            if on_progress is not None:
                on_progress(stage, len(pending) * total + num * done, total)

        for some in _together(plan, groups, 1 if timeout else job.at_once):
            for batch in _computed(plan, job, some, report, timeout):
                yield from itertools.starmap(_outcome, pending)
                pending = []
                if isinstance(batch.finishes, str):
                    yield from ((shard, batch.finishes) for shard in batch.shards)
                    continue
                pending = [
                    (shard, writer.submit(_write, plan, shard, finish, batch))
                    for shard, finish in zip(batch.shards, batch.finishes, strict=True)
                ]
        yield from itertools.starmap(_outcome, pending)


def _together(plan: Plan, groups: Groups, most: int) -> Iterator[list[int]]:
    """Parts that are computed together: at most `most`, of one group and stage."""
    for group in groups:
        for _, of_stage in itertools.groupby(group, lambda i: plan.spans[i].stage):
            while some := list(itertools.islice(of_stage, most)):
                yield some


class _Batch(NamedTuple):
    """Parts that were computed together, or the error of one part.

    - `began`: start, in seconds since the epoch.
    - `seconds`: computing time of each part.
    """

    shards: list[int]
    finishes: Sequence[Finish] | str
    began: float
    seconds: float


def _computed(
    plan: Plan,
    job: Job,
    shards: list[int],
    report: Callable[[int, Stage, int, int], None],
    timeout: float | None,
) -> Iterator[_Batch]:
    """Computes parts together; if that fails, computes each alone."""
    num, spans = len(shards), [plan.spans[shard] for shard in shards]
    began, start = time.time(), time.perf_counter()
    try:
        with _ended_after(timeout):
            finishes = job.compute(spans, functools.partial(report, num))
    except Exception as error:
        finishes = error_line(error)
    # Outside the except block, where the error no longer holds on to failed arrays.
    if isinstance(finishes, str) and num > 1:
        for shard in shards:
            yield from _computed(plan, job, [shard], report, timeout)
    else:
        yield _Batch(shards, finishes, began, (time.perf_counter() - start) / num)


def _write(plan: Plan, shard: int, finish: Finish, batch: _Batch) -> Row:
    start = time.perf_counter()
    table, counts = finish()
    about = {
        "units": plan.spans[shard].num,
        "counts": counts,
        "device": jax.local_devices()[0].device_kind,
        "began": batch.began,
        "seconds": round(batch.seconds + time.perf_counter() - start, 3),
    }
    return plan.store.write(shard, table, about)


def _outcome(shard: int, written: "Future[Row]") -> Outcome:
    try:
        return shard, written.result()
    except Exception as error:
        return shard, error_line(error)


@contextlib.contextmanager
def _ended_after(timeout: float | None) -> Iterator[None]:
    """Ends the process if its block takes longer than `timeout` seconds."""
    if timeout is None:
        yield
        return
    # Compiled code cannot be interrupted in another way.
    timer = threading.Timer(timeout, os._exit, (TIMED_OUT,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
