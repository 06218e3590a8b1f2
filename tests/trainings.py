"""Trains for a few steps on all devices of a process of its own; see test_sharding.

Writes weights and losses to OUT, the steps that progress reported, and the shapes of
what each device holds of a batch within the training step. With `--alone` it trains on
one of the devices first, and writes the same about that.
"""

import argparse
import contextlib
import pathlib

import equinox as eqx
import jax
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


def watched(function, batch_of):
    """A function that notes how `batch_of` its arguments is split among devices."""

    def wrapped(*args):
        x = batch_of(*args)
        note = lambda sharding: shards.append(sharding.shard_shape(x.shape))
        jax.debug.inspect_array_sharding(x, callback=note)
        return function(*args)

    return wrapped


def encoder(dtype, folder: pathlib.Path | None, on_progress):
    """Weights and losses of an encoder."""
    # After processes were joined: these compute.
    import test_training as encoders
    from operators import as_dtype

    known = batch_of(encoders.toy(200, 0))
    start = as_dtype(dtype, new_encoder(known, *encoders.RANGES, ENCODER, 0))
    known = jax.tree.map(
        lambda x: x.astype(dtype) if x.dtype == np.float32 else x, known
    )
    trained = train_encoder(start, known, LEARN, folder=folder, on_progress=on_progress)
    return eqx.filter(trained.encoder, eqx.is_array), trained.losses


def operator(dtype, folder: pathlib.Path | None, on_progress):
    """Weights and losses of an operator."""
    from operators import as_dtype, blank, FAMILY, measured_as

    losses = []

    def note(stage, step, total):
        losses.append(stage.loss)
        on_progress(stage, step, total)

    members = members_of(FAMILY.sample(jr.key(0), 24), measured_as(24))
    start = as_dtype(dtype, blank(24))
    trained = train_operator(
        start, FAMILY, members, OPERATE, folder=folder, save_every=2, on_progress=note
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
    parser.add_argument("--alone", type=pathlib.Path)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    join(args.join)
    inference_training.encoder_loss = watched(
        inference_training.encoder_loss, lambda encoder, spike_times, *_: spike_times
    )
    operator_training.operator_loss = watched(
        operator_training.operator_loss, lambda operator, members, samples: members.x
    )
    if args.alone is not None:
        with jax.default_device(jax.local_devices()[0]):
            write(args.alone, args)
    with contextlib.suppress(Stopped):
        write(args.out, args)


def write(out: pathlib.Path, args: argparse.Namespace) -> None:
    shards.clear()
    reported = []

    def note(stage, step, total):
        reported.append(step)
        if step == args.stop:
            raise Stopped

    train = {"encoder": encoder, "operator": operator}[args.kind]
    weights, losses = train(args.dtype, args.folder, note)
    leaves = [np.asarray(x) for x in jax.tree.leaves(weights)]
    here = {jax.local_devices()[0]}
    assert all(x.devices() == here for x in jax.tree.leaves(weights))
    about = {"losses": losses, "shards": np.array(shards), "reported": reported}
    np.savez(out, *leaves, **about)


if __name__ == "__main__":
    main()
