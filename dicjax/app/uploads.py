"""Files that a browser sends: their names are not trusted, and they are not kept."""

import contextlib
import dataclasses
import hashlib
import pathlib
import re
import tempfile
from collections.abc import Iterator

from dicjax import readers
from dicjax.readers.common import MAX_BYTES as MAX_BYTES


# What neo reads beyond our own readers; that of others is told when they are read.
NEO = (".nex", ".plx", ".nev", ".smr", ".nix", ".abf", ".nsx", ".ntt", ".nse", ".edf")
SUFFIXES = (*readers.READERS, *NEO)
MAX_NAME = 60  # characters that are kept of a name


@dataclasses.dataclass(frozen=True)
class Upload:
    """A file in memory, by a name that can be trusted."""

    name: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Its checksum, as the manifest of a run states it."""
        return hashlib.sha256(self.content).hexdigest()

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[pathlib.Path]:
        """The file under its own name, for as long as readers need it."""
        with tempfile.TemporaryDirectory(prefix="upload-") as folder:
            path = pathlib.Path(folder) / self.name
            path.write_bytes(self.content)
            yield path


def accepted(name: str, content: bytes) -> Upload:
    """The upload, or a `ValueError` if it is nothing that dicjax reads."""
    name = safe_name(name)
    suffix = pathlib.PurePosixPath(name).suffix
    if suffix.lower() not in SUFFIXES:
        kind = f"Files of the kind {suffix}" if suffix else "Files without an ending"
        raise ValueError(
            f"{kind} cannot be read: export the spike times as one of "
            f"{', '.join(readers.READERS)}."
        )
    check_size(name, len(content))
    if not content:
        raise ValueError(f"{name} is empty: export the recording again.")
    return Upload(name, content)


def check_size(name: str, num_bytes: int) -> None:
    """Raises `ValueError` for more than memory is meant for."""
    if num_bytes > MAX_BYTES:
        raise ValueError(
            f"{safe_name(name)} has {num_bytes / 2**20:.0f} MB, more than the "
            f"{MAX_BYTES / 2**20:.0f} MB that are read: export only spike times."
        )


def safe_name(name: str) -> str:
    """The last part of a path of any system, of harmless characters."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, suffix = last.rpartition(".")
    stem, suffix = (stem, suffix) if dot and stem.strip(". ") else (last, "")
    stem = re.sub(r"[^\w\-+ ]", "_", stem).strip(" _")[:MAX_NAME] or "recording"
    suffix = re.sub(r"\W", "", suffix, flags=re.ASCII)[:8]
    return f"{stem}.{suffix}" if suffix else stem
