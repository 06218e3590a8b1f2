"""Encoders on disk: a JSON header that people read, and arrays by Orbax.

A checkpoint holds an encoder, or an adapter that turns the encoder of another
checkpoint to its model, and beside it all else that `generate` needs.
"""

import dataclasses
import pathlib
import shutil
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from dicjax._core import (
    Advice,
    check_files,
    described_by_header,
    digest,
    filled,
    is_checkpoint,
    leaves,
    read_header,
    Remedy,
    shipped,
    write_checkpoint,
)
from dicjax.inference.adapter import adapter, attach, combine
from dicjax.inference.calibration import Calibration
from dicjax.inference.config import DensityConfig, EmulatorConfig, EncoderConfig
from dicjax.inference.density import Density
from dicjax.inference.emulator import Emulator
from dicjax.inference.encoder import Encoder, make_scales
from dicjax.inference.library import Library
from dicjax.neurons import load_neuron, MODELS, Neuron


FORMAT = "dicjax-encoder"
VERSION = 3
NEURON_FILE = "neuron.py"  # a copy of what declares a model that does not ship


class Checkpoint(eqx.Module):
    """A trained encoder with all that is needed to use it.

    Posteriors of the encoder have a `calibration`, conductances a `density`, and the
    activity of members an `emulator`; recordings are compared with the `library`. The
    `header` says the model, its configuration, data, metrics and versions.
    """

    encoder: Encoder
    calibration: Calibration
    density: Density
    emulator: Emulator
    library: Library
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
    checkpoint: Checkpoint,
    *,
    base: Base | None = None,
    neuron_file: pathlib.Path | None = None,
) -> None:
    """Writes a checkpoint folder, whole or not at all; an older one is replaced.

    The checkpoint's header goes into the file's. What an adapter is attached to, its
    `base`, is not kept; a `neuron_file`, which declares a model of others, is copied,
    and never run unless it is named.
    """
    encoder, density = checkpoint.encoder, checkpoint.density
    kept = encoder if base is None else adapter(encoder)
    rest = (checkpoint.calibration, density, checkpoint.emulator, checkpoint.library)
    config = {
        "encoder": dataclasses.asdict(encoder.config),
        "density": dataclasses.asdict(density.config)
        | {"free": list(density.free), "num_context": density.context_center.size},
        "emulator": dataclasses.asdict(checkpoint.emulator.config),
        "base": base and dataclasses.asdict(base),
        "neuron_file": neuron_file and digest(neuron_file.read_bytes()),
    }
    about = {
        "model": checkpoint.neuron.name,
        "encoder_hash": encoder_hash(kept),
        "num_parameters": int(sum(x.size for x in leaves(kept))),
    }
    about = about | checkpoint.header | about  # what is written now is as it is now

    def add(folder):
        if neuron_file is not None:
            shutil.copyfile(neuron_file, folder / NEURON_FILE)

    trees: dict[str, PyTree] = {"encoder": kept, "arrays": rest}
    write_checkpoint(path, FORMAT, VERSION, config, trees, about, add=add)


def load_checkpoint(path: pathlib.Path | str, model: str | None = None) -> Checkpoint:
    """Reads a folder that `save_checkpoint` wrote, for `model` if that is given.

    A checkpoint is data, of which nothing is run. If it is for a neuron that a Python
    file declares, `model` or `path` names that file, which is then run; it may be the
    copy in the checkpoint's folder, as "folder/neuron.py". Raises `ValueError` if that
    is missing or another file, if there is no checkpoint, or if it is damaged, was made
    by another version of the format, belongs to another model, or adapts an encoder
    that does not ship.
    """
    file = next((pathlib.Path(x) for x in (path, model) if x and is_python(x)), None)
    path = checkpoint_folder(path)
    header = read_header(path, FORMAT, VERSION, ("model", "encoder_hash"))
    if model is not None and not is_python(model) and header["model"] != model:
        raise ValueError(
            f"The checkpoint {path} is for the model {header['model']!r}, not for "
            f"{model!r}; choose that model or another checkpoint."
        )
    check_files(path, header)
    config = header["config"]
    with described_by_header(path):
        neuron = _neuron(path, header, file)
        encoder, *rest = _skeleton(config, len(neuron.channels))
        base = None if config["base"] is None else Base(**config["base"])
    encoder = filled(encoder, path / "encoder")
    if base is not None:
        encoder = _on_base(encoder, base, path)
    rest = filled(tuple(rest), path / "arrays")
    return Checkpoint(encoder, *rest, neuron=neuron, header=header)


def shipped_checkpoint(model: str) -> pathlib.Path:
    """The folder of the checkpoint that dicjax ships for `model`."""
    folder = shipped(model)
    if folder is None:
        raise ValueError(
            f"dicjax ships no encoder for the model {model!r}; make one with `dicjax "
            f"adapt {model} --out FOLDER` and name it with `--model FOLDER`."
        )
    return folder


def shipped_models() -> tuple[str, ...]:
    """The models that dicjax ships a checkpoint for."""
    return tuple(name for name in MODELS if shipped(name) is not None)


def find_neuron(name: str) -> tuple[Neuron, pathlib.Path | None]:
    """The neuron of a model's name, of a file that declares one, or of a checkpoint.

    A Python file is run; nothing in a checkpoint is. With the neuron comes the file of
    its declaration, for a model that does not ship. Raises `ValueError` where there is
    none, or where it fails a physical check.
    """
    if name in MODELS:
        return MODELS[name](), None
    path = pathlib.Path(name)
    if is_checkpoint(path):
        return load_checkpoint(path).neuron, None
    if is_python(path):
        return load_neuron(path), path
    raise ValueError(
        f"There is no model {name!r}; choose one of {', '.join(MODELS)}, a Python file "
        "that declares a neuron, or the folder of a checkpoint."
    )


def encoder_hash(encoder: Encoder) -> str:
    """Tells encoders with other weights apart."""
    content = []
    for leaf in leaves(encoder):
        content += [f"{leaf.dtype}{leaf.shape}".encode(), np.asarray(leaf).tobytes()]
    return digest(b"".join(content))


def is_python(path: pathlib.Path | str) -> bool:
    """Whether a path names a Python file."""
    return pathlib.Path(path).suffix == ".py"


def checkpoint_folder(path: pathlib.Path | str) -> pathlib.Path:
    """The folder of a checkpoint, which a Python file in it may name instead."""
    path = pathlib.Path(path)
    return path.parent if is_python(path) else path


def _neuron(path: pathlib.Path, header, file: pathlib.Path | None) -> Neuron:
    wanted = header["config"]["neuron_file"]
    if wanted is not None and file is None:
        raise ValueError(
            Advice(
                f"The checkpoint {path} is for a neuron that a Python file declares, "
                "and no Python in a checkpoint is run unless it is named. Read "
                f"{path / NEURON_FILE} and, if you trust it, name it: ",
                Remedy("model", str(path / NEURON_FILE)),
                ".",
            )
        )
    if wanted is not None and file is not None:
        if not file.is_file() or digest(file.read_bytes()) != wanted:
            raise ValueError(
                f"{file} is not the file that declares the neuron of the checkpoint "
                f"{path}: name that file, or {path / NEURON_FILE}."
            )
        return load_neuron(file)
    if header["model"] not in MODELS:
        raise ValueError(
            f"The checkpoint {path} is for the model {header['model']!r}, which this "
            f"dicjax does not have, only {', '.join(MODELS)}."
        )
    return MODELS[header["model"]]()


def _skeleton(config, num_channels):
    """What a checkpoint of this configuration holds, with no numbers in it yet."""
    # Shapes alone: drawing weights, to be replaced, would take seconds.
    encoder, density, emulator = eqx.filter_eval_shape(_networks, config, num_channels)
    none = lambda *shape: np.zeros(shape, np.float32)
    calibration = Calibration(none(0, 0, 0), none(0))
    library = Library(none(0, 0), np.zeros(0, np.int32), none(0, 7))
    return encoder, calibration, density, emulator, library


def _networks(config, num_channels):
    network = EncoderConfig(**config["encoder"])
    encoder = Encoder(network, make_scales((0.0, 1.0), (0.0, 1.0)), key=jr.key(0))
    if config["base"] is not None:
        encoder = adapter(attach(jr.key(0), encoder, config["base"]["rank"]))
    shape = dict(config["density"])
    free, num_context = tuple(shape.pop("free")), shape.pop("num_context")
    sizes = num_channels, num_context
    density = Density(DensityConfig(**shape), free, *sizes, key=jr.key(0))
    emulating = EmulatorConfig(**config["emulator"])
    return encoder, density, Emulator(emulating, num_channels, key=jr.key(0))


def _on_base(kept: Encoder, base: Base, path: pathlib.Path) -> Encoder:
    if base.model not in MODELS:
        raise ValueError(
            f"The checkpoint {path} adapts the encoder of {base.model!r}, which does "
            "not ship."
        )
    own = load_checkpoint(shipped_checkpoint(base.model), base.model)
    if own.header["encoder_hash"] != base.encoder_hash:
        raise ValueError(
            f"The checkpoint {path} adapts the encoder {base.encoder_hash} of "
            f"{base.model}, but {own.header['encoder_hash']} is the one that ships "
            "with this dicjax; adapt again."
        )
    return combine(kept, own.encoder)
