"""Files that are whole or absent, their checksums, and the versions that made them."""

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.resources
import os
import pathlib
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from dicjax._core.advice import Advice, Remedy


KEPT = "dicjax_kept"  # attribute of an error: where a part of the results is
KEPT_OF_NAME = 48  # characters of a name that temporary names keep
TRIED_BYTES = 1 << 16  # written to see whether a disk takes anything
PACKAGES = ("dicjax", "jax", "jaxlib", "equinox", "numpy", "pyarrow")


def versions(*others: str) -> dict[str, str]:
    """Versions of the packages on which results depend, and of `others`."""
    return {name: _version(name) for name in (*PACKAGES, *others)}


def _version(name: str) -> str:
    if name == "dicjax":  # which may be a checkout that is not installed
        return sys.modules[name].__version__
    return importlib.metadata.version(name)


def beside(path: pathlib.Path, kind: str) -> pathlib.Path:
    """A hidden name beside `path` that nothing has, and that is never too long."""
    return path.with_name(f".{path.name[:KEPT_OF_NAME]}.{uuid.uuid4().hex[:8]}.{kind}")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write a file to, which takes the place of `path` once it is written.

    If anything goes wrong before, `path` stays as it was.
    """
    partial = beside(path, "partial")
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
    partial = beside(path, "partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        _take_the_place(partial, path)
    finally:
        _remove(partial)


def _take_the_place(partial: pathlib.Path, path: pathlib.Path) -> None:
    """Moves a file or folder to `path`, and removes what was there before."""
    if not partial.is_dir():
        os.replace(partial, path)
        return
    old = beside(path, "old")
    if path.exists():
        path.rename(old)
    try:
        partial.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    _remove(old)


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # which names can raise, too
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


class Rescued(OSError):
    """Results that could not go where they should, and are kept elsewhere.

    - `place`: where they are.
    """

    def __init__(self, path: pathlib.Path, place: pathlib.Path, reason: str):
        super().__init__(
            f"{path} could not be written ({reason.rstrip('.')}). Nothing is lost: the "
            f"results are in {place}."
        )
        self.place = place


def check_destination(path: pathlib.Path) -> None:
    """Raises `ValueError` unless something can be written at `path`, by trying it.

    Nothing is left behind, and what is at `path` stays.
    """
    path = path.absolute()
    partial, made = beside(path, "partial"), []
    try:
        made = [x for x in path.parents if not x.exists()]
        partial.mkdir(parents=True)
        tried = partial / "tried"
        with tried.open("wb") as file:
            file.write(bytes(TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        tried.unlink()
        if not path.exists():
            path.mkdir()  # its name may be too long
            path.rmdir()
        elif path.is_dir() and not any(path.iterdir()):
            os.replace(partial, path)  # a folder that is mounted cannot be replaced
    except (OSError, ValueError) as error:
        message = (
            f"{path} cannot be written ({reason_of(error)}): choose another place by "
        )
        raise ValueError(Advice(message, Remedy("out"), ".")) from error
    finally:
        _remove(partial)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def deliver(
    path: pathlib.Path,
    write: Callable[[pathlib.Path], object],
    check: Callable[[], object] = lambda: None,
    *,
    is_folder: bool = True,
    rescue: bool = True,
) -> None:
    """Makes a folder or a file, whole or not at all, without losing it.

    `write` fills a new folder or writes a file, which takes the place of `path` unless
    `check` raises `ValueError` at the end. If it may not or cannot, as on a full disk,
    results are kept beside it or else in the temporary directory, and `Rescued` says
    where; without `rescue`, the caller has another way. If `write` fails for another
    reason than the disk, what it has written is kept at the path in the attribute
    `KEPT` of the error.
    """
    path = path.absolute()
    ending = "" if is_folder else path.suffix[:16]  # which writers may insist on
    partial, is_whole = beside(path, f"partial{ending}"), False
    try:
        try:
            _written(partial, write, is_folder)
            is_whole = True
            check()
            _take_the_place(partial, path)
        except (OSError, ValueError) as error:
            if not rescue or (not is_whole and not isinstance(error, OSError)):
                raise
            place = _rescue(path, partial if is_whole else None, write, is_folder)
            if place is None:
                raise
            raise Rescued(path, place, reason_of(error)) from error
    finally:
        _remove(partial)


def _written(path: pathlib.Path, write, is_folder: bool) -> None:
    """Writes a folder or a file anew; of a folder that fails, what is there is kept."""
    _remove(path)
    (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    try:
        write(path)
    except OSError:
        raise
    except Exception as error:
        if is_folder and any(path.iterdir()):
            kept = _rescue_names(path)[-1]
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(path, kept)
                setattr(error, KEPT, kept)
        raise


def _rescue(path: pathlib.Path, whole, write, is_folder) -> pathlib.Path | None:
    """Where results are kept that cannot be at `path`, or None if they are nowhere.

    They are moved there, if they are `whole` in some place, or else written anew.
    """
    for place in _rescue_names(path):
        try:
            if whole is not None:
                shutil.move(whole, place)
            else:
                _written(place, write, is_folder)
        except (OSError, shutil.Error):
            _remove(place)
        else:
            return place
    return None


def _rescue_names(path: pathlib.Path) -> list[pathlib.Path]:
    """Names that nothing has, beside `path` and in the temporary directory."""
    mark = uuid.uuid4().hex[:8]
    name = f"{path.stem.lstrip('.')[:KEPT_OF_NAME]}-rescued-{mark}{path.suffix[:8]}"
    return [path.with_name(name), pathlib.Path(tempfile.gettempdir(), name)]


def reason_of(error: BaseException) -> str:
    """Why something could not be written, in few words."""
    said = error.strerror if isinstance(error, OSError) else None
    return (said or str(error) or type(error).__name__).rstrip(".")


def optional_library(library: str, extra: str, use: str) -> Any:
    """An optional library; a `ValueError` that names its extra if it is not installed.

    `use` says what it is for, as a phrase such as "writes this file".
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ValueError(
            f'{library} is not installed, which {use}: pip install "dicjax[{extra}]".'
        ) from error


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


def write_csv(table: Any, sink: Any) -> None:
    """Writes a table of pyarrow as CSV, in which no text is a formula of spreadsheets.

    What they would compute gets an apostrophe before it, but for numbers.
    """
    import pyarrow as pa
    from pyarrow import compute, csv

    pc: Any = compute

    def plain(text: Any) -> Any:
        runs = pc.match_substring_regex(text, "^[=+@\t\r-]")
        is_number = pc.match_substring_regex(text, r"^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$")
        quoted = pc.binary_join_element_wise("'", text, "")
        return pc.if_else(pc.and_(runs, pc.invert(is_number)), quoted, text)

    columns = [plain(x) if pa.types.is_string(x.type) else x for x in table.columns]
    names = plain(pa.array(table.column_names, pa.string())).to_pylist()
    csv.write_csv(pa.table(columns, names=names), sink)
