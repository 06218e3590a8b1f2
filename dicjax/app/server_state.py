"""The state of the server: open recordings, jobs, and the folder of runs."""

import collections
import functools
import pathlib

from dicjax._core import is_first_run, shipped_path
from dicjax.app.jobs import Jobs
from dicjax.app.recordings import open_recording, Recording
from dicjax.app.runs import make
from dicjax.app.uploads import accepted, Upload
from dicjax.generation import infer, suit


MAX_OPEN = 8  # recordings kept in memory
EXAMPLE = "slow_burster.csv"
LOG_FILE = "dicjax-app.log"


class ServerState:
    """The state that all tabs of a server share."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.log = folder / LOG_FILE
        self.recordings: collections.OrderedDict[int, Recording] = (
            collections.OrderedDict()
        )
        self.is_first_run = is_first_run()
        work = functools.partial(make, folder=folder)
        self.jobs = Jobs(work, str(self.log), warm_up)

    def keep(self, recording: Recording) -> None:
        """Keeps a recording in memory, and drops the oldest if there are too many."""
        self.recordings[recording.number] = recording
        while len(self.recordings) > MAX_OPEN:
            self.recordings.popitem(last=False)


def warm_up() -> None:
    """Loads and compiles what every run needs, while users still look at spikes."""
    train = open_recording(example()).train
    infer([train], suit(train))


def example() -> Upload:
    """The example recording that dicjax ships."""
    path = shipped_path("examples", EXAMPLE)
    if path is None:
        raise ValueError(f"{EXAMPLE} is not installed: take a recording of yours.")
    return accepted({EXAMPLE: path.read_bytes()})
