"""Files that a browser sends. Their names are not trusted, and they are not kept.

A recording is one file, or the few files of a Kilosort folder that are read. Either may
be in a zip. Other files of a zip are not unpacked, and none is unpacked to disk.
"""

import contextlib
import dataclasses
import functools
import io
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping

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
SORTING = "kilosort"  # name of a folder if the browser sends none


@dataclasses.dataclass(frozen=True)
class Upload:
    """A file, or a folder of files, in memory, under safe names."""

    name: str
    files: Mapping[str, bytes]

    @functools.cached_property
    def sha256(self) -> str:
        with self.on_disk() as path:
            return checksum(path)

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[pathlib.Path]:
        """The file or folder under its own name, for as long as readers need it."""
        with tempfile.TemporaryDirectory(prefix="upload-") as top:
            path = pathlib.Path(top) / self.name
            if [*self.files] == [self.name]:
                path.write_bytes(self.files[self.name])
            else:
                path.mkdir()
                for name, content in self.files.items():
                    (path / name).write_bytes(content)
            yield path


def accepted(files: Mapping[str, bytes], folder: str = "") -> Upload:
    """The upload of some files, or a `ValueError` if no reader reads them.

    `folder` is the name of their folder, if it is known.
    """
    check_size(folder or next(iter(files), ""), sum(map(len, files.values())))
    if len(files) > 1:
        parts = {name: files[name] for name in PARTS if name in files}
        return _sorting(folder or SORTING, parts)
    ((name, content),) = files.items()
    return _file(safe_name(name), content)


def check_size(name: str, num_bytes: int) -> None:
    """Raises `ValueError` if files, unpacked, are too large to keep in memory."""
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


def _file(name: str, content: bytes) -> Upload:
    suffix = pathlib.PurePosixPath(name).suffix
    if suffix.lower() == ".zip":
        return _unzipped(name, content)
    if suffix.lower() not in SUFFIXES:
        kind = f"Files of the kind {suffix}" if suffix else "Files without an ending"
        raise ValueError(
            f"{kind} cannot be read: export the spike times as one of "
            f"{', '.join(readers.READERS)}."
        )
    if not content:
        raise ValueError(f"{name} is empty: export the recording again.")
    return Upload(name, {name: content})


def _sorting(name: str, parts: Mapping[str, bytes]) -> Upload:
    if TIMES not in parts:
        raise ValueError(
            f"{TIMES} is missing. Several files together must be the files of "
            "Kilosort: give all of them, or one recording."
        )
    # A folder must not have the name of a file in it.
    return Upload(pathlib.PurePosixPath(safe_name(name)).stem, parts)


def _unzipped(name: str, content: bytes) -> Upload:
    """What a zip holds: the folder of Kilosort, or else one recording."""
    if content.count(ENTRY) > MAX_ENTRIES:
        raise ValueError(
            f"{name} holds over {MAX_ENTRIES:,} files: zip one recording alone."
        )
    with reading(pathlib.Path(name), "a zip"):
        archive = zipfile.ZipFile(io.BytesIO(content))
    paths = [pathlib.PurePosixPath(x) for x in archive.namelist()]
    folders = [path.parent for path in paths if path.name == TIMES]
    if len(folders) == 1:
        (folder,) = folders
        wanted = [x for x in paths if x.parent == folder and x.name in PARTS]
        own = folder.name.strip(".") or pathlib.PurePosixPath(name).stem
        return _sorting(own, _contents(name, archive, wanted))
    kinds = [path for path in paths if path.suffix.lower() in SUFFIXES]
    recordings = [path for path in kinds if not path.name.startswith(".")]
    if folders or len(recordings) != 1:
        found = f"{len(recordings) or 'no'} recordings"
        found = f"{len(folders)} folders of Kilosort" if folders else found
        raise ValueError(
            f"{name} holds {found}: zip one folder of Kilosort, or one recording."
        )
    ((inner, own),) = _contents(name, archive, recordings).items()
    return _file(safe_name(inner), own)


def _contents(name: str, archive: zipfile.ZipFile, paths) -> dict[str, bytes]:
    """Files of a zip, by the last parts of their paths."""
    found, total = {}, 0
    with reading(pathlib.Path(name), "a whole zip without a password"):
        for path in paths:
            # Sizes in a zip's directory may be wrong, so reading stops at the limit.
            with archive.open(str(path)) as file:
                found[path.name] = file.read(MAX_BYTES - total + 1)
            total += len(found[path.name])
            check_size(name, total)
    return found
