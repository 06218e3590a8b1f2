"""Encoders on disk: a JSON header that people read, and arrays by Orbax."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.resources
import json
import pathlib
import shutil
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Float

from dicjax.atlas import Atlas
from dicjax.config import EncoderConfig
from dicjax.encoder import Encoder
from dicjax.models import MODELS


FORMAT = "dicjax-encoder"
VERSION = 1
PACKAGES = ("jax", "equinox", "numpy", "orbax-checkpoint")


class Checkpoint(eqx.Module):
    """A trained encoder with all that is needed to use it.

    - `encoder`: the network.
    - `ranks`: calibration of its regions; see [`dicjax.encoder.Posterior`][].
    - `atlas`: simulated members, to compare recordings with.
    - `header`: model, configuration, data, metrics, versions.
    """

    encoder: Encoder
    ranks: Float[np.ndarray, " levels"]
    atlas: Atlas
    header: dict[str, Any] = eqx.field(static=True)


def save_checkpoint(
    path: pathlib.Path,
    model: str,
    encoder: Encoder,
    ranks: Float[np.ndarray, " levels"],
    atlas: Atlas,
    about: dict[str, Any],
) -> None:
    """Writes a checkpoint folder, whole or not at all; an older one is replaced.

    `about` goes into the header as it is: how the data were made, metrics.
    """
    import orbax.checkpoint as ocp

    arrays = _arrays(encoder, ranks, atlas)
    config = dataclasses.asdict(encoder.config)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "config": config,
        "config_hash": _digest(json.dumps(config, sort_keys=True).encode()),
        "arrays_hash": _digest_arrays(arrays),
        "num_parameters": int(sum(x.size for x in _leaves(encoder))),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        **about,
    }
    partial = path.with_name(path.name + ".partial").absolute()
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(partial / "arrays", arrays)
    # It says where on this machine the folder was, which is nobody's business.
    (partial / "arrays" / "commit_success.txt").unlink(missing_ok=True)
    header["files_hash"] = _digest_files(partial / "arrays")
    (partial / "header.json").write_text(json.dumps(header, indent=2) + "\n")
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def load_checkpoint(path: pathlib.Path | str, model: str) -> Checkpoint:
    """Reads the checkpoint of a model.

    **Arguments:**

    - `path`: a folder that [`dicjax.checkpoint.save_checkpoint`][] wrote.
    - `model`: the name of the model it must be for.

    **Raises:**

    - `ValueError`: if the folder is not a checkpoint, is damaged, was made by another
        version of the format, or belongs to another model; the message says which.
    """
    path = pathlib.Path(path)
    header = _read_header(path)
    if header["model"] != model:
        raise ValueError(
            f"The checkpoint {path} is for the model {header['model']!r}, not for "
            f"{model!r}; choose that model or another checkpoint."
        )
    # Before anything is read: what storage layers make of damage is not for users.
    if _digest_files(path / "arrays") != header.get("files_hash"):
        raise ValueError(
            f"The checkpoint {path} is damaged: its arrays are not those that its "
            "header describes; copy or train it again."
        )
    arrays = _read_arrays(path)
    encoder = _skeleton(EncoderConfig(**header["config"]))
    shapes = [x.shape for x in _leaves(encoder)]
    leaves = [arrays["encoder"][f"{i:03}"] for i in range(len(arrays["encoder"]))]
    if shapes != [x.shape for x in leaves]:
        raise ValueError(
            f"The checkpoint {path} holds another network than its header describes; "
            "copy or train it again."
        )
    static = eqx.filter(encoder, eqx.is_array, inverse=True)
    structure = jax.tree.structure(eqx.filter(encoder, eqx.is_array))
    learned = jax.tree.unflatten(structure, [jax.numpy.asarray(x) for x in leaves])
    return Checkpoint(
        encoder=eqx.combine(learned, static),
        ranks=arrays["ranks"],
        atlas=Atlas(**arrays["atlas"]),
        header=header,
    )


def shipped_checkpoint(model: str) -> pathlib.Path:
    """The folder of the checkpoint that dicjax ships for `model`."""
    folder = _shipped(model)
    if folder is None:
        raise ValueError(
            f"dicjax ships no encoder for the model {model!r}; train one with `dicjax "
            f"train --model {model}` and name it with `--checkpoint`."
        )
    return folder


def _shipped(model: str) -> pathlib.Path | None:
    inside = pathlib.Path(str(importlib.resources.files("dicjax"))) / "checkpoints"
    beside = inside.parents[1] / "checkpoints"  # in a checkout
    for folder in (beside / model, inside / model):
        if (folder / "header.json").is_file():
            return folder
    return None


def shipped_models() -> tuple[str, ...]:
    """The models that dicjax ships a checkpoint for."""
    return tuple(name for name in MODELS if _shipped(name) is not None)


def _read_header(path: pathlib.Path) -> dict[str, Any]:
    try:
        header = json.loads((path / "header.json").read_text())
    except (OSError, ValueError) as e:
        raise ValueError(
            f"{path} is not a dicjax checkpoint: it has no readable header.json."
        ) from e
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is not a dicjax checkpoint: its header is foreign.")
    if header.get("version") != VERSION:
        raise ValueError(
            f"The checkpoint {path} has format version {header.get('version')}, but "
            f"this dicjax reads version {VERSION}; train it again."
        )
    config = header.get("config")
    digest = _digest(json.dumps(config, sort_keys=True).encode())
    if not isinstance(config, dict) or digest != header.get("config_hash"):
        raise ValueError(
            f"The header of the checkpoint {path} was edited: its configuration does "
            "not match its hash; restore it."
        )
    return header


def _read_arrays(path: pathlib.Path) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    folder = (path / "arrays").absolute()
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(folder).item_metadata
            as_numpy = lambda _: ocp.RestoreArgs(restore_type=np.ndarray)
            restore_args = jax.tree.map(as_numpy, dict(metadata))
            arrays = checkpointer.restore(folder, restore_args=restore_args)
    # Orbax raises whatever its storage layer does; all of it means the same here.
    except Exception as e:
        raise ValueError(
            f"The checkpoint {path} is damaged: its arrays cannot be read; copy or "
            "train it again."
        ) from e
    return jax.tree.map(np.asarray, arrays)


def _arrays(encoder, ranks, atlas) -> dict[str, Any]:
    return {
        "encoder": {f"{i:03}": np.asarray(x) for i, x in enumerate(_leaves(encoder))},
        "ranks": np.asarray(ranks),
        "atlas": {
            "g": atlas.g,
            "labels": atlas.labels,
            "features": atlas.features,
        },
    }


def _leaves(encoder: Encoder) -> list:
    return jax.tree.leaves(eqx.filter(encoder, eqx.is_array))


def _skeleton(config: EncoderConfig) -> Encoder:
    ranges = ((0.0, 1.0), (0.0, 1.0))
    return Encoder(config, *ranges, key=jr.key(0))


def _digest_files(folder: pathlib.Path) -> str:
    hasher = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        hasher.update(path.relative_to(folder).as_posix().encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:12]


def _digest_arrays(arrays: dict[str, Any]) -> str:
    # Keys as strings, and in order: restored dictionaries may come in another.
    flat, _ = jax.tree_util.tree_flatten_with_path(arrays)
    hasher = hashlib.sha256()
    for name, x in sorted((jax.tree_util.keystr(k), x) for k, x in flat):
        hasher.update(f"{name}{x.dtype}{x.shape}".encode())
        hasher.update(np.ascontiguousarray(x).tobytes())
    return hasher.hexdigest()[:12]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
