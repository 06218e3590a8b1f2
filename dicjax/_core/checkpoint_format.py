"""Checkpoints on disk: a JSON header that people read, and arrays by Orbax."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dicjax._core.files import deliver, digest, shipped_path, versions
from dicjax._core.processes import holding_interrupts


HEADER = "header.json"
# Files that systems leave in folders that people open.
LITTER = {".ds_store", "thumbs.db", "desktop.ini", ".directory", "__pycache__"}


def write_checkpoint(
    path: pathlib.Path,
    format: str,
    version: int,
    config: dict[str, Any],
    trees: Mapping[str, PyTree],
    about: dict[str, Any],
    *,
    add: Callable[[pathlib.Path], None] | None = None,
) -> None:
    """Writes a checkpoint folder, whole or not at all.

    From `config` the trees without their numbers can be made again. Their arrays go to
    folders of these names, and `about` into the header. `add` writes further files. An
    older checkpoint is replaced if it is whole and nothing else is in its folder.
    Otherwise, or where `path` cannot be written, the new one is kept elsewhere, and a
    `dicjax._core.Rescued` error says where.
    """
    header = {
        "format": format,
        "version": version,
        "config": config,
        "config_hash": _digest_config(config),
        "versions": versions("orbax-checkpoint"),
    }
    header = header | about | header  # a header that was read does not replace this one

    def fill(folder: pathlib.Path) -> None:
        for name, tree in trees.items():
            named = {f"{i:03}": np.asarray(x) for i, x in enumerate(leaves(tree))}
            _save(folder / name, named)
            # It holds the path of the folder on this machine, which is private.
            (folder / name / "commit_success.txt").unlink(missing_ok=True)
        if add is not None:
            add(folder)
        header["files_hash"] = _digest_files(folder)
        header["header_hash"] = _digest_header(header)
        (folder / HEADER).write_text(json.dumps(header, indent=2) + "\n")

    with holding_interrupts():
        deliver(path, fill, lambda: _check_replaceable(path))


def _save(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        with _checkpointer() as writer:
            writer.save(folder, arrays)
    # Orbax raises whatever its storage layer does, such as `ValueError` on a full disk.
    except Exception as e:
        raise OSError(f"its arrays could not be stored: {e}") from e


def _check_replaceable(path: pathlib.Path) -> None:
    """Raises `ValueError` unless `path` is free, or a whole checkpoint that may go."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        header = json.loads((path / HEADER).read_text())
        is_whole = _digest_files(path) == header["files_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole or path.is_symlink():
        raise ValueError(f"{path} holds what dicjax did not write, or what was changed")


def read_header(
    path: pathlib.Path, format: str, version: int, keys: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The header of a checkpoint; raises `ValueError` if it is missing or wrong.

    It is wrong if it was edited, or lacks one of the `keys`.
    """
    try:
        header = json.loads((path / HEADER).read_text())
    except (OSError, ValueError) as e:
        raise ValueError(
            f"{path} is not a dicjax checkpoint: it has no readable {HEADER}."
        ) from e
    found = header.get("format") if isinstance(header, dict) else None
    if not str(found).startswith("dicjax-"):
        raise ValueError(f"{path} is not a dicjax checkpoint: its header is foreign.")
    if found != format:
        raise ValueError(
            f"{path} holds a {found}, where a {format} is needed: name another folder."
        )
    if header.get("version") != version:
        raise ValueError(
            f"The checkpoint {path} has format version {header.get('version')}, but "
            f"this dicjax reads version {version}; train it again."
        )
    config = header.get("config")
    stated = header.get("config_hash")
    if not isinstance(config, dict) or _digest_config(config) != stated:
        raise ValueError(
            f"The header of the checkpoint {path} was edited: its configuration does "
            "not match its hash; restore it."
        )
    lost = [repr(key) for key in keys if key not in header]
    if lost:
        raise ValueError(
            f"The header of the checkpoint {path} lacks {', '.join(lost)}: restore it."
        )
    # Older checkpoints have no such hash.
    if header.get("header_hash") not in (None, _digest_header(header)):
        raise ValueError(
            f"The header of the checkpoint {path} was edited: it does not match its "
            "hash; restore it."
        )
    return header


@contextlib.contextmanager
def described_by_header(path: pathlib.Path) -> Iterator[None]:
    """Turns what is missing from a configuration, or unknown, into a `ValueError`."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The header of the checkpoint {path} does not describe one of this "
            f"dicjax ({error}): train it again."
        ) from error


def check_files(path: pathlib.Path, header: dict[str, Any]) -> None:
    """Raises `ValueError` if a file of a checkpoint was changed, added or removed."""
    # Before anything is read: errors of storage layers about damage help no user.
    if _digest_files(path) != header.get("files_hash"):
        raise ValueError(
            f"The checkpoint {path} is damaged: its files are not those that its "
            "header describes; copy or train it again."
        )


def is_checkpoint(path: pathlib.Path | str) -> bool:
    """Whether this names a folder that looks like a checkpoint."""
    return (pathlib.Path(path) / HEADER).is_file()


def shipped(name: str) -> pathlib.Path | None:
    """The folder of the checkpoint of this name that dicjax ships, if it does."""
    # The name may be data, which must lead to nothing but what ships.
    if not re.fullmatch(r"[\w-]+(/[\w-]+)?", name):
        return None
    folder = shipped_path("checkpoints", name)
    return folder if folder is not None and is_checkpoint(folder) else None


def filled(tree: PyTree, folder: pathlib.Path) -> Any:
    """The tree with its numbers read from a folder.

    JAX arrays, or shapes in their place, must have the shapes of the arrays in the
    folder. NumPy arrays may have others.
    """
    arrays = _read_arrays(folder)
    described, rest = eqx.partition(tree, _is_array)
    old, structure = jax.tree.flatten(described)
    fits = len(old) == len(arrays) and all(
        a.shape == b.shape
        for a, b in zip(old, arrays, strict=True)
        if not isinstance(a, np.ndarray)
    )
    if not fits:
        raise ValueError(
            f"The checkpoint {folder.parent} holds another network than its header "
            "describes; copy or train it again."
        )
    as_is = lambda old, new: new if isinstance(old, np.ndarray) else jnp.asarray(new)
    new = [as_is(*pair) for pair in zip(old, arrays, strict=True)]
    return eqx.combine(jax.tree.unflatten(structure, new), rest)


def leaves(tree: PyTree) -> list:
    """All arrays of a tree."""
    return jax.tree.leaves(eqx.filter(tree, _is_array))


def _is_array(x) -> bool:
    return isinstance(x, jax.Array | jax.ShapeDtypeStruct | np.ndarray)


def _checkpointer() -> Any:
    """A checkpointer of Orbax that does not wait for other processes."""
    import orbax.checkpoint as ocp

    own = jax.process_index()
    prefix = f"dicjax-{own}"
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=prefix
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _read_arrays(folder: pathlib.Path) -> list[np.ndarray]:
    import orbax.checkpoint as ocp

    folder = folder.absolute()
    try:
        with _checkpointer() as reader:
            metadata = reader.metadata(folder).item_metadata
            as_numpy = lambda _: ocp.RestoreArgs(restore_type=np.ndarray)
            restore_args = jax.tree.map(as_numpy, dict(metadata))
            arrays = reader.restore(folder, restore_args=restore_args)
    # Orbax raises whatever its storage layer does; all of it means the same here.
    except Exception as e:
        raise ValueError(
            f"The checkpoint {folder.parent} is damaged: its arrays cannot be read; "
            "copy or train it again."
        ) from e
    return [np.asarray(arrays[name]) for name in sorted(arrays)]


def _digest_config(config: dict[str, Any]) -> str:
    return digest(json.dumps(config, sort_keys=True).encode())


def _digest_header(header: dict[str, Any]) -> str:
    rest = {name: value for name, value in header.items() if name != "header_hash"}
    return digest(json.dumps(rest, sort_keys=True).encode())


def _digest_files(folder: pathlib.Path) -> str:
    content = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = path.relative_to(folder)
        if place.as_posix() != HEADER and not any(map(_is_litter, place.parts)):
            content += [place.as_posix().encode(), path.read_bytes()]
    return digest(b"".join(content))


def _is_litter(name: str) -> bool:
    return name.casefold() in LITTER or name.startswith("._")
