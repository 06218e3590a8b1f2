"""Neural operators on disk."""

import dataclasses
import pathlib
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np

from dicjax._core import (
    check_files,
    described_by_header,
    filled,
    is_checkpoint,
    leaves,
    on_host,
    read_header,
    shipped,
    write_checkpoint,
)
from dicjax.operator.config import OperatorConfig
from dicjax.operator.families import FAMILIES, find_family
from dicjax.operator.model import Operator, untrained


FORMAT = "dicjax-operator"
VERSION = 1
ARRAYS = "operator"


def save_operator(
    path: pathlib.Path, operator: Operator, config: OperatorConfig, about: dict
) -> None:
    """Writes an operator, whole or not at all, with what is known `about` it."""
    shape = {
        "operator": dataclasses.asdict(config),
        "family": operator.family,
        "names": list(operator.names),
        "num_members": len(operator.library),
    }
    num = int(sum(x.size for x in leaves(operator.branch)))
    about = {"num_parameters": num, **about}
    write_checkpoint(path, FORMAT, VERSION, shape, {ARRAYS: operator}, about)


@on_host()
def load_operator(
    name: str | pathlib.Path = "cortical", *, family: str | None = None
) -> Operator:
    """A trained operator, for [`dicjax.respond`][] and [`dicjax.draw_ensemble`][].

    **Arguments:**

    - `name`: of a family whose operator ships, or the folder of one that was trained.
    - `family`: the family it must be of, if that matters.

    **Raises:**

    - `ValueError`: if there is none, or if it is damaged, of another family, or made by
        another version.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    path = _find(name)
    header = operator_header(path)
    shape = header["config"]
    with described_by_header(path):
        found, names, num = shape["family"], shape["names"], shape["num_members"]
        config = OperatorConfig(**shape["operator"])
    if family is not None and found != family:
        raise ValueError(
            f"The operator {path} is of the family {found!r}, not of "
            f"{family!r}: choose that family or another operator."
        )
    check_files(path, header)
    own = find_family(found)
    x = np.ones((num, len(names)), np.float32)
    g = np.ones((num, len(own.neuron.channels)), np.float32)
    # Shapes alone: drawing weights that are replaced would take seconds.
    make = lambda: untrained(jr.key(0), config, own, tuple(names), x, g)
    skeleton = eqx.filter_eval_shape(make)
    return filled(skeleton, path / ARRAYS)


def operator_header(name: str | pathlib.Path) -> dict[str, Any]:
    """What is written beside an operator: configuration, training, scores, versions."""
    return read_header(_find(name), FORMAT, VERSION)


def operator_config(name: str | pathlib.Path) -> OperatorConfig:
    """The shape of an operator."""
    with described_by_header(_find(name)):
        return OperatorConfig(**operator_header(name)["config"]["operator"])


def _find(name: str | pathlib.Path) -> pathlib.Path:
    if is_checkpoint(name):
        return pathlib.Path(name)
    if str(name) not in FAMILIES:
        raise ValueError(
            f"There is no operator {str(name)!r}: name a family "
            f"({', '.join(FAMILIES)}), or the folder that `dicjax operator train` "
            "wrote."
        )
    folder = shipped(f"operators/{name}")
    if folder is None:
        raise ValueError(
            f"No operator of the family {str(name)!r} ships: train one with "
            f"`dicjax operator train {name} --out FOLDER`."
        )
    return folder
