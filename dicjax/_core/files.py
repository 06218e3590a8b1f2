"""Files that are whole or absent, their checksums, and the versions that made them."""

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


PACKAGES = ("dicjax", "jax", "jaxlib", "equinox", "diffrax", "numpy", "pyarrow")
HASHED_AT_ONCE = 1 << 22  # bytes


def versions() -> dict[str, str]:
    """Of the packages on which results may depend."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which takes the place of `path` once all is written.

    Whatever goes wrong before, `path` stays as it was.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def sha256(path: pathlib.Path) -> str:
    """The checksum of a file."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASHED_AT_ONCE):
            hasher.update(block)
    return hasher.hexdigest()
