"""Work that takes longer than a click: one job at a time, the others wait."""

import collections
import enum
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from dicjax._core import advice_of, in_words, Pace, Remedy, Stage
from dicjax.generation import Cancelled


LOG = logging.getLogger("dicjax.app")


class State(enum.Enum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"  # with nothing to show; else it is done
    REFUSED = "refused"  # for a reason that the user can do something about
    FAILED = "failed"  # for one that is ours

    @property
    def is_over(self) -> bool:
        return self not in (State.WAITING, State.RUNNING)


class Job:
    """One piece of work and what has become of it."""

    def __init__(self, name: str, title: str, order: Any = None):
        self.name = name  # of the folder that it makes
        self.title = title
        self.order = order
        self.state = State.WAITING
        self.message = ""
        self.remedies: tuple[Remedy, ...] = ()  # what may help where it was refused
        self.notes: list[str] = []
        self.made: Any = None  # what could not be written yet
        self.pace = Pace()
        self.submitted = time.time()
        self.started: float | None = None
        self.finished: float | None = None
        self._stop = threading.Event()

    def report(self, stage: Stage, done: int, total: int) -> None:
        """What the pipeline calls: notes its progress, and stops it if asked to."""
        self.pace.note(stage, done, total, time.time())
        if self._stop.is_set() and stage.name != "writing":
            raise Cancelled

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set() and not self.state.is_over

    def stop(self) -> None:
        """Asks it to end soon with what it has."""
        self._stop.set()

    @property
    def elapsed(self) -> float:
        """Seconds that it has run."""
        if self.started is None:
            return 0.0
        return (self.finished or time.time()) - self.started


class Jobs:
    """Runs jobs one after the other, in a thread of its own."""

    def __init__(
        self,
        work: Callable[[Job], None],
        log: str = "the log",
        prepare: Callable[[], None] = lambda: None,
    ):
        self.work = work
        self.prepare = prepare
        self.log = log
        self.known: dict[str, Job] = {}
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a job behind the others."""
        with self._changed:
            job.state = State.WAITING
            self.known[job.name] = job
            self._waiting.append(job)
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Takes a job out of the queue, or asks it to end with what it has found."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.state, job.message = State.CANCELLED, "Taken out before it began."
            else:
                job.stop()

    def num_ahead(self, job: Job) -> int:
        """How many jobs have to end before this one begins."""
        with self._changed:
            running = sum(x.state is State.RUNNING for x in self.known.values())
            return running + [*self._waiting].index(job) if job in self._waiting else 0

    def close(self, timeout: float) -> None:
        """Ends the running job with what it has found, and waits until that is kept."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        for job in self.known.values():
            job.stop()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self.prepare()
        except Exception:
            LOG.exception("Preparing failed; jobs will tell why")
        while True:
            with self._changed:
                while not (self._waiting or self._closing):
                    self._changed.wait()
                if self._closing:
                    return
                job = self._waiting.popleft()
                job.state, job.started = State.RUNNING, time.time()
            self._attempt(job)
            job.finished = time.time()

    def _attempt(self, job: Job) -> None:
        # The state last: whoever sees it expects the message.
        try:
            self.work(job)
            job.state = State.DONE
        except Cancelled:
            job.message = "Stopped before anything was found, so there is no result."
            job.state = State.CANCELLED
        except (ValueError, OSError) as error:
            advice = advice_of(error)
            job.message, job.remedies = advice.said(in_words), advice.remedies
            job.state = State.REFUSED
        except BaseException as error:  # whatever it is, the next job must run
            LOG.exception("Job %s failed", job.name)
            job.message = (
                f"This is a fault of dicjax, not of your recording ({error!r:.200}). "
                f"What happened is written in {self.log}; the app goes on."
            )
            job.state = State.FAILED
