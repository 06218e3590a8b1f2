"""Jobs of the app: one runs at a time, the others wait."""

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
    CANCELLED = "cancelled"  # without a result; with a result it is done
    REFUSED = "refused"  # for a reason that the user can change
    FAILED = "failed"  # by an error of dicjax

    @property
    def is_over(self) -> bool:
        return self not in (State.WAITING, State.RUNNING)


class Job:
    """One run of the pipeline, with its progress and its outcome."""

    def __init__(self, name: str, title: str, order: Any = None):
        self.name = name  # also of its folder
        self.title = title
        self.order = order
        self.state = State.WAITING
        self.message = ""
        self.remedies: tuple[Remedy, ...] = ()  # what may help if it was refused
        self.notes: list[str] = []
        self.unsaved: Any = None  # a result that could not be written yet
        self.pace = Pace()
        self.submitted = time.time()
        self.started: float | None = None
        self.finished: float | None = None
        self._stop = threading.Event()

    def report(self, stage: Stage, done: int, total: int) -> None:
        """Records the pipeline's progress; raises `Cancelled` after a stop."""
        self.pace.note(stage, done, total, time.time())
        if self._stop.is_set() and stage.name != "writing":
            raise Cancelled

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set() and not self.state.is_over

    def stop(self) -> None:
        """Requests that the job ends soon with the members found until now."""
        self._stop.set()

    @property
    def elapsed(self) -> float:
        """Seconds that the job has run."""
        if self.started is None:
            return 0.0
        return (self.finished or time.time()) - self.started


class Jobs:
    """Runs jobs one after the other, in a separate thread."""

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
        """Removes a job from the queue, or stops it if it runs."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                job.state, job.message = State.CANCELLED, "Taken out before it began."
            else:
                job.stop()

    def num_ahead(self, job: Job) -> int:
        """The number of jobs that have to end before this one begins."""
        with self._changed:
            running = sum(x.state is State.RUNNING for x in self.known.values())
            return running + [*self._waiting].index(job) if job in self._waiting else 0

    def close(self, timeout: float) -> None:
        """Stops the running job, and waits until its result is saved."""
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
            LOG.exception("Preparing failed; jobs will report why")
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
        # The state comes last: pages that see it also read the message.
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
        except BaseException as error:  # after any error, the next job must run
            LOG.exception("Job %s failed", job.name)
            job.message = (
                f"This is a fault of dicjax, not of your recording ({error!r:.200}). "
                f"What happened is written in {self.log}; the app goes on."
            )
            job.state = State.FAILED
