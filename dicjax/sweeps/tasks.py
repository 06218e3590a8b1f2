"""The work of a worker: it computes parts, and writes some while it computes others."""

import dataclasses
import functools
import itertools
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from dicjax._core import Progress, Row, Stage
from dicjax.sweeps.plan import PLAN, Plan, read_plan
from dicjax.sweeps.unit import Finish, Job


TIMED_OUT = 124  # exit status of a worker that ended itself

Outcome = tuple[int, Row | str]  # a part's line of the manifest, or an error


def work(
    folder: str, groups: Sequence[Sequence[int]], timeout: float | None
) -> list[Outcome]:
    """Computes parts of the sweep in `folder`, in a separate process.

    `timeout` is in seconds for each part. If a part takes longer, the process ends
    itself, so that another process takes over.
    """
    return list(work_through(folder, groups, None, timeout))


def work_through(
    folder: str | pathlib.Path,
    groups: Sequence[Sequence[int]],
    on_progress: Progress | None = None,
    timeout: float | None = None,
) -> Iterator[Outcome]:
    """Computes parts, and yields each when it is written, or the reason why it failed.

    Parts of a group may be computed together, unless there is a `timeout` for each.
    """
    plan, job = _plan_and_job(
        str(folder), (pathlib.Path(folder) / PLAN).stat().st_mtime_ns
    )
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
                about = {"began": batch.began, "seconds": batch.seconds}
                pending = [
                    (shard, writer.submit(_write, plan, shard, finish, about))
                    for shard, finish in zip(batch.shards, batch.finishes, strict=True)
                ]
        yield from itertools.starmap(_outcome, pending)


def _together(
    plan: Plan, groups: Sequence[Sequence[int]], most: int
) -> Iterator[list[int]]:
    """Parts that are computed together: at most `most`, of one group and stage."""
    for group in groups:
        for _, of_stage in itertools.groupby(group, lambda i: plan.spans[i].stage):
            while some := list(itertools.islice(of_stage, most)):
                yield some


@dataclasses.dataclass(frozen=True)
class _Batch:
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
    parts = [(span.first, span.num) for span in spans]
    began, start = time.time(), time.perf_counter()
    finishes: Sequence[Finish] | str
    try:
        with _watched(timeout):
            on_progress = functools.partial(report, num)
            finishes = job.compute(spans[0].stage, parts, on_progress)
    except Exception as error:
        finishes = _error_line(error)
    # Outside the except block, where the error no longer holds on to failed arrays.
    if isinstance(finishes, str) and num > 1:
        for shard in shards:
            yield from _computed(plan, job, [shard], report, timeout)
    else:
        yield _Batch(shards, finishes, began, (time.perf_counter() - start) / num)


@functools.lru_cache(1)
def _plan_and_job(folder: str, planned: int) -> tuple[Plan, Job]:
    # Read once per process, unless the plan was written again at another time.
    del planned
    plan = read_plan(pathlib.Path(folder))
    return plan, plan.begin()


def _write(plan: Plan, shard: int, finish: Finish, computed: dict[str, float]) -> Row:
    start = time.perf_counter()
    table, counts = finish()
    device = jax.local_devices()[0]
    about: dict[str, Any] = {
        "units": plan.spans[shard].num,
        "counts": counts,
        "device": device.device_kind,
        "began": computed["began"],
        "seconds": round(computed["seconds"] + time.perf_counter() - start, 3),
    }
    return plan.store.write(shard, table, about)


def _outcome(shard: int, written: "Future[Row]") -> Outcome:
    try:
        return shard, written.result()
    except Exception as error:
        return shard, _error_line(error)


def _error_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500] if text else 'no more is known'}"


class _watched:
    """Ends the process if its block takes longer than `timeout` seconds."""

    def __init__(self, timeout: float | None):
        self.timer = None
        if timeout is not None:
            # Compiled code cannot be interrupted in another way.
            self.timer = threading.Timer(timeout, os._exit, (TIMED_OUT,))
            self.timer.daemon = True

    def __enter__(self):
        if self.timer is not None:
            self.timer.start()

    def __exit__(self, *_):
        if self.timer is not None:
            self.timer.cancel()
