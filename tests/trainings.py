"""Trains for a few steps on all devices of a process of its own; see test_sharding.

Writes weights and losses to OUT, the steps that progress was told of, and the shapes of
what each device holds of a batch within the training step.
"""

import argparse
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dicjax.cli.joining import join
from dicjax.inference import training as inference_training
from dicjax.inference.config import EncoderConfig, TrainingConfig
from dicjax.inference.dataset import batch_of
from dicjax.inference.training import new_encoder, train_encoder
from dicjax.operator import training as operator_training
from dicjax.operator.config import OperatorTraining
from dicjax.operator.training import is_learned, members_of, train_operator


ENCODER = EncoderConfig(
    width=8, radius=1, num_slots=2, latent=4, hidden=8, num_components=2
)
LEARN = TrainingConfig(
    num_steps=8, batch_size=8, crops=(24,), crop_shares=(1.0,), save_every=4
)
OPERATE = OperatorTraining(num_steps=8, batch_size=16, pool=16)
shards = []


def watched(function, batch_at: int):
    """A function that notes how its argument of some number is split among devices."""

    def wrapped(*args):
        x = args[batch_at]
        note = lambda sharding: shards.append(sharding.shard_shape(x.shape))
        jax.debug.inspect_array_sharding(x, callback=note)
        return function(*args)

    return wrapped


def cast(tree, dtype):
    """A tree with floating-point numbers of another precision."""
    is_float = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
    one = lambda x: x.astype(dtype) if is_float(x) else x
    return jax.tree.map(one, tree)


def encoder(dtype, folder: pathlib.Path | None, on_progress):
    """Weights and losses of an encoder."""
    import test_training as encoders  # after processes were joined: it computes

    inference_training.encoder_loss = watched(inference_training.encoder_loss, 1)
    known = batch_of(encoders.toy(200, 0))
    start = cast(new_encoder(known, *encoders.RANGES, ENCODER, 0), dtype)
    known = jax.tree.map(
        lambda x: x.astype(dtype) if x.dtype == np.float32 else x, known
    )
    trained = train_encoder(start, known, LEARN, folder=folder, on_progress=on_progress)
    return eqx.filter(trained.encoder, eqx.is_array), trained.losses


def operator(dtype, folder: pathlib.Path | None, on_progress):
    """Weights and losses of an operator."""
    import test_operator_training as operators

    loss = watched(operator_training.operator_loss, 1)
    operator_training.operator_loss = loss
    losses = []

    def note(stage, step, total):
        losses.append(stage.loss)
        on_progress(stage, step, total)

    family = operators.FAMILY
    members = members_of(
        family.sample(jr.key(0), operators.NUM), operators.measured_as(operators.NUM)
    )
    start = cast(operators.untrained_operator(), dtype)
    trained = train_operator(
        start, family, members, OPERATE, folder=folder, save_every=2, on_progress=note
    )
    return eqx.filter(trained, is_learned(trained)), losses


class Stopped(Exception):
    """A training that was stopped."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("kind", choices=("encoder", "operator"))
    parser.add_argument("dtype", choices=("float32", "float64"))
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--stop", type=int, help="the step after which it stops")
    parser.add_argument("--join", help="I/N@HOST:PORT")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    join(args.join)
    told = []

    def note(stage, step, total):
        told.append(step)
        if step == args.stop:
            raise Stopped

    train = {"encoder": encoder, "operator": operator}[args.kind]
    try:
        weights, losses = train(args.dtype, args.folder, note)
    except Stopped:
        return
    leaves = [np.asarray(x) for x in jax.tree.leaves(weights)]
    here = {jax.local_devices()[0]}
    assert all(x.devices() == here for x in jax.tree.leaves(weights))
    np.savez(args.out, *leaves, losses=losses, shards=np.array(shards), told=told)


if __name__ == "__main__":
    main()
