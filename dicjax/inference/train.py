"""From a neuron to a checkpoint on disk: simulate, train, calibrate, test, save."""

import dataclasses
import datetime
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dicjax._core import (
    batches,
    check_numbers,
    from_first,
    in_batches,
    only_first,
    placement,
    Progress,
    renamed,
    Stage,
    Swept,
)
from dicjax.inference.adapter import attach, merge
from dicjax.inference.augmentation import augment
from dicjax.inference.calibration import calibrate, Calibration, evaluate_sources
from dicjax.inference.checkpoint import (
    Base,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    shipped_checkpoint,
)
from dicjax.inference.config import (
    AdapterConfig,
    DensityConfig,
    EmulatorConfig,
    EncoderConfig,
    TrainingConfig,
)
from dicjax.inference.dataset import (
    Batch,
    batch_of,
    Dataset,
    default_sources,
    learnable,
    rarity,
    SAMPLERS,
    Source,
    test_sources,
)
from dicjax.inference.dataset_store import simulate_dataset
from dicjax.inference.density import contexts, Density, train_density
from dicjax.inference.emulator import Emulator, train_emulator
from dicjax.inference.encoder import Encoder, PRIORS, read
from dicjax.inference.library import log_features, make_library
from dicjax.inference.training import (
    HELD_OUT,
    new_encoder,
    scales_of,
    train_encoder,
    Trained,
)
from dicjax.neurons import check_recipe, Neuron
from dicjax.spikes import LABELS, spike_features


LIBRARY_SIZE = 16_384
READ_AT_ONCE = 512


class Fitted(NamedTuple):
    """What a fit ended with, beside the checkpoint on disk.

    `tests` are errors and coverage by label, on members simulated for nothing else; the
    state of training was kept in `folder`, if anywhere.
    """

    tests: dict
    trained: Trained
    folder: pathlib.Path | None


class Simulation(NamedTuple):
    """How members of a neuron are simulated, and where they are kept, if anywhere."""

    neuron: Neuron
    folder: pathlib.Path | None
    report: Progress

    def members(self, sources: tuple[Source, ...], seed: int, stage: str) -> Dataset:
        """Members from these sources."""
        report, folder = renamed(self.report, stage), self.folder
        return simulate_dataset(
            self.neuron, sources, seed=seed, folder=folder, on_progress=report
        )


class Members(NamedTuple):
    """Simulated members that an encoder learns from.

    Of `everyone`, silent or not, `learned` fire often enough to be learned from, and
    `known` has a row for the train of each of these.
    """

    everyone: Dataset
    learned: Dataset
    known: Batch
    sources: tuple[Source, ...]
    seed: int


def fit_encoder(
    neuron: Neuron,
    out: pathlib.Path,
    *,
    num_members: int,
    config: EncoderConfig = EncoderConfig(),
    training: TrainingConfig = TrainingConfig(),
    density: DensityConfig = DensityConfig(),
    emulator: EmulatorConfig = EmulatorConfig(),
    data: pathlib.Path | None = None,
    data_seed: int = 1,
    simulated: Swept[Dataset] | None = None,
    on_progress: Progress | None = None,
) -> Fitted:
    """Simulates, trains an encoder from nothing, tests it and writes a checkpoint.

    If several processes were joined by `jax.distributed`, all have to call this with
    the same arguments. They share the training of the encoder. The first one does all
    else, keeps all files and reports progress.

    Simulated members and the state of training are kept in the folder `data`, so that a
    fit that was stopped goes on. Members for tests have the seed after `data_seed`. If
    members were `simulated` elsewhere (see [`dicjax.sweeps.swept_dataset`][]), their
    number and seed count. The header of the checkpoint holds the tests, too.
    """
    simulation = _simulation(
        neuron, data, on_progress, training, config, density, emulator
    )
    members = simulate_members(simulation, num_members, data_seed, simulated)

    def begin() -> Encoder:
        recipe = neuron.required_recipe
        ranges = recipe.g_s, recipe.g_u
        return new_encoder(members.known, *ranges, config, training.seed)

    finish = functools.partial(
        finish_encoder, out, simulation, members, density, emulator, training
    )
    return _fit("encoder", simulation, members, training, begin, finish)


def fit_adapter(
    neuron: Neuron,
    out: pathlib.Path,
    *,
    base: str = "stg",
    adapting: AdapterConfig = AdapterConfig(),
    density: DensityConfig = DensityConfig(),
    emulator: EmulatorConfig = EmulatorConfig(),
    data: pathlib.Path | None = None,
    data_seed: int = 1,
    simulated: Swept[Dataset] | None = None,
    neuron_file: pathlib.Path | None = None,
    on_progress: Progress | None = None,
) -> Fitted:
    """Turns the encoder that ships for `base` to another neuron, by an adapter.

    The checkpoint holds the adapter, not the encoder, and a copy of the `neuron_file`
    that declares a model of others. The rest is as in `fit_encoder`.
    """
    training = adapting.training
    simulation = _simulation(
        neuron, data, on_progress, training, adapting, density, emulator
    )
    if simulated is not None:
        adapting = dataclasses.replace(adapting, members=simulated.num)
    members = simulate_members(simulation, adapting.members, data_seed, simulated)
    shipped = only_first(lambda: load_checkpoint(shipped_checkpoint(base), base))

    def begin() -> Encoder:
        start = shipped.encoder
        return adapt(start, neuron, members.known, adapting.rank, training.seed)

    finish_adapted = functools.partial(
        finish_encoder, out, simulation, members, density, emulator, adapting
    )

    def finish(encoder: Encoder) -> dict:
        own = Base(base, adapting.rank, shipped.header["encoder_hash"])
        return finish_adapted(encoder, base=own, neuron_file=neuron_file)

    return _fit("adapter", simulation, members, training, begin, finish)


def _simulation(neuron, data, on_progress, *configs) -> Simulation:
    for config in configs:
        check_numbers(config)
    training, *_ = configs
    placement(batch_size=training.batch_size)  # before hours of simulation
    check_recipe(neuron)
    folder = None if data is None else data / neuron.name
    return Simulation(neuron, folder, on_progress or (lambda stage, done, total: None))


def _fit(
    name: str,
    simulation: Simulation,
    members: Members,
    training: TrainingConfig,
    begin: Callable[[], Encoder],
    finish: Callable[[Encoder], dict],
) -> Fitted:
    """Trains in all processes what the first one begins and finishes."""
    encoder, known = from_first(lambda: (begin(), members.known))
    folder, report = simulation.folder, simulation.report
    if folder is not None:
        num = len(known.labels)
        folder = folder / f"{name}-{training.num_steps}-{num}-{training.seed}"
    trained = train_encoder(encoder, known, training, folder=folder, on_progress=report)
    return Fitted(from_first(lambda: finish(trained.encoder)), trained, folder)


def adapt(
    encoder: Encoder, neuron: Neuron, known: Batch, rank: int, seed: int
) -> Encoder:
    """An encoder with an adapter attached, scaled to another model's trains."""
    recipe, dtype = neuron.required_recipe, encoder.embed.weight.dtype
    scales = scales_of(known, recipe.g_s, recipe.g_u)
    scales = jax.tree.map(lambda x: x.astype(dtype), scales)
    return attach(jr.key(seed), eqx.tree_at(lambda e: e.scales, encoder, scales), rank)


def simulate_members(
    simulation: Simulation, num: int, seed: int, simulated: Swept[Dataset] | None = None
) -> Members:
    """Members to learn from, or those that were simulated elsewhere.

    Other processes than the first get none. Raises `ValueError` if too few fire.
    """
    neuron = simulation.neuron
    if simulated is not None:
        num, seed = simulated.num, simulated.seed
    sources = default_sources(neuron, num)

    def read_or_simulate() -> Members:
        if simulated is None:
            everyone = simulation.members(sources, seed, "training_data")
        else:
            simulation.report(Stage("reading_training_data"), 0, 1)
            everyone = simulated.read()
        learned = learnable(everyone)
        if len(learned) < HELD_OUT:
            raise ValueError(
                f"Only {len(learned)} of {len(everyone)} members of {neuron.name} "
                "fire ten times or more: there is nothing to learn from. Widen the "
                "recipe's ranges, simulate longer, or give it a `current`."
            )
        return Members(everyone, learned, batch_of(learned), sources, seed)

    return only_first(read_or_simulate)


def finish_encoder(
    out: pathlib.Path,
    simulation: Simulation,
    members: Members,
    density_config: DensityConfig,
    emulator_config: EmulatorConfig,
    config: TrainingConfig | AdapterConfig,
    encoder: Encoder,
    *,
    base: Base | None = None,
    neuron_file: pathlib.Path | None = None,
) -> dict:
    """Calibrates and tests a trained encoder, fits what goes with it, and saves all.

    Returns the tests. With `base`, the encoder has an adapter attached.
    """
    neuron, learned, known = simulation.neuron, members.learned, members.known
    training = config.training if isinstance(config, AdapterConfig) else config
    whole = encoder if base is None else merge(encoder)
    simulation.report(Stage("calibrating"), 0, 1)
    calibration = calibrate_encoder(simulation, whole, members, training.num_test)
    density, log_prob = fit_density(simulation, whole, members, density_config)
    emulator = fit_emulator(simulation, members, emulator_config)
    simulation.report(Stage("testing"), 0, 1)
    sources = test_sources(neuron, training.num_test)
    data = simulation.members(sources, members.seed + 1, "test_data")
    tests = evaluate_sources(whole, calibration, learnable(data), sources)
    rows = learned.g, known.labels, known.features, rarity(learned)
    library = make_library(*rows, LIBRARY_SIZE, members.seed)
    about = {
        "date": datetime.date.today().isoformat(),
        "data": _describe(neuron, members),
        "training": dataclasses.asdict(config),
        "density_log_prob": log_prob,
        "tests": tests,
    }
    parts = encoder, calibration, density, emulator, library
    checkpoint = Checkpoint(*parts, neuron, about)
    save_checkpoint(out, checkpoint, base=base, neuron_file=neuron_file)
    return tests


def calibrate_encoder(
    simulation: Simulation, encoder: Encoder, members: Members, num_test: int
) -> Calibration:
    """Calibrates posteriors on members kept apart, and on new ones for each prior."""
    learned = members.learned
    apart = np.arange(len(learned)) % HELD_OUT == 0
    drawn = {"any": members.known[apart & (learned.sigma == 0)]}
    sources = [x for x in test_sources(simulation.neuron, num_test) if x.sigma == 0]
    data = simulation.members(tuple(sources), members.seed + 2, "calibration_data")
    fresh = batch_of(learnable(data))
    for index, prior in enumerate(PRIORS):
        if (own := fresh.priors == index).any():
            drawn[prior] = fresh[own]
    start = SAMPLERS.index(members.sources[0].sampler)
    ordinary = learned.spike_times[apart & (learned.sampler == start)]
    return calibrate(encoder, drawn, _flawed(ordinary, members.seed))


def fit_density(
    simulation: Simulation, encoder: Encoder, members: Members, config: DensityConfig
) -> tuple[Density, float]:
    """A density of conductances, given what the encoder reads from trains.

    With it comes its mean log probability of members that it was not fitted to.
    """
    neuron, learned = simulation.neuron, members.learned
    first, second = neuron.index(*neuron.required_recipe.solved_pair)
    quiet = np.flatnonzero(learned.sigma == 0)
    known = members.known[quiet]
    # Summaries are the same under any prior.
    any_prior = jnp.asarray(PRIORS.index("any"), jnp.int32)
    latent = in_batches(
        lambda rows: read(encoder, jnp.asarray(rows), any_prior).latent,
        _flawed(known.spike_times, members.seed),
        size=READ_AT_ONCE,
    )
    context = contexts(latent, known.features, known.labels, known.slow)
    # Half as they were drawn, half the rare activities.
    weights = rarity(learned)[quiet]
    weights = 0.5 / len(quiet) + 0.5 * weights / weights.sum()
    bounds = neuron.bounds.astype(np.float32)
    key = jr.fold_in(jr.key(members.seed), 2)
    report = renamed(simulation.report, "learning_conductances")
    rows, solved = (learned.g[quiet], context, weights), (first, second)
    return train_density(key, *rows, bounds, solved, config, on_progress=report)


def fit_emulator(
    simulation: Simulation, members: Members, config: EmulatorConfig
) -> Emulator:
    """An emulator of the activity of all members without noise, silent ones too."""
    quiet = members.everyone[members.everyone.sigma == 0]
    features = spike_features(quiet.spike_times)
    # A quarter as they were drawn, one uniform, and half the rare activities.
    uniform = np.isin(quiet.sampler, [SAMPLERS.index(x) for x in ("box", "gamma")])
    weights = np.stack([np.ones(len(quiet)), uniform, rarity(quiet)])
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    weights = np.array([0.25, 0.25, 0.5]) @ weights
    rows = quiet.g, np.asarray(features.label), log_features(features), weights
    bounds = simulation.neuron.bounds.astype(np.float32)
    key = jr.fold_in(jr.key(members.seed), 3)
    report = renamed(simulation.report, "learning_to_emulate")
    return train_emulator(key, *rows, bounds, config, on_progress=report)


def _describe(neuron: Neuron, members: Members) -> dict[str, Any]:
    """How members came about, for the header of a checkpoint."""
    recipe, learned = neuron.required_recipe, members.learned
    counts = np.bincount(np.asarray(members.known.labels))
    return {
        "num_members": len(learned),
        "by_label": dict(zip(LABELS, counts.tolist(), strict=False)),
        "left_out": learned.num_left_out,
        "sources": [dataclasses.asdict(x) for x in members.sources],
        "seed": members.seed,
        "duration_ms": recipe.duration,
        "discard_ms": recipe.discard,
        "dt_ms": recipe.dt,
        "current_uA_per_cm2": recipe.current,
        "V_ref_mV": float(neuron.V_ref),
        "normaliser": neuron.normaliser,
    }


def _flawed(spike_times, seed):
    """Stretches as they might be recorded, none of them an anomaly."""
    ordinary, length = TrainingConfig(anomalies=0.0), EncoderConfig().max_spikes
    augmented, pieces = eqx.filter_jit(augment), []
    for number, (rows, own) in enumerate(batches(spike_times, READ_AT_ONCE)):
        key, rows = jr.fold_in(jr.key(seed), number), jnp.asarray(rows)
        half = jnp.asarray(0.5, rows.dtype)
        flawed, _ = augmented(key, rows, ordinary, length, half)
        pieces.append(np.asarray(flawed)[:own])
    return np.concatenate(pieces)
