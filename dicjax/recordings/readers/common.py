"""Common parts of all readers: raw trains, limits and refusals."""

import contextlib
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Shaped

from dicjax._core import apart, Forbidden, limits_of, Overrun, sha256, tidy
from dicjax.recordings.readers.units import is_intervals, is_time, stated_unit


Read = TypeVar("Read")
Times = Float[np.ndarray, " spikes"]
Numbers = Float[np.ndarray, " numbers"]  # times, or intervals between them

MAX_BYTES = 2**28  # 33 million spikes; an eighth as many bytes of text
UNIT_BYTES = 4096  # assumed memory of a unit or a cell with few spikes
NO_SPAN = np.zeros(0)


class Train(NamedTuple):
    """The spikes of a unit as a file holds them, in the file's unit of time."""

    name: str
    times: Times
    unit: str | None = None  # unit of time, if the file states it
    usual_unit: str | None = None  # usual unit of time in this format
    span: Float[np.ndarray, " ends"] = NO_SPAN  # when it was observed: start, stop ...
    rate: float | None = None  # sampling rate in Hz, if the file states it
    caution: str = ""  # a reason in the file not to trust the train

    @property
    def is_whole(self) -> bool:
        """Whether times are whole numbers of a unit that nothing states."""
        return not (self.unit or self.usual_unit or np.any(self.times % 1))


def checksum(path: pathlib.Path) -> str:
    """The SHA-256 of a recording: of a file, or of the spikes in a Kilosort folder."""
    # The folder also holds the recording; these files are the spikes.
    files = sorted(path.glob("spike_*.npy")) if path.is_dir() else [path]
    return sha256(*files)


def check_file(path: pathlib.Path) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if not os.path.isfile(path):
        raise ValueError(f"{str(path)!r} is not a file: give the path of a recording.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path.name} is empty: export the recording again.")


class TooLarge(ValueError):
    """A file that needs more memory than readers allow."""


def unpacked_size(path: pathlib.Path, kind: str) -> int:
    """How many bytes the files of a zip have; of other files, their own."""
    with reading(path, kind), path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return path.stat().st_size
        with zipfile.ZipFile(file) as archive:
            return sum(info.file_size for info in archive.infolist())


def check_size(path: pathlib.Path, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise too_large(path)


def too_large(path: pathlib.Path) -> TooLarge:
    return TooLarge(f"{path.name} is too large: export only times, of fewer units.")


def read_apart(
    read: Callable[..., Read],
    path: pathlib.Path,
    *args: Any,
    remedy: str = "export only its spike times, as text",
) -> Read:
    """What `read(path, *args)` returns, in a process with limits of time and memory.

    Raises `ValueError` if it passes them, and what `read` raises.
    """
    try:
        return apart(read, limits_of(path), path, *args)
    except Overrun as error:
        raise _unread(path, error, remedy) from error


@contextlib.contextmanager
def reading(path: pathlib.Path, kind: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of libraries do not help a user
            yield
    except TooLarge:
        raise
    except MemoryError as error:
        raise too_large(path) from error
    except Forbidden as error:
        raise _unread(path, error, "save all that is needed in it") from error
    except Exception as error:  # damaged files also raise undocumented types
        raise ValueError(
            f"{path.name} is not {kind}, or is damaged: export it again."
        ) from error


def _unread(path: pathlib.Path, why: Exception, remedy: str) -> ValueError:
    return ValueError(f"{path.name} cannot be read, as {why}: {remedy}.")


def listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(tidy(name)[:40] for name in names[:10]) + more or "nothing"


def name_of(path: pathlib.Path, label: str, is_lone: bool) -> str:
    """The label of a train, or the file's name for a lone train labelled as times."""
    return path.stem if is_lone and is_time(label) else label


def is_vector(array: Any) -> bool:
    """Whether it is one row of numbers, along whichever axis."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        return False
    return array.ndim > 0 and array.size in (0, max(array.shape))


def vector(path: pathlib.Path, name: str, array: Shaped[np.ndarray, "..."]) -> Times:
    if not is_vector(array):
        raise ValueError(
            f"{path.name}: {tidy(name) or 'it'} is an array of {array.dtype} of shape "
            f"{array.shape}, not of times: save one row of numbers per unit."
        )
    return array.ravel().astype(float)


def labelled_train(
    path: pathlib.Path, name: str, label: str, numbers: Numbers, unit: str | None = None
) -> Train:
    """A train from numbers; their label states times or intervals, and the unit."""
    times = _since_first(path, label, numbers) if is_intervals(label) else numbers
    return Train(name, times, unit or stated_unit(label))


def _since_first(path: pathlib.Path, label: str, isi: Numbers) -> Times:
    bad = ~(isi > 0)
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"{path.name}: interval {i} of {tidy(label)[:40]!r} is {isi[i]}, but those "
            "between spikes must be positive: correct it, or name the column otherwise."
        )
    return np.append(0.0, np.cumsum(isi))


def span_of(starts: Numbers, ends: Numbers) -> Numbers:
    """When pynapple's epochs start and end, in turn."""
    return np.stack([starts, ends], axis=1).ravel()


def grouped(
    path: pathlib.Path, labels: Shaped[np.ndarray, " spikes"], times: Times
) -> dict[str, np.ndarray]:
    """Times grouped by their labels, in the order of labels."""
    if labels.shape != times.shape:
        raise ValueError(
            f"{path.name} has {times.size} spikes, and {labels.size} labels of their "
            "units: export it again."
        )
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    check_size(path, UNIT_BYTES * len(names))
    parts = np.split(times[order], starts[1:])  # of no spikes there is one part
    return dict(zip(map(str, names), parts, strict=False))
