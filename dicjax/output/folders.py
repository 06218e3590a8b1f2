"""Folders that dicjax writes: whole, and replaced only where nothing else is lost."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from dicjax._core import deliver, listed, sha256


FORMAT = "dicjax-population"  # marks folders with other results, too
VERSION = 1
MANIFEST = "manifest.json"
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # of systems, in any folder


def write_folder(
    folder: pathlib.Path | str,
    overwrite: bool,
    write: Callable[[pathlib.Path], object],
    *,
    rescue: bool = True,
) -> None:
    """Makes a folder whole or not at all.

    `write` fills a temporary folder beside it, which takes its place once complete. Its
    manifest then names every file with its checksum. With `overwrite`, a folder may be
    replaced that holds only files that its own manifest names; a `ValueError` refuses
    others. Parents are made as needed. If files cannot be in `folder`, they are kept
    elsewhere, and a `dicjax._core.Rescued` error says where; without `rescue`, they are
    not.
    """
    path = check_folder(folder, overwrite)

    def fill(partial: pathlib.Path) -> None:
        write(partial)
        _name_files(partial)

    check = lambda: check_folder(folder, overwrite)
    deliver(path, fill, check, rescue=rescue)


def check_folder(folder: pathlib.Path | str, overwrite: bool) -> pathlib.Path:
    """The absolute path of `folder`, or a `ValueError` if it may not be written."""
    path = pathlib.Path(folder).resolve()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{folder} is a file: choose another folder to write to.")
    if not path.exists() or not _files(path):
        return path
    about = read_manifest(path)
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{folder} holds files that dicjax did not write, which would be lost: "
            "choose a folder that is empty or new."
        )
    if not overwrite:
        raise ValueError(
            f"{folder} already holds results: choose another folder, or pass "
            "`--overwrite` to replace them."
        )
    named = about.get("files")
    if not isinstance(named, dict):
        raise ValueError(
            f"The manifest of {folder} does not name its files, so that nothing is "
            "replaced: choose another folder, or remove this one yourself."
        )
    if others := sorted(x for x in _files(path) if not _is_own(path, x, named)):
        raise ValueError(
            f"{folder} holds {listed(others)}, which dicjax did not write, or which "
            "changed since. To lose nothing, move such files away or choose another "
            "folder."
        )
    return path


def write_manifest(folder: pathlib.Path, about: Mapping[str, Any]) -> None:
    """Writes what a folder holds, in the format that marks it as written by dicjax."""
    text = json.dumps({"format": FORMAT, **about}, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of a folder, empty where there is none."""
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _name_files(folder: pathlib.Path) -> None:
    about = read_manifest(folder)
    names = sorted(x for x in _files(folder) if x != MANIFEST)
    write_manifest(folder, about | {"files": {x: sha256(folder / x) for x in names}})


def _files(folder: pathlib.Path) -> list[str]:
    """Everything in a folder but folders, and what systems leave there."""
    paths = (x for x in folder.rglob("*") if x.is_symlink() or not x.is_dir())
    return [x.relative_to(folder).as_posix() for x in paths if x.name not in LITTER]


def _is_own(folder: pathlib.Path, name: str, named: Mapping[str, str]) -> bool:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        return False
    return name == MANIFEST or (name in named and sha256(path) == named[name])
