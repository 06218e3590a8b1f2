"""The state of the server: open recordings, jobs, and the folder of runs."""

import functools
import io
import pathlib

from dicjax._core import is_first_run, shipped_path
from dicjax.app.inbox import Inbox
from dicjax.app.jobs import Job, Jobs, LOG_FILE
from dicjax.app.recordings import open_recording, Recording
from dicjax.app.runs import job_for, make, Order
from dicjax.app.uploads import accepted, Upload
from dicjax.generation import infer, suit


MAX_OPEN = 8  # recordings that are kept open
EXAMPLE = "slow_burster.csv"


class ServerState:
    """The state that all tabs of a server share."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.log = folder / LOG_FILE
        self.inbox = Inbox()
        self.recordings: dict[int, Recording] = {}
        self.is_first_run = is_first_run()
        self.jobs = Jobs(functools.partial(make, folder=folder), warm_up)

    def keep(self, recording: Recording) -> None:
        """Keeps a recording open, and drops the one that was longest unused."""
        self.recordings[recording.number] = recording
        for unused in [*self.recordings][:-MAX_OPEN]:
            del self.recordings[unused]

    def recording(self, number: int) -> Recording | None:
        """An open recording, which is used now; None if it is no longer open."""
        found = self.recordings.pop(number, None)
        if found is not None:
            self.recordings[number] = found
        return found

    def start(self, order: Order) -> Job:
        job = job_for(order, self.folder, self.jobs.known)
        self.jobs.submit(job)
        return job


def warm_up() -> None:
    """Loads and compiles what every run needs, while users still look at spikes."""
    train = open_recording(example()).train
    infer([train], suit(train))


def example() -> Upload:
    path = shipped_path("examples", EXAMPLE)
    if path is None:
        raise ValueError(f"{EXAMPLE} is not installed: take a recording of yours.")
    return accepted({EXAMPLE: io.BytesIO(path.read_bytes())})
