"""From a neuron to a trained encoder on disk: simulate, train, measure, save."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable

import jax.random as jr
import numpy as np

from dicjax.atlas import make_atlas
from dicjax.checkpoint import save_checkpoint
from dicjax.config import EncoderConfig, TrainingConfig
from dicjax.dataset import (
    Dataset,
    default_sources,
    load_dataset,
    make_dataset,
    rarity,
    save_dataset,
    Source,
)
from dicjax.neuron import Neuron
from dicjax.spikes import spike_features
from dicjax.training import evaluate, train_encoder


NUM_TEST = 5000
ATLAS_SIZE = 16_384

Progress = Callable[[str, int, int], None]


def fit_encoder(
    neuron: Neuron,
    out: pathlib.Path,
    *,
    num_members: int,
    config: EncoderConfig = EncoderConfig(),
    training: TrainingConfig = TrainingConfig(),
    data: pathlib.Path | None = None,
    on_progress: Progress | None = None,
) -> dict:
    """Simulates, trains, tests and writes the checkpoint folder `out`.

    **Arguments:**

    - `neuron`: the model, with a recipe.
    - `out`: where the checkpoint goes.
    - `num_members`: how many neurons to simulate for training.
    - `config`, `training`: the network, and how to train it.
    - `data`: a folder where simulated data are kept and found again.
    - `on_progress`: called with (what is being done, done, total).

    **Returns:**

    The metrics, as they stand in the checkpoint's header: errors and coverage by label
    on 5,000 members simulated for nothing else.
    """
    report = on_progress or (lambda stage, done, total: None)
    sources = default_sources(neuron, num_members)
    learn = _data(neuron, sources, training.seed, data, report, "training data")
    quiet = sources[0]
    test = _data(
        neuron,
        (Source(quiet.sampler, int(1.2 * NUM_TEST)),),
        training.seed + 1,
        data,
        report,
        "test data",
    )
    test = test[np.isfinite(test.spike_times).sum(axis=1) >= 10][:NUM_TEST]
    trained = train_encoder(
        learn,
        neuron.required_recipe.g_s,
        neuron.required_recipe.g_u,
        config,
        training,
        on_progress=lambda step, total, loss: report(
            f"training, loss {loss:.2f}", step, total
        ),
    )
    metrics = evaluate(trained.encoder, trained.ranks, test)
    about = {
        "date": datetime.date.today().isoformat(),
        "data": {
            "sources": [dataclasses.asdict(source) for source in sources],
            "num_members": len(learn),
            "seed": training.seed,
            "duration_ms": neuron.required_recipe.duration,
            "discard_ms": neuron.required_recipe.discard,
            "dt_ms": neuron.required_recipe.dt,
            "V_ref_mV": float(neuron.V_ref),
            "normaliser": neuron.normaliser,
        },
        "training": dataclasses.asdict(training),
        "final_loss": float(trained.losses[-500:].mean()),
        "test": {"sampler": quiet.sampler, "num": len(test), "by_label": metrics},
    }
    weights = rarity(learn)
    features = spike_features(learn.spike_times)
    atlas = make_atlas(learn.g, features, weights, ATLAS_SIZE, training.seed)
    save_checkpoint(out, neuron.name, trained.encoder, trained.ranks, atlas, about)
    return metrics


def _data(neuron, sources, seed, folder, report, stage) -> Dataset:
    path = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        num = sum(source.num for source in sources)
        path = folder / f"{neuron.name}-{num}-{seed}.parquet"
        if path.exists():
            return load_dataset(path, neuron)
    dataset = make_dataset(
        jr.key(seed),
        neuron,
        sources,
        on_progress=lambda done, total: report(stage, done, total),
    )
    if path is not None:
        save_dataset(dataset, path, neuron)
    return dataset
