"""Where parts are computed: here, or by engines that others have built."""

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

from dicjax.sweeps.tasks import Outcome, work, work_through
from dicjax.sweeps.unit import Told
from dicjax.sweeps.worker_main import begin_worker, watch_parent


EVERY = 2.0  # seconds between looks at what is computed elsewhere


@runtime_checkable
class Executor(Protocol):
    """Computes parts of a sweep, in any order and anywhere.

    - `num_workers`: how many parts are computed at a time.
    """

    num_workers: int

    def run(
        self, folder: pathlib.Path, groups: Sequence[Sequence[int]], told: Told
    ) -> Generator[Outcome]:
        """Tells of each part when it is written, or why it is not.

        Parts of a group are computed by one worker, some of them together; if that
        dies, all of the group may be told of as lost. Closed early, it stops its
        workers.
        """
        ...


class Here:
    """This process, with all the devices that it has."""

    num_workers = 1

    def run(
        self, folder: pathlib.Path, groups: Sequence[Sequence[int]], told: Told
    ) -> Generator[Outcome]:
        """Computes parts, writing some while computing the next."""
        yield from work_through(folder, groups, told)


class Processes:
    """Processes of this machine, with a GPU each, or their share of the cores.

    - `timeout`: seconds after which a process that gets nowhere with a part is ended.
    """

    def __init__(self, num: int, timeout: float | None = None):
        self.num_workers, self.timeout = num, timeout

    def run(
        self, folder: pathlib.Path, groups: Sequence[Sequence[int]], told: Told
    ) -> Generator[Outcome]:
        """Hands groups to processes, which are replaced when they die."""
        from pebble import ProcessPool

        del told
        with contextlib.ExitStack() as stack:
            slots = stack.enter_context(tempfile.TemporaryDirectory())
            pool = ProcessPool(
                min(self.num_workers, len(groups)),
                context=multiprocessing.get_context("spawn"),  # JAX does not fork
                initializer=_begin_process,
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

    - `address`: of a scheduler, as "tcp://host:8786"; or "local:4" for four processes
        of this machine.
    - `timeout`: as that of [`dicjax.sweeps.executors.Processes`][]; workers need a
        nanny, which they have by default, to be started again.
    """

    def __init__(self, address: str, timeout: float | None = None):
        kind, _, num = address.partition(":")
        self.local = int(num) if kind == "local" and num.isdigit() else None
        if self.local == 0 or (kind == "local" and self.local is None):
            raise ValueError(
                f"{address!r} names no workers: give local:4 for four processes, or "
                "the address of a scheduler, as tcp://host:8786."
            )
        self.address, self.timeout = address, timeout
        self.num_workers = self.local or 1

    def run(
        self, folder: pathlib.Path, groups: Sequence[Sequence[int]], told: Told
    ) -> Generator[Outcome]:
        """Submits groups; Dask itself gives those of dead workers to others."""
        import distributed

        del told
        with contextlib.ExitStack() as stack:
            address, slots = self.address, ""
            if self.local is not None:
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
            if self.local is not None:
                client.register_plugin(_plugin(slots, self.local))
            else:
                self.num_workers = max(1, len(client.scheduler_info()["workers"]))
            futures = {
                client.submit(
                    work, str(folder), [list(group)], self.timeout, pure=False
                ): group
                for group in groups
            }
            yield from self._collect(client, futures)

    def _collect(self, client, futures) -> Generator[Outcome]:
        import distributed

        left = set(futures)
        while left:
            # A scheduler that died takes all futures with it.
            with contextlib.suppress(TimeoutError, CancelledError):
                distributed.wait(left, timeout=EVERY, return_when="FIRST_COMPLETED")
            if client.status != "running" or all(x.cancelled() for x in left):
                raise ConnectionError(
                    f"The scheduler of Dask at {self.address} is gone: start it again, "
                    "and then the same sweep, which goes on from where it was."
                )
            for future in [x for x in left if x.done()]:
                left.discard(future)
                yield from _outcomes(futures[future], future.result)
                future.release()


class Submitit:
    """Jobs of a cluster's scheduler, by submitit.

    - `num`: of jobs, which take equal shares.
    - `folder`: for scripts and logs.
    - `cluster`: "slurm", "local" for processes of this machine, or None for the one
        that is there.
    - `parameters`: of jobs, as submitit names them, such as `slurm_partition`.
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
        self.num_workers, self.folder, self.cluster = num, folder, cluster
        self.timeout = timeout
        self.parameters = parameters or {}

    def run(
        self, folder: pathlib.Path, groups: Sequence[Sequence[int]], told: Told
    ) -> Generator[Outcome]:
        """Submits a job for every share of the groups, and looks after them."""
        import submitit

        del told
        executor = submitit.AutoExecutor(self.folder, cluster=self.cluster)
        executor.update_parameters(**self.parameters)
        shares = [groups[i :: self.num_workers] for i in range(self.num_workers)]
        shares = [share for share in shares if share]
        args = str(folder.resolve()), shares, [self.timeout] * len(shares)
        jobs = dict(
            zip(
                executor.map_array(work, [args[0]] * len(shares), *args[1:]),
                [list(itertools.chain(*share)) for share in shares],
                strict=True,
            )
        )
        left = set(jobs)
        try:
            while left:
                for job in [x for x in left if x.done()]:
                    left.discard(job)
                    yield from _outcomes(jobs[job], job.result)
                if left:
                    time.sleep(EVERY)
        finally:
            for job in left:
                job.cancel()


def _outcomes(
    group: Sequence[int], result: Callable[[], list[Outcome]]
) -> list[Outcome]:
    """What came of a group, if need be that its worker was lost."""
    try:
        return result()
    except Exception as error:
        text = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {text[0] if text else 'no more is known'}"
        return [(shard, f"its worker was lost ({reason})") for shard in group]


def _begin_process(slots: str, num: int) -> None:
    watch_parent()
    begin_worker(slots, num)


def _local_cluster(num: int) -> Any:
    import distributed

    try:
        return distributed.LocalCluster(
            n_workers=num,
            threads_per_worker=1,
            dashboard_address=None,  # pyright: ignore[reportArgumentType]
            silence_logs=logging.ERROR,
        )
    except RuntimeError as e:  # whose workers were killed before they answered
        raise ConnectionError(
            f"A cluster of Dask with local:{num} did not start ({e}): is there memory "
            "for so many workers? Run the sweep again, with fewer if need be."
        ) from e


def _plugin(slots: str, num: int):
    """Gives each worker of a local cluster its share of the machine."""
    import distributed

    class Slots(distributed.WorkerPlugin):
        name = "dicjax-slots"

        def setup(self, worker) -> None:
            del worker
            begin_worker(slots, num)

    return Slots()
