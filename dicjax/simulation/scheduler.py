"""Who simulates which member, where: lanes on every core or device, refilled."""

import contextlib
import functools
import math
import os
import queue
import threading
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dicjax.neurons import Neuron
from dicjax.simulation.integrator import LONGEST
from dicjax.simulation.lanes import Compiled, dispatch, Progress, Start, start, Steps
from dicjax.simulation.stimulus import AbstractStimulus, for_members


# Numbers of lanes that are compiled for, with the bursts in a dispatch: enough to make
# the host's share small, few enough to hear of progress.
CPU = {16: 512, 64: 256, 128: 128, 256: 64, 512: 64}
GPU = {1024: 64, 8192: 64, 65_536: 64, 524_288: 64}
# A step costs as much as this many lanes, besides its lanes.
CPU_OVERHEAD, GPU_OVERHEAD = 70, 50_000
# The busiest lane takes longer than the average one by this part of a simulation.
IMBALANCE = 0.6


class Job:
    """A population to simulate, and what has come of it so far.

    Its members are taken by workers, one per core or device; each advances a block of
    lanes and gives a lane that has finished to the next member.
    """

    def __init__(
        self,
        neuron: Neuron,
        g: np.ndarray,
        duration: float,
        discard: float,
        dt: float,
        stimulus: AbstractStimulus | None,
        save_every: float | None,
        max_spikes: int | None,
        V0: np.ndarray,
        Ca0: np.ndarray,
    ):
        dtype = g.dtype
        self.V0, self.Ca0 = V0.astype(dtype), Ca0.astype(dtype)
        self.neuron = neuron.with_dtype(dtype)
        self.program = Compiled(self.neuron)
        self.g = g
        self.duration, self.discard = duration, discard
        self.until = math.ceil(duration)
        longest = LONGEST * dt
        if stimulus is not None:
            longest = min(longest, stimulus.longest_step)
            stimulus = jax.tree.map(
                lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, stimulus
            )
        self.stimulus = stimulus
        self.steps = Steps(jnp.asarray(dt, dtype), jnp.asarray(longest, dtype))
        self.finite = np.zeros(len(g), bool)
        self.lost = np.zeros(len(g), bool)
        self.ts = self.V = None
        self.every = save_every
        if save_every is not None:
            first = math.floor(discard / save_every + 1e-9) + 1
            self.first_sample = first
            num = math.floor(duration / save_every + 1e-9) - first + 1
            self.ts = save_every * np.arange(first, first + num)
            self.V = np.full((len(g), num), np.nan, dtype)
        self.spikes = Spikes(len(g), dtype, max_spikes)
        self._next = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def run(self, on_progress: Callable[[int, int], None] | None) -> None:
        """Simulates all members, reporting (done, total) ms on the calling thread."""
        devices, num_lanes, num_bursts = _places(len(self.g))
        workers = [_Worker(self, device, num_lanes, num_bursts) for device in devices]
        reports = queue.SimpleQueue()
        threads = [
            threading.Thread(target=worker.run, args=(reports,), daemon=True)
            for worker in workers
        ]
        # One compilation before all start, or every thread would compile for itself.
        workers[0].compile()
        for thread in threads:
            thread.start()
        done, running = 0, len(threads)
        try:
            while running:
                report = reports.get()
                if isinstance(report, BaseException):
                    raise report
                if report is None:
                    running -= 1
                elif on_progress is not None:
                    done += report
                    on_progress(done, len(self.g) * self.until)
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    @property
    def stopped(self) -> bool:
        """Whether the workers should give up."""
        return self._stopped.is_set()

    def take(self, num: int) -> np.ndarray:
        """The next members to simulate, at most `num`."""
        with self._lock:
            first = self._next
            self._next = min(first + num, len(self.g))
            return np.arange(first, self._next)

    def begin(self, members: np.ndarray) -> Start:
        """Where these members start."""
        return Start(jnp.asarray(self.V0[members]), jnp.asarray(self.Ca0[members]))

    def add_spikes(self, members: np.ndarray, times: np.ndarray) -> None:
        """Keeps, of times listed member by member, those from discard to duration."""
        kept = (times >= self.discard) & (times <= self.duration)
        with self._lock:
            self.spikes.add(members[kept], times[kept])

    def add_trace(self, members: np.ndarray, times: np.ndarray, V: np.ndarray) -> None:
        """Keeps potentials of (members, steps), sampled between first and last step."""
        assert self.every is not None and self.V is not None
        low = np.ceil(times[:, 0] / self.every - 1e-9).astype(int)
        high = np.floor(times[:, -1] / self.every + 1e-9).astype(int)
        low = np.maximum(low, self.first_sample)
        high = np.minimum(high, self.first_sample + self.V.shape[1] - 1)
        num = np.maximum(high - low + 1, 0)
        row = np.repeat(np.arange(len(members)), num)
        sample = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num - low, num)
        # One interpolation for all members: each lies on a stretch of time of its own.
        apart = times.max(initial=0) + 1
        x = (times + apart * np.arange(len(members))[:, None]).ravel()
        at = sample * self.every + apart * row
        self.V[members[row], sample - self.first_sample] = np.interp(at, x, V.ravel())


def _on_gpu(job: Job) -> Callable:
    """The kernel, for what it can do, if there still is what it is compiled by."""
    if not _has_triton():
        return dispatch
    # Half a second to import, which nobody without a GPU should wait for.
    from dicjax.simulation.gpu_kernel import dispatch_fused, supports

    return dispatch_fused if supports(job.program, job.stimulus) else dispatch


@functools.cache
def _has_triton() -> bool:
    try:
        from jax.experimental.pallas.triton import CompilerParams, store
    except ImportError:  # JAX 0.11 has called it deprecated
        warnings.warn(
            "This JAX has no Pallas for Triton, so that GPUs are left to XLA, which is "
            "slower: JAX 0.10 to 0.12 have it.",
            stacklevel=2,
        )
        return False
    del CompilerParams, store
    return True


def _places(num_members: int) -> tuple[list[Any], int, int]:
    """Devices of the workers, and the lanes and bursts per dispatch of each."""
    default = jax.config.jax_default_device  # pyright: ignore
    devices = [default] if default is not None else jax.local_devices()
    kind = devices[0].platform
    sizes, overhead = (CPU, CPU_OVERHEAD) if kind == "cpu" else (GPU, GPU_OVERHEAD)
    # XLA alone keeps one core busy and part of another; a GPU would wait while the host
    # sorts spikes.
    per_device = max(1, num_cores() // len(devices)) if kind == "cpu" else 2
    devices = devices * per_device
    num_workers = min(len(devices), math.ceil(num_members / min(sizes)))
    share = num_members / num_workers

    def cost(lanes: int) -> float:
        return (overhead + lanes) * (max(1, share / lanes) + IMBALANCE)

    lanes = min(sizes, key=cost)
    return devices[:num_workers], lanes, sizes[lanes]


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Spikes:
    """Spike times of all members as they come in: one row each, padded with inf.

    - `rows`: times (ms), of a width that few programs have to be compiled for.
    - `num`: how many spikes every member fired, whether or not there was room.
    """

    def __init__(self, num_members: int, dtype: np.dtype, room: int | None):
        self.room = room
        self.rows = np.full((num_members, room or 64), np.inf, dtype)
        self.num = np.zeros(num_members, np.int32)

    def add(self, members: np.ndarray, times: np.ndarray) -> None:
        """Appends times, listed member by member, to their rows."""
        if not len(members):
            return
        begins = np.flatnonzero(np.diff(members, prepend=-1))
        who, num = members[begins], np.diff(begins, append=len(members))
        at = np.arange(len(members)) + np.repeat(self.num[who] - begins, num)
        self.num[who] += num.astype(self.num.dtype)
        needed = int(self.num[who].max())
        if self.room is None and needed > self.rows.shape[1]:
            wider = 1 << (needed - 1).bit_length()
            grown = np.full((len(self.rows), wider), np.inf, self.rows.dtype)
            grown[:, : self.rows.shape[1]] = self.rows
            self.rows = grown
        fits = at < self.rows.shape[1]
        self.rows[members[fits], at[fits]] = times[fits]


class _Worker:
    """Advances a block of lanes on one device until no member is left."""

    def __init__(self, job: Job, device: Any, num_lanes: int, num_bursts: int):
        self.job = job
        self.device = device
        self.x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore
        self.num_lanes, self.num_bursts = num_lanes, num_bursts
        begin = job.begin(np.zeros(num_lanes, int))
        shapes = jax.eval_shape(lambda: start(job.neuron, begin, job.steps))
        self.lanes = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        self.owner = np.full(num_lanes, -1)
        self.now = np.zeros(num_lanes, np.int64)  # whole ms, of every lane
        self.last_t = np.zeros(num_lanes)
        self.last_V = np.zeros(num_lanes, job.g.dtype)
        self.members: tuple[Any, ...] = ()  # what lanes are given, of their members

    def compile(self) -> None:
        """Compiles the dispatch, which with nobody in the lanes returns at once."""
        with self._context():
            self._dispatch(np.ones(self.num_lanes, bool))

    def run(self, reports: queue.SimpleQueue) -> None:
        """Works until done or stopped, and then reports `None`, or what went wrong."""
        try:
            with self._context():
                while not self.job.stopped and (fresh := self._refill()) is not None:
                    self._collect(self._dispatch(fresh), reports)
            reports.put(None)
        except BaseException as error:
            reports.put(error)

    @functools.cached_property
    def _advance(self):
        if self.device.platform == "cpu" or self.job.every is not None:
            return dispatch
        return _on_gpu(self.job)

    @contextlib.contextmanager
    def _context(self):
        # What the caller may have set for its own thread alone has to hold in this one.
        with jax.enable_x64(self.x64), jax.default_device(self.device):
            yield

    def _refill(self) -> np.ndarray | None:
        """Gives idle lanes to new members; which they are, or None if all is done."""
        (idle,) = np.nonzero(self.owner < 0)
        members = self.job.take(len(idle))
        fresh = np.zeros(self.num_lanes, bool)
        fresh[idle[: len(members)]] = True
        self.owner[fresh] = members
        self.now[fresh] = 0
        self.last_t[fresh] = 0
        self.last_V[fresh] = self.job.V0[members]
        return fresh if (self.owner >= 0).any() else None

    def _dispatch(self, fresh: np.ndarray) -> Progress:
        job = self.job
        if fresh.any():  # others stay what they are
            owner = np.maximum(self.owner, 0)
            stimulus = job.stimulus
            if stimulus is not None:
                stimulus = for_members(stimulus, jnp.asarray(owner))
            self.members = jnp.asarray(job.g[owner]), stimulus, job.begin(owner)
        g, stimulus, begin = self.members
        self.lanes, progress = self._advance(
            job.program,
            self.lanes,
            g,
            stimulus,
            job.steps,
            jnp.asarray(job.until, jnp.int32),
            jnp.asarray(self.owner >= 0),
            jnp.asarray(fresh),
            begin,
            self.num_bursts,
            job.every is not None,
        )
        return progress

    def _collect_trace(self, progress: Progress, count: int) -> None:
        by_lane = lambda x: np.moveaxis(np.asarray(x)[:count], 1, 0).reshape(
            self.num_lanes, -1
        )
        times = by_lane(progress.times) + self.now[:, None]
        times = np.column_stack((self.last_t, times))
        V = np.column_stack((self.last_V, by_lane(progress.V)))
        self.last_t, self.last_V = times[:, -1], V[:, -1]
        # Times stop being numbers where a member diverges.
        busy = (self.owner >= 0) & np.isfinite(times).all(axis=1)
        self.job.add_trace(self.owner[busy], times[busy], V[busy])

    def _collect(self, progress: Progress, reports: queue.SimpleQueue) -> None:
        job, lanes = self.job, self.lanes
        count = int(progress.count)
        spikes, ahead = progress.spikes, progress.ahead
        if self.device.platform == "cpu":
            by_lane = [np.asarray(x).T[:, :count] for x in (spikes, ahead)]
        else:
            # Fewer bytes to move; few sizes, since every slice is compiled.
            num_rows = min(1 << max(count - 1, 0).bit_length(), self.num_bursts)
            by_lane = [np.asarray(x[:num_rows].T)[:, :count] for x in (spikes, ahead)]
        spikes, ahead = by_lane
        lane, row = np.nonzero(np.isfinite(spikes))
        whole = self.now[lane] + ahead[lane, row]
        # How far a lane goes on after its time depends on its neighbours.
        kept = (self.owner[lane] >= 0) & (whole < job.until)
        lane, row, whole = lane[kept], row[kept], whole[kept]
        times = whole + spikes[lane, row].astype(np.float64)
        job.add_spikes(self.owner[lane], times)
        if progress.times is not None:
            self._collect_trace(progress, count)
        busy = self.owner >= 0
        before, after = self.now, np.asarray(lanes.whole, np.int64)
        finite = np.isfinite(np.asarray(lanes.y.V))
        done = busy & ((after >= job.until) | ~finite)
        job.finite[self.owner[done]] = finite[done]
        job.lost[self.owner[done]] = np.asarray(lanes.lost)[done]
        gone = np.minimum(after, job.until) - np.minimum(before, job.until)
        # A member that diverged counts as done.
        gone = np.where(done, job.until - np.minimum(before, job.until), gone)
        self.owner[done] = -1
        self.now = after
        reports.put(int(gone[busy].sum()))
