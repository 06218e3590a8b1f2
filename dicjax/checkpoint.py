"""Encoders on disk: a JSON header that people read, and arrays by Orbax.

A checkpoint holds an encoder, or an adapter that turns the encoder of another
checkpoint to its model, and beside it all else that `generate` needs.
"""

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
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dicjax.atlas import Atlas
from dicjax.calibration import Calibration
from dicjax.config import DensityConfig, EmulatorConfig, EncoderConfig
from dicjax.density import Density
from dicjax.emulator import Emulator
from dicjax.encoder import Encoder, make_scales
from dicjax.lora import adapter, attach, combine
from dicjax.models import MODELS
from dicjax.neuron import Neuron
from dicjax.neuron_files import load_neuron


FORMAT = "dicjax-encoder"
VERSION = 3
PACKAGES = ("jax", "equinox", "numpy", "orbax-checkpoint")
NEURON_FILE = "neuron.py"  # in the checkpoint of a model that does not ship
FOLDERS = ("encoder", "arrays")


class Checkpoint(eqx.Module):
    """A trained encoder with all that is needed to use it.

    - `encoder`: the network.
    - `calibration`: of its posteriors; see [`dicjax.calibration.Calibration`][].
    - `density`: of conductances; see [`dicjax.density.Density`][].
    - `emulator`: of members' activity; see [`dicjax.emulator.Emulator`][].
    - `atlas`: simulated members, to compare recordings with.
    - `neuron`: the model.
    - `header`: model, configuration, data, metrics, versions.
    """

    encoder: Encoder
    calibration: Calibration
    density: Density
    emulator: Emulator
    atlas: Atlas
    neuron: Neuron
    header: dict[str, Any] = eqx.field(static=True)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.header["model"]


@dataclasses.dataclass(frozen=True)
class Base:
    """What an adapter is attached to: the checkpoint that `model` ships with.

    - `rank`: of the adapter.
    - `encoder_hash`: of the encoder it was trained on, and needs.
    """

    model: str
    rank: int
    encoder_hash: str


def save_checkpoint(
    path: pathlib.Path,
    model: str,
    encoder: Encoder,
    calibration: Calibration,
    density: Density,
    density_config: DensityConfig,
    emulator: Emulator,
    emulator_config: EmulatorConfig,
    atlas: Atlas,
    about: dict[str, Any],
    *,
    base: Base | None = None,
    neuron_file: pathlib.Path | None = None,
) -> None:
    """Writes a checkpoint folder, whole or not at all; an older one is replaced.

    **Arguments:**

    - `encoder`: an encoder, or with `base` one with an adapter attached, of which only
        the adapter is kept.
    - `about`: goes into the header as it is: how the data were made, metrics.
    - `neuron_file`: the declaration of a model that does not ship, kept as a copy.
    """
    kept = encoder if base is None else adapter(encoder)
    rest = (calibration, density, emulator, atlas)
    config = {
        "encoder": dataclasses.asdict(encoder.config),
        "density": dataclasses.asdict(density_config)
        | {"free": list(density.free), "num_context": density.context_center.size},
        "emulator": dataclasses.asdict(emulator_config),
        "base": None if base is None else dataclasses.asdict(base),
        "neuron_file": None if neuron_file is None else _digest_file(neuron_file),
    }
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "config": config,
        "config_hash": _digest(json.dumps(config, sort_keys=True).encode()),
        "encoder_hash": encoder_hash(kept),
        "num_parameters": int(sum(x.size for x in _leaves(kept))),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        **about,
    }
    partial = path.with_name(path.name + ".partial").absolute()
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tree in zip(FOLDERS, (kept, rest), strict=True):
        _write_arrays(partial / name, _leaves(tree))
    if neuron_file is not None:
        shutil.copyfile(neuron_file, partial / NEURON_FILE)
    header["files_hash"] = _digest_files(partial)
    (partial / "header.json").write_text(json.dumps(header, indent=2) + "\n")
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def load_checkpoint(path: pathlib.Path | str, model: str | None = None) -> Checkpoint:
    """Reads a checkpoint.

    **Arguments:**

    - `path`: a folder that [`dicjax.checkpoint.save_checkpoint`][] wrote.
    - `model`: the name of the model it must be for, if that matters.

    **Raises:**

    - `ValueError`: if the folder is not a checkpoint, is damaged, was made by another
        version of the format, belongs to another model, or adapts an encoder other than
        the one that ships; the message says which.
    """
    path = pathlib.Path(path)
    header = _read_header(path)
    if model is not None and header["model"] != model:
        raise ValueError(
            f"The checkpoint {path} is for the model {header['model']!r}, not for "
            f"{model!r}; choose that model or another checkpoint."
        )
    # Before anything is read: what storage layers make of damage is not for users.
    if _digest_files(path) != header.get("files_hash"):
        raise ValueError(
            f"The checkpoint {path} is damaged: its files are not those that its "
            "header describes; copy or train it again."
        )
    neuron = _neuron(path, header)
    encoder, *rest = _skeleton(header["config"], neuron)
    encoder = _filled(encoder, _read_arrays(path / "encoder"), path)
    if header["config"]["base"] is not None:
        encoder = _on_base(encoder, Base(**header["config"]["base"]), path)
    rest = _filled(tuple(rest), _read_arrays(path / "arrays"), path)
    return Checkpoint(encoder, *rest, neuron=neuron, header=header)


def shipped_checkpoint(model: str) -> pathlib.Path:
    """The folder of the checkpoint that dicjax ships for `model`."""
    folder = _shipped(model)
    if folder is None:
        raise ValueError(
            f"dicjax ships no encoder for the model {model!r}; make one with `dicjax "
            f"adapt {model} --out FOLDER` and name it with `--model FOLDER`."
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


def find_neuron(name: str) -> tuple[Neuron, pathlib.Path | None]:
    """The neuron of a model's name, of a file that declares one, or of a checkpoint.

    With it comes the file of its declaration, for a model that does not ship. Raises
    `ValueError` where there is none, or where it fails a physical check.
    """
    if name in MODELS:
        return MODELS[name](), None
    path = pathlib.Path(name)
    if is_checkpoint(path):
        file = path / NEURON_FILE
        return load_checkpoint(path).neuron, file if file.exists() else None
    if path.suffix == ".py":
        return load_neuron(path), path
    raise ValueError(
        f"There is no model {name!r}; choose one of {', '.join(MODELS)}, a Python file "
        "that declares a neuron, or the folder of a checkpoint."
    )


def is_checkpoint(path: pathlib.Path | str) -> bool:
    """Whether this names a folder that looks like a checkpoint."""
    return (pathlib.Path(path) / "header.json").is_file()


def encoder_hash(encoder: Encoder) -> str:
    """Tells encoders with other weights apart."""
    hasher = hashlib.sha256()
    for leaf in _leaves(encoder):
        hasher.update(f"{leaf.dtype}{leaf.shape}".encode())
        hasher.update(np.ascontiguousarray(leaf).tobytes())
    return hasher.hexdigest()[:12]


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


def _neuron(path, header) -> Neuron:
    if header["config"]["neuron_file"] is not None:
        return load_neuron(path / NEURON_FILE)
    if header["model"] not in MODELS:
        raise ValueError(
            f"The checkpoint {path} is for the model {header['model']!r}, which this "
            f"dicjax does not have, only {', '.join(MODELS)}."
        )
    return MODELS[header["model"]]()


def _skeleton(config, neuron):
    """What a checkpoint of this configuration holds, with no numbers in it yet."""
    network = EncoderConfig(**config["encoder"])
    encoder = Encoder(network, make_scales((0.0, 1.0), (0.0, 1.0)), key=jr.key(0))
    if config["base"] is not None:
        encoder = adapter(attach(jr.key(0), encoder, config["base"]["rank"]))
    shape = dict(config["density"])
    free, num_context = tuple(shape.pop("free")), shape.pop("num_context")
    density = Density(
        DensityConfig(**shape), free, len(neuron.channels), num_context, key=jr.key(0)
    )
    emulating = EmulatorConfig(**config["emulator"])
    emulator = Emulator(emulating, len(neuron.channels), key=jr.key(0))
    none = lambda *shape: np.zeros(shape, np.float32)
    calibration = Calibration(none(0, 0, 0), none(0))
    atlas = Atlas(none(0, 0), np.zeros(0, np.int32), none(0, 7))
    return encoder, calibration, density, emulator, atlas


def _filled(tree, arrays, path):
    """The same tree with these numbers; on the device where it has numbers there."""
    leaves, structure = jax.tree.flatten(eqx.filter(tree, _is_array))
    fits = len(leaves) == len(arrays) and all(
        old.shape == new.shape
        for old, new in zip(leaves, arrays, strict=True)
        if isinstance(old, jax.Array)
    )
    if not fits:
        raise ValueError(
            f"The checkpoint {path} holds another network than its header describes; "
            "copy or train it again."
        )
    as_is = lambda old, new: jnp.asarray(new) if isinstance(old, jax.Array) else new
    filled = [as_is(*pair) for pair in zip(leaves, arrays, strict=True)]
    rest = eqx.filter(tree, _is_array, inverse=True)
    return eqx.combine(jax.tree.unflatten(structure, filled), rest)


def _on_base(kept: Encoder, base: Base, path: pathlib.Path) -> Encoder:
    own = load_checkpoint(shipped_checkpoint(base.model), base.model)
    if own.header["encoder_hash"] != base.encoder_hash:
        raise ValueError(
            f"The checkpoint {path} adapts the encoder {base.encoder_hash} of "
            f"{base.model}, but {own.header['encoder_hash']} is the one that ships "
            "with this dicjax; adapt again."
        )
    return combine(kept, own.encoder)


def _write_arrays(folder: pathlib.Path, leaves: list) -> None:
    import orbax.checkpoint as ocp

    arrays = {f"{i:03}": np.asarray(x) for i, x in enumerate(leaves)}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder, arrays)
    # It says where on this machine the folder was, which is nobody's business.
    (folder / "commit_success.txt").unlink(missing_ok=True)


def _read_arrays(folder: pathlib.Path) -> list[np.ndarray]:
    import orbax.checkpoint as ocp

    folder = folder.absolute()
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(folder).item_metadata
            as_numpy = lambda _: ocp.RestoreArgs(restore_type=np.ndarray)
            restore_args = jax.tree.map(as_numpy, dict(metadata))
            arrays = checkpointer.restore(folder, restore_args=restore_args)
    # Orbax raises whatever its storage layer does; all of it means the same here.
    except Exception as e:
        raise ValueError(
            f"The checkpoint {folder.parent} is damaged: its arrays cannot be read; "
            "copy or train it again."
        ) from e
    return [np.asarray(arrays[name]) for name in sorted(arrays)]


def _leaves(tree) -> list:
    return jax.tree.leaves(eqx.filter(tree, _is_array))


def _is_array(x) -> bool:
    return isinstance(x, jax.Array | np.ndarray)


def _digest_files(folder: pathlib.Path) -> str:
    hasher = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == "header.json" or "__pycache__" in name:
            continue
        hasher.update(name.encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:12]


def _digest_file(path: pathlib.Path) -> str:
    return _digest(path.read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
