"""Where parts are computed: in this process, or by an existing scheduler."""

import contextlib
import itertools
import logging
import multiprocessing
import pathlib
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import as_completed, CancelledError
from typing import Any, Protocol, runtime_checkable

from dicjax._core import optional_library
from dicjax.sweeps.tasks import open_plan, work, work_through
from dicjax.sweeps.unit import error_line, Groups, Outcome, Report
from dicjax.sweeps.worker_main import begin_worker


EVERY = 2.0  # seconds between checks of remote results
Results = Generator[Outcome]


@runtime_checkable
class Executor(Protocol):
    """Computes parts of a sweep, in any order and anywhere.

    - `num_workers`: number of parts that are computed at the same time.
    """

    num_workers: int

    def run(self, folder: pathlib.Path, groups: Groups, on_progress: Report) -> Results:
        """Yields each part when it is written, or the reason why it is not.

        One worker computes the parts of a group, some of them together. If the worker
        dies, the whole group may be reported as lost. If the generator is closed
        early, it stops its workers.
        """
        ...


class Here:
    """This process, with all its devices."""

    num_workers = 1

    def run(self, folder: pathlib.Path, groups: Groups, on_progress: Report) -> Results:
        """Computes parts, and writes some while it computes the next."""
        plan = open_plan(folder)
        yield from work_through(plan, plan.job, groups, on_progress)


class Processes:
    """Processes of this machine, each with a GPU or a share of the cores.

    - `timeout`: seconds for a part, after which its process is ended.
    """

    def __init__(self, num: int, timeout: float | None = None):
        self.num_workers, self.timeout = num, timeout

    def run(self, folder: pathlib.Path, groups: Groups, on_progress: Report) -> Results:
        """Gives groups to processes, and replaces processes that die."""
        from pebble import ProcessPool

        del on_progress
        with contextlib.ExitStack() as stack:
            slots = stack.enter_context(tempfile.TemporaryDirectory())
            pool = ProcessPool(
                min(self.num_workers, len(groups)),
                context=multiprocessing.get_context("spawn"),  # JAX cannot be forked
                initializer=begin_worker,
                initargs=(slots, self.num_workers),
            )
            stack.callback(pool.join)
            stack.callback(pool.stop)
            args = lambda group: (str(folder), [group], self.timeout)
            futures: dict[Any, Sequence[int]] = {
                pool.schedule(work, args=args(group)): group for group in groups
            }
            for future in as_completed(futures):
                yield from _outcomes(futures[future], future.result)


class Dask:
    """Workers of Dask.

    - `address`: address of a scheduler, such as "tcp://host:8786"; or "local:4" for
        four processes of this machine.
    - `timeout`: as in [`dicjax.sweeps.executors.Processes`][]. Workers need a nanny
        to be started again; they have one by default.
    """

    def __init__(self, address: str, timeout: float | None = None):
        kind, _, num = address.partition(":")
        self.local = int(num) if kind == "local" and num.isdigit() else 0
        if kind == "local" and not self.local:
            raise ValueError(
                f"{address!r} names no workers: give local:4 for four processes, or "
                "the address of a scheduler, as tcp://host:8786."
            )
        optional_library("distributed", "dask", "runs sweeps on Dask")
        self.address, self.timeout = address, timeout
        self.num_workers = self.local or 1

    def run(self, folder: pathlib.Path, groups: Groups, on_progress: Report) -> Results:
        """Submits groups; Dask itself gives the groups of dead workers to others."""
        import distributed

        del on_progress
        with contextlib.ExitStack() as stack:
            address, slots = self.address, ""
            if self.local:
                slots = stack.enter_context(tempfile.TemporaryDirectory())
                cluster = stack.enter_context(_local_cluster(self.local))
                address = cluster.scheduler_address
            try:
                client = stack.enter_context(distributed.Client(address, timeout=20))
            except (OSError, TimeoutError) as e:
                raise ValueError(
                    f"No scheduler of Dask answers at {address}: start one with `dask "
                    "scheduler`, and workers with `dask worker`."
                ) from e
            if self.local:
                client.register_plugin(_plugin(slots, self.local))
            else:
                self.num_workers = max(1, len(client.scheduler_info()["workers"]))
            submit = lambda group: client.submit(
                work, str(folder), [list(group)], self.timeout, pure=False
            )
            futures = {submit(group): group for group in groups}
            yield from _collected(futures, lambda: self._wait(client, futures))

    def _wait(self, client, futures) -> None:
        import distributed

        # If the scheduler dies, all futures are lost.
        with contextlib.suppress(TimeoutError, CancelledError):
            left = list(futures)
            distributed.wait(left, timeout=EVERY, return_when="FIRST_COMPLETED")
        if client.status != "running" or all(x.cancelled() for x in futures):
            raise ConnectionError(
                f"The scheduler of Dask at {self.address} is gone: start it again, "
                "and then the same sweep, which continues where it was."
            )


class Submitit:
    """Jobs that submitit sends to a cluster's scheduler.

    - `num`: number of jobs; they take equal shares.
    - `folder`: folder for scripts and logs.
    - `cluster`: "slurm", "local" for processes of this machine, or None for the
        scheduler that submitit finds.
    - `timeout`: as in [`dicjax.sweeps.executors.Processes`][].
    - `parameters`: parameters of jobs under submitit's names, such as
        `slurm_partition`.
    """

    def __init__(
        self,
        num: int,
        folder: pathlib.Path,
        *,
        cluster: str | None = None,
        timeout: float | None = None,
        parameters: dict[str, Any] | None = None,
    ):
        optional_library("submitit", "slurm", "sends sweeps to a scheduler")
        self.num_workers, self.folder, self.cluster = num, folder, cluster
        self.timeout, self.parameters = timeout, parameters or {}

    def run(self, folder: pathlib.Path, groups: Groups, on_progress: Report) -> Results:
        """Submits a job for every share of the groups, and collects the results."""
        import submitit

        del on_progress
        executor = submitit.AutoExecutor(self.folder, cluster=self.cluster)
        executor.update_parameters(**self.parameters)
        num = min(self.num_workers, len(groups))
        shares = [groups[i::num] for i in range(num)]
        same = [str(folder.resolve())] * num, shares, [self.timeout] * num
        jobs: dict[Any, Sequence[int]] = {
            job: list(itertools.chain(*share))
            for job, share in zip(executor.map_array(work, *same), shares, strict=True)
        }
        try:
            yield from _collected(jobs, lambda: time.sleep(EVERY))
        finally:
            for job in jobs:
                job.cancel()


def _collected(jobs: dict[Any, Sequence[int]], wait: Callable[[], None]) -> Results:
    """Takes jobs that are done out of `jobs`, and yields the outcomes of their parts.

    `wait` waits for some time, or until one of the jobs is done.
    """
    while jobs:
        wait()
        for job in [x for x in jobs if x.done()]:
            yield from _outcomes(jobs.pop(job), job.result)


def _outcomes(group: Sequence[int], take: Callable[[], list[Outcome]]) -> list[Outcome]:
    """The outcome of every part of a group, or an error if its worker was lost."""
    try:
        return take()
    except Exception as error:
        reason = f"its worker was lost ({error_line(error)})"
        return [(shard, reason) for shard in group]


def _local_cluster(num: int) -> Any:
    import distributed

    try:
        return distributed.LocalCluster(
            n_workers=num,
            threads_per_worker=1,
            dashboard_address=None,  # pyright: ignore[reportArgumentType]
            silence_logs=logging.ERROR,
        )
    except RuntimeError as e:  # the workers were killed before they answered
        raise ConnectionError(
            f"A cluster of Dask with local:{num} did not start ({e}). Its workers may "
            "lack memory: run the sweep again, with fewer workers if need be."
        ) from e


def _plugin(slots: str, num: int):
    """A plugin that gives each worker of a local cluster its share of the machine."""
    import distributed

    class Slots(distributed.WorkerPlugin):
        name = "dicjax-slots"

        def setup(self, worker) -> None:
            del worker
            begin_worker(slots, num)

    return Slots()
