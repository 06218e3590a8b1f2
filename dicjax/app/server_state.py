"""What the server remembers: open recordings, jobs, and where runs are kept."""

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


class Desk:
    """One per server; tabs come and go."""

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
        """Remembers a recording, and forgets the oldest of too many."""
        self.recordings[recording.number] = recording
        while len(self.recordings) > MAX_OPEN:
            self.recordings.popitem(last=False)


def warm_up() -> None:
    """Reads and compiles what any run needs, while people still look at spikes."""
    train = open_recording(example()).train
    infer([train], suit(train))


def example() -> Upload:
    """The recording that ships."""
    path = shipped_path("examples", EXAMPLE)
    if path is None:
        raise ValueError(f"{EXAMPLE} is not installed: take a recording of yours.")
    return accepted({EXAMPLE: path.read_bytes()})
