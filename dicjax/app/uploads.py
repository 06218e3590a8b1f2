"""Files that a browser sends. Their names are not trusted.

A recording is one file, or the few files of a Kilosort folder that are read. Either may
be in a zip, of which other files are not unpacked. They are kept in a temporary folder,
for as long as the recording is open.
"""

import contextlib
import dataclasses
import functools
import io
import pathlib
import re
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO

from dicjax.recordings import (
    checksum,
    MAX_BYTES,
    PARTS,
    readers,
    reading,
    TIMES,
    TooLarge,
)


# Formats that neo reads and our own readers do not.
NEO = (".nex", ".plx", ".nev", ".smr", ".nix", ".abf", ".nsx", ".ntt", ".nse", ".edf")
SUFFIXES = (*readers.READERS, *NEO)
TOO_LARGE = (
    f"The app reads at most {MAX_BYTES / 2**20:.0f} MB, unpacked: export only spike "
    "times."
)
MAX_NAME = 60  # characters of a name
MAX_ENTRIES = 10_000  # in a zip
ENTRY = b"PK\x01\x02"  # signature of an entry in a zip's directory
PIECE = 2**20  # bytes that are copied at once
SORTING = "kilosort"  # name of a folder if the browser sends none


@dataclasses.dataclass(frozen=True, eq=False)
class Upload:
    """A file, or a folder of files, on disk under a safe name while it is in use."""

    name: str
    path: pathlib.Path

    def __post_init__(self):
        top = str(self.path.parent)
        weakref.finalize(self, shutil.rmtree, top, ignore_errors=True)

    @functools.cached_property
    def sha256(self) -> str:
        return checksum(self.path)


Files = Mapping[str, IO[bytes]]


def accepted(files: Files, folder: str = "") -> Upload:
    """The upload of some files, or a `ValueError` if no reader reads them.

    `folder` is the name of their folder, if it is known.
    """
    check_size(folder or next(iter(files), ""), sum(map(_size, files.values())))
    if len(files) > 1:
        parts = {name: files[name] for name in PARTS if name in files}
        return _sorting(folder or SORTING, parts)
    ((name, content),) = files.items()
    return _file(safe_name(name), content)


def check_size(name: str, num_bytes: int) -> None:
    """Raises `ValueError` if files, unpacked, are too large to read."""
    if num_bytes > MAX_BYTES:
        raise TooLarge(f"{safe_name(name)} is too large. {TOO_LARGE}")


def safe_name(name: str) -> str:
    """The last part of a path of any system, with harmless characters only."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, suffix = last.rpartition(".")
    stem, suffix = (stem, suffix) if dot and stem.strip(". ") else (last, "")
    stem = re.sub(r"[^\w\-+ ]", "_", stem).strip(" _")[:MAX_NAME] or "recording"
    suffix = re.sub(r"\W", "", suffix, flags=re.ASCII)[:8]
    return f"{stem}.{suffix}" if suffix else stem


def _file(name: str, content: IO[bytes]) -> Upload:
    suffix = pathlib.PurePosixPath(name).suffix
    if suffix.lower() == ".zip":
        return _unzipped(name, content)
    if suffix.lower() not in SUFFIXES:
        kind = f"Files of the kind {suffix}" if suffix else "Files without an ending"
        raise ValueError(
            f"{kind} cannot be read: export the spike times as one of "
            f"{', '.join(readers.READERS)}."
        )
    if not _size(content):
        raise ValueError(f"{name} is empty: export the recording again.")
    return _kept(name, {name: content})


def _sorting(name: str, parts: Files) -> Upload:
    if TIMES not in parts:
        raise ValueError(
            f"{TIMES} is missing. Several files together must be the files of "
            "Kilosort: give all of them, or one recording."
        )
    # A folder must not have the name of a file in it.
    return _kept(pathlib.PurePosixPath(safe_name(name)).stem, parts)


def _unzipped(name: str, content: IO[bytes]) -> Upload:
    """What a zip holds: the folder of Kilosort, or else one recording."""
    if _num_entries(content) > MAX_ENTRIES:
        raise ValueError(
            f"{name} holds over {MAX_ENTRIES:,} files: zip one recording alone."
        )
    with reading(pathlib.Path(name), "a zip"):
        archive = zipfile.ZipFile(content)
    paths = [pathlib.PurePosixPath(x) for x in archive.namelist()]
    folders = [path.parent for path in paths if path.name == TIMES]
    if len(folders) == 1:
        (folder,) = folders
        wanted = [x for x in paths if x.parent == folder and x.name in PARTS]
        own = folder.name.strip(".") or pathlib.PurePosixPath(name).stem
        with _contents(name, archive, wanted) as parts:
            return _sorting(own, parts)
    kinds = [path for path in paths if path.suffix.lower() in SUFFIXES]
    recordings = [path for path in kinds if not path.name.startswith(".")]
    if folders or len(recordings) != 1:
        found = f"{len(recordings) or 'no'} recordings"
        found = f"{len(folders)} folders of Kilosort" if folders else found
        raise ValueError(
            f"{name} holds {found}: zip one folder of Kilosort, or one recording."
        )
    with _contents(name, archive, recordings) as files:
        ((inner, own),) = files.items()
        return _file(safe_name(inner), own)


def _num_entries(content: IO[bytes]) -> int:
    """How many entries a zip may have, which are not listed to be counted."""
    content.seek(0)
    num, left = 0, b""
    while piece := content.read(PIECE):
        num += (left + piece).count(ENTRY)
        left = piece[1 - len(ENTRY) :]
    return num


@contextlib.contextmanager
def _contents(name: str, archive: zipfile.ZipFile, paths) -> Iterator[Files]:
    """Files of a zip, by the last parts of their paths, unpacked to disk."""
    total = 0
    with contextlib.ExitStack() as stack:
        found = {}
        with reading(pathlib.Path(name), "a whole zip without a password"):
            for path in paths:
                own = stack.enter_context(tempfile.TemporaryFile())
                found[path.name] = own
                # Sizes in a zip's directory may be wrong: reading stops at the limit.
                with archive.open(str(path)) as file:
                    while piece := file.read(PIECE):
                        total += len(piece)
                        check_size(name, total)
                        own.write(piece)
        yield found


def _size(content: IO[bytes]) -> int:
    return content.seek(0, io.SEEK_END)


def _kept(name: str, files: Files) -> Upload:
    """Files in a temporary folder: one of them as it is, several in a folder."""
    upload = Upload(name, pathlib.Path(tempfile.mkdtemp(prefix="upload-")) / name)
    folder = upload.path.parent
    if [*files] != [name]:
        folder = upload.path
        folder.mkdir()
    for own, content in files.items():
        content.seek(0)
        with (folder / own).open("xb") as file:
            shutil.copyfileobj(content, file, PIECE)
    return upload
