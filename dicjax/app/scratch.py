"""A temporary folder of the app, which is removed when the app ends."""

import contextlib
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator


try:
    import fcntl
except ImportError:  # Windows, where open files cannot be deleted
    fcntl = None

PREFIX = ".temporary-"
LOCK = "in-use"
NEW = 60.0  # s; a newer folder may not be locked yet


@contextlib.contextmanager
def scratch(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Creates a temporary folder in `folder`, and removes it at the end.

    Temporary folders that other runs left behind are removed first.
    """
    for left in folder.glob(f"{PREFIX}*"):
        if not _in_use(left):
            shutil.rmtree(left, ignore_errors=True)
    own = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    try:
        # The system releases the lock when the process ends, however it ends.
        with (own / LOCK).open("w") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _in_use(folder: pathlib.Path) -> bool:
    lock = folder / LOCK
    try:
        if not lock.exists():
            return time.time() - folder.stat().st_mtime < NEW
        if fcntl is None:
            lock.unlink()
            return False
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except OSError:
        return True
