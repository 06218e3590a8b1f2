"""Files that are whole or absent, their checksums, and the versions that made them."""

import contextlib
import hashlib
import importlib.metadata
import importlib.resources
import os
import pathlib
import shutil
import sys
import uuid
from collections.abc import Iterator


PACKAGES = ("dicjax", "jax", "jaxlib", "equinox", "numpy", "pyarrow")


def versions(*others: str) -> dict[str, str]:
    """Versions of the packages on which results depend, and of `others`."""
    return {name: _version(name) for name in (*PACKAGES, *others)}


def _version(name: str) -> str:
    if name == "dicjax":  # which may be a checkout that is not installed
        return sys.modules[name].__version__
    return importlib.metadata.version(name)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write a file to, which takes the place of `path` once it is written.

    If anything goes wrong before, `path` stays as it was.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder to fill, which takes the place of `path` once it is complete.

    Parents of `path` are made. If anything goes wrong, `path` stays as it was.
    """
    path = path.absolute()
    mark = uuid.uuid4().hex[:8]
    partial = path.with_name(f".{path.name}.{mark}.partial")
    old = path.with_name(f".{path.name}.{mark}.old")
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def sha256(*paths: pathlib.Path) -> str:
    """The checksum of a file, or of several as if they were one."""
    hasher = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: hasher)
    return hasher.hexdigest()


def digest(content: bytes, length: int = 12) -> str:
    """The first digits of a checksum, which differ between different contents."""
    return hashlib.sha256(content).hexdigest()[:length]


def shipped_path(*parts: str) -> pathlib.Path | None:
    """A file or folder that comes with dicjax, in an installation or in a checkout."""
    inside = pathlib.Path(str(importlib.resources.files("dicjax")))
    for folder in (inside, inside.parent):
        path = folder.joinpath(*parts)
        if path.exists():
            return path
    return None
