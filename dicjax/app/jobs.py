"""Jobs of the app: one runs at a time, the others wait."""

import dataclasses
import enum
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from dicjax._core import advice_of, in_words, Pace, Remedy, Stage, stage_words
from dicjax.generation import Cancelled


LOG = logging.getLogger("dicjax.app")
LOG_FILE = "dicjax-app.log"


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


@dataclasses.dataclass(eq=False)
class Job:
    """One run of the pipeline, with its progress and its outcome."""

    name: str  # also of its folder
    title: str
    order: Any = None
    state: State = State.WAITING
    message: str = ""
    remedies: tuple[Remedy, ...] = ()  # what may help if it was refused
    notes: list[str] = dataclasses.field(default_factory=list)
    unsaved: Any = None  # a result that could not be written yet
    pace: Pace = dataclasses.field(default_factory=Pace)
    started: float | None = None
    finished: float | None = None
    _stop: threading.Event = dataclasses.field(default_factory=threading.Event)

    def report(self, stage: Stage, done: int, total: int) -> None:
        """Records the pipeline's progress; raises `Cancelled` after a stop."""
        self.pace.note(stage, done, total, time.time())
        if self._stop.is_set() and not self.is_writing:
            raise Cancelled

    @property
    def address(self) -> str:
        return f"/run/{self.name}"

    @property
    def is_writing(self) -> bool:
        return self.pace.stage.name == "writing"

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set() and not self.state.is_over

    def stop(self) -> None:
        """Requests that the job ends soon with the model neurons found until now."""
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
        self, work: Callable[[Job], None], prepare: Callable[[], None] = lambda: None
    ):
        self.work = work
        self.prepare = prepare
        self.known: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        job.state = State.WAITING
        self.known.pop(job.name, None)
        self.known[job.name] = job
        self._queue.put(job)

    def cancel(self, job: Job) -> None:
        """Removes a job from the queue, or stops it if it runs."""
        with self._starting:
            if job.state is State.WAITING:
                job.state, job.message = State.CANCELLED, "Removed before it began."
            else:
                job.stop()

    def num_ahead(self, job: Job) -> int:
        """The number of jobs that have to end before this one begins."""
        ahead = itertools.takewhile(lambda x: x is not job, [*self.known.values()])
        return sum(not x.state.is_over for x in ahead)

    def status(self, job: Job) -> str:
        """What a job does, as a sentence begins."""
        if job.state.is_over:
            return job.state.value
        if job.state is State.WAITING:
            num = self.num_ahead(job)
            others = "another run" if num == 1 else f"{num} other runs"
            return f"Waiting behind {others}" if num else "Getting ready"
        if job.is_stopping and not job.is_writing:
            return "Stopping: model neurons found until now are checked and kept"
        return stage_words(job.pace.stage)

    def close(self, timeout: float) -> None:
        """Stops the running job, and waits until its result is saved."""
        for job in [*self.known.values()]:
            self.cancel(job)
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self.prepare()
        except Exception:
            LOG.exception("Preparing failed; jobs will report why")
        while (job := self._queue.get()) is not None:
            with self._starting:
                if job.state is not State.WAITING:
                    continue
                job.state, job.started = State.RUNNING, time.time()
            self._attempt(job)
            job.finished = time.time()

    def _attempt(self, job: Job) -> None:
        # The state comes last: pages that see it also read the message.
        try:
            self.work(job)
            job.state = State.DONE
        except Cancelled:
            job.message = "Stopped before a model neuron was found. There is no result."
            job.state = State.CANCELLED
        except (ValueError, OSError) as error:
            advice = advice_of(error)
            job.message, job.remedies = advice.said(in_words), advice.remedies
            job.state = State.REFUSED
        except BaseException as error:  # after any error, the next job must run
            LOG.exception("Job %s failed", job.name)
            job.message = fault_words(error)
            job.state = State.FAILED


def fault_words(error: BaseException) -> str:
    return (
        f"This is a fault of dicjax, not of your recording ({error!r:.160}). "
        f"{LOG_FILE} in the folder of results describes it. The app goes on."
    )
