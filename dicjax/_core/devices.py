"""Where arrays of a training lie: batches split among devices, the rest on each."""

import dataclasses
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


Tree = TypeVar("Tree")
BATCH = "batch"  # the only axis of the mesh


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where arrays go; anywhere if there is only one device.

    - `everywhere`: a copy on each device.
    - `split`: the first axis divided among devices.
    """

    everywhere: NamedSharding | None = None
    split: NamedSharding | None = None


def placement(**sizes: int) -> Placement:
    """A placement on all devices of all processes, unless JAX has a default device.

    `sizes` are lengths of the axes to split, by the setting that each comes from, or a
    `ValueError` if one cannot be split evenly.
    """
    devices = jax.devices()
    is_held = jax.config.jax_default_device is not None  # pyright: ignore
    if is_held or len(devices) == 1:
        return Placement()
    num = len(devices)
    for name, size in sizes.items():
        if size % num:
            below, above = size - size % num, size - size % num + num
            near = f"{below} or {above}" if below else f"{above}"
            raise ValueError(
                f"`{name}` must be a multiple of the {num} devices that share it, got "
                f"{size}: take {near}, or fewer devices."
            )
    mesh = Mesh(np.array(devices), (BATCH,), axis_types=(AxisType.Auto,))
    one = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
    return Placement(everywhere=one(), split=one(BATCH))


def put(tree: Tree, where: NamedSharding | None) -> Tree:
    """Brings arrays to devices. Every process has to hold the same arrays."""
    if where is None:
        return tree

    def one(x):
        held = np.asarray(x)
        return jax.make_array_from_callback(held.shape, where, lambda i: held[i])

    is_array = lambda x: isinstance(x, jax.Array | np.ndarray)
    return jax.tree.map(lambda x: one(x) if is_array(x) else x, tree)


def constrain(tree: Tree, where: NamedSharding | None) -> Tree:
    """States in a compiled function where arrays lie."""
    if where is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, where)


def fetch(tree: Tree, where: Placement) -> Tree:
    """Brings arrays to the default device of every process."""
    if where.everywhere is None:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    whole = jax.jit(lambda x: x, out_shardings=where.everywhere)(arrays)
    here = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), whole)
    return eqx.combine(here, rest)
