"""From a neuron to a checkpoint on disk: simulate, train, calibrate, test, save."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dicjax._core import from_first, placement, Swept
from dicjax.inference.adapter import attach, merge
from dicjax.inference.augmentation import augment
from dicjax.inference.calibration import calibrate, Calibration, evaluate, HeldOut
from dicjax.inference.checkpoint import (
    Base,
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
    Dataset,
    default_sources,
    PRIOR_OF,
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
    Batch,
    batch_of,
    HELD_OUT,
    learnable,
    new_encoder,
    scales_of,
    train_encoder,
    Trained,
)
from dicjax.neurons import check_recipe, Neuron
from dicjax.spikes import (
    features_of_all,
    LABELS,
)


NUM_TEST = 8000
LIBRARY_SIZE = 16_384
READ_AT_ONCE = 512

Progress = Callable[[str, int, int], None]


class Fitted(NamedTuple):
    """What a fit ended with, beside the checkpoint on disk.

    - `tests`: errors and coverage by label, on members simulated for nothing else.
    - `trained`: the encoder and its losses.
    - `folder`: where the state of training was kept, if anywhere.
    """

    tests: dict
    trained: Trained
    folder: pathlib.Path | None


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

    Where several processes were joined by `jax.distributed`, all have to call this
    alike. They share the training of the encoder; the first does all else, has all
    files and tells of progress.

    **Arguments:**

    - `neuron`: the model, with a recipe.
    - `out`: the checkpoint's folder.
    - `num_members`: how many neurons to simulate for training.
    - `config`, `training`, `density`, `emulator`: the networks, and how they are
        trained.
    - `data`: a folder where simulated data and the state of training are kept, so that
        what was stopped goes on.
    - `data_seed`: of the simulated members; those for tests have the next one.
    - `simulated`: members to learn from, simulated elsewhere, whose number and seed
        then count; see [`dicjax.sweeps.swept_dataset`][].
    - `on_progress`: called with (what is being done, done, total).

    **Returns:**

    A `Fitted`; its `tests` also stand in the checkpoint's header.
    """
    placement(batch_size=training.batch_size)  # before hours of simulation
    work = _Work(neuron, data, data_seed, simulated, on_progress)

    def begin():
        known = work.learn(num_members)
        recipe = neuron.required_recipe
        new = new_encoder(known, recipe.g_s, recipe.g_u, config, training.seed)
        return new, known

    def finish():
        about = {"training": dataclasses.asdict(training)}
        encoder = trained.encoder
        return work.finish(out, encoder, encoder, known, (density, emulator), about)

    encoder, known = from_first(begin)
    trained, folder = work.train(encoder, known, training)
    return Fitted(from_first(finish), trained, folder)


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

    **Arguments:**

    - `neuron`: the model, with a recipe.
    - `out`: the checkpoint's folder, which holds the adapter, not the encoder.
    - `base`: the model whose encoder is adapted.
    - `adapting`: rank, members and training.
    - `neuron_file`: the declaration of a model that does not ship, to be kept.

    The rest is as in `fit_encoder`.
    """
    training = adapting.training
    placement(batch_size=training.batch_size)
    if simulated is not None:
        adapting = dataclasses.replace(adapting, members=simulated.num)
    work = _Work(neuron, data, data_seed, simulated, on_progress)

    def begin():
        shipped = load_checkpoint(shipped_checkpoint(base), base)
        known = work.learn(adapting.members)
        new = adapt(shipped.encoder, neuron, known, adapting.rank, training.seed)
        return new, known, Base(base, adapting.rank, shipped.header["encoder_hash"])

    def finish():
        about = {"training": dataclasses.asdict(adapting), "base": beneath}
        configs = (density, emulator)
        adapted = trained.encoder
        whole = merge(adapted)
        return work.finish(out, adapted, whole, known, configs, about, neuron_file)

    adapted, known, beneath = from_first(begin)
    trained, folder = work.train(adapted, known, training, name="adapter")
    return Fitted(from_first(finish), trained, folder)


def adapt(
    encoder: Encoder, neuron: Neuron, known: Batch, rank: int, seed: int
) -> Encoder:
    """An encoder with an adapter attached, scaled to another model's trains."""
    recipe = neuron.required_recipe
    scales = scales_of(known, recipe.g_s, recipe.g_u)
    dtype = encoder.embed.weight.dtype
    scales = jax.tree.map(lambda x: x.astype(dtype), scales)
    encoder = eqx.tree_at(lambda e: e.scales, encoder, scales)
    return attach(jr.key(seed), encoder, rank)


class _Work:
    """One fit: its neuron, its folder and whom it tells how far it is."""

    def __init__(self, neuron, data, seed, simulated, on_progress):
        check_recipe(neuron)
        self.neuron = neuron
        self.data = data
        self.simulated = simulated
        self.seed = seed if simulated is None else simulated.seed
        self.sources: tuple[Source, ...] = ()
        self.everyone: Dataset  # silent members, too
        self.learned: Dataset
        self.report = on_progress or (lambda stage, done, total: None)

    def learn(self, num_members) -> Batch:
        """Members to learn from, and what is known of their trains."""
        if self.simulated is not None:
            self.sources = default_sources(self.neuron, self.simulated.num)
            self.report("reading training data", 0, 1)
            dataset = self.simulated.read()
        else:
            self.sources = default_sources(self.neuron, num_members)
            dataset = self._simulated(self.sources, self.seed, "training data")
        learn = learnable(dataset)
        self.everyone = dataset
        if len(learn) < HELD_OUT:
            raise ValueError(
                f"Only {len(learn)} of {len(dataset)} members of {self.neuron.name} "
                "fire ten times or more: there is nothing to learn from. Widen the "
                "recipe's ranges, simulate longer, or give it a `current`."
            )
        self.learned = learn
        return batch_of(learn)

    def train(self, encoder, known, training, name="encoder"):
        """The encoder after training, or after as much of it as was left."""
        steps = f"{training.num_steps}-{len(known.labels)}"
        folder = self._folder(f"{name}-{steps}-{training.seed}")
        trained = train_encoder(
            encoder,
            known,
            training,
            folder=folder,
            on_progress=lambda step, total, loss: self.report(
                f"training, loss {loss:.2f}", step, total
            ),
        )
        return trained, folder

    def finish(
        self, out, encoder, whole, known, configs, about, neuron_file=None
    ) -> dict:
        """Calibrates, fits density and emulator, tests and writes `encoder`."""
        learn = self.learned
        density_config, emulator_config = configs
        self.report("calibrating", 0, 1)
        calibration = self._calibrate(whole, known, learn)
        density, log_prob = self._density(whole, known, learn, density_config)
        emulator = self._emulator(emulator_config)
        self.report("testing", 0, 1)
        tests = self._test(whole, calibration)
        weights = rarity(learn)
        library = make_library(
            learn.g,
            features_of_all(learn.spike_times),
            weights,
            LIBRARY_SIZE,
            self.seed,
        )
        base = about.pop("base", None)
        save_checkpoint(
            out,
            self.neuron.name,
            encoder,
            calibration,
            density,
            density_config,
            emulator,
            emulator_config,
            library,
            {
                "date": datetime.date.today().isoformat(),
                "data": self._recipe_in_words(learn),
                **about,
                "density_log_prob": log_prob,
                "tests": tests,
            },
            base=base,
            neuron_file=neuron_file,
        )
        return tests

    def _calibrate(self, encoder, known, learn) -> Calibration:
        apart = np.arange(len(learn)) % HELD_OUT == 0
        start = SAMPLERS.index(self.sources[0].sampler)
        flawed = _flawed(known.spike_times[apart & (learn.sampler == start)], self.seed)
        held_out = {"any": _held_out(known[apart & (learn.sigma == 0)])}
        sources = [x for x in test_sources(self.neuron, NUM_TEST) if x.sigma == 0]
        data = self._simulated(tuple(sources), self.seed + 2, "calibration data")
        fresh = batch_of(learnable(data))
        for index, prior in enumerate(PRIORS):
            if (own := fresh.priors == index).any():
                held_out[prior] = _held_out(fresh[own])
        return calibrate(encoder, held_out, trains_of(flawed))

    def _density(self, encoder, known, learn, config) -> tuple[Density, float]:
        quiet = np.flatnonzero(learn.sigma == 0)
        times = _flawed(known.spike_times[quiet], self.seed)
        # Summaries are the same under any prior.
        any_prior = jnp.asarray(PRIORS.index("any"), jnp.int32)
        latent = np.concatenate(
            [
                np.asarray(read(encoder, jnp.asarray(rows), any_prior).latent)
                for rows in _in_batches(times)
            ]
        )[: len(quiet)]
        context = contexts(
            latent, known.features[quiet], known.labels[quiet], known.slow[quiet]
        )
        # Half as they were drawn, half the rare activities.
        weights = rarity(learn)[quiet]
        weights = 0.5 / len(quiet) + 0.5 * weights / weights.sum()
        neuron = self.neuron
        return train_density(
            jr.fold_in(jr.key(self.seed), 2),
            learn.g[quiet],
            context,
            weights,
            neuron.bounds.astype(np.float32),
            neuron.index(*neuron.required_recipe.solved_pair),
            config,
            on_progress=lambda step, total, loss: self.report(
                f"learning conductances, loss {loss:.2f}", step, total
            ),
        )

    def _emulator(self, config) -> Emulator:
        quiet = self.everyone[self.everyone.sigma == 0]
        features = features_of_all(quiet.spike_times)
        # A quarter as they were drawn, one uniform, and half the rare activities.
        uniform = np.isin(quiet.sampler, [SAMPLERS.index(x) for x in ("box", "gamma")])
        weights = np.stack([np.ones(len(quiet)), uniform, rarity(quiet)])
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
        return train_emulator(
            jr.fold_in(jr.key(self.seed), 3),
            quiet.g,
            np.asarray(features.label),
            log_features(features),
            np.array([0.25, 0.25, 0.5]) @ weights,
            self.neuron.bounds.astype(np.float32),
            config,
            on_progress=lambda step, total, loss: self.report(
                f"learning to emulate, loss {loss:.2f}", step, total
            ),
        )

    def _test(self, encoder, calibration) -> dict:
        sources = test_sources(self.neuron, NUM_TEST)
        test = learnable(self._simulated(sources, self.seed + 1, "test data"))
        labels = np.asarray(features_of_all(test.spike_times).label)
        tests = {}
        for source in sources:
            of = test.sampler == SAMPLERS.index(source.sampler)
            of &= test.sigma == np.float32(source.sigma)
            for prior in (PRIOR_OF[source.sampler], "any"):
                name = f"{source.sampler}, sigma {source.sigma:g}, prior {prior}"
                tests[name] = evaluate(
                    encoder,
                    calibration,
                    trains_of(test.spike_times[of]),
                    test.dics[of, 1:],
                    labels[of],
                    prior,
                )
        return tests

    def _recipe_in_words(self, learn) -> dict:
        recipe = self.neuron.required_recipe
        counts = np.bincount(np.asarray(features_of_all(learn.spike_times).label))
        return {
            "num_members": len(learn),
            "by_label": dict(zip(LABELS, counts.tolist(), strict=False)),
            "left_out": learn.num_left_out,
            "sources": [dataclasses.asdict(x) for x in self.sources],
            "seed": self.seed,
            "duration_ms": recipe.duration,
            "discard_ms": recipe.discard,
            "dt_ms": recipe.dt,
            "current_uA_per_cm2": recipe.current,
            "V_ref_mV": float(self.neuron.V_ref),
            "normaliser": self.neuron.normaliser,
        }

    def _simulated(self, sources: tuple[Source, ...], seed, stage) -> Dataset:
        num = sum(source.num for source in sources)
        return simulate_dataset(
            self.neuron,
            sources,
            seed=seed,
            folder=self._folder(f"members-{num}-{seed}"),
            on_progress=lambda done, total: self.report(stage, done, total),
        )

    def _folder(self, name) -> pathlib.Path | None:
        return None if self.data is None else self.data / self.neuron.name / name


def _held_out(known: Batch) -> HeldOut:
    times, slow, labels = map(np.asarray, (known.spike_times, known.slow, known.labels))
    return HeldOut(trains_of(times), slow, labels)


def trains_of(spike_times: np.ndarray) -> list[np.ndarray]:
    """Rows without their padding."""
    return [row[np.isfinite(row)] for row in spike_times]


def _flawed(spike_times, seed):
    """Stretches as they might be recorded, none of them an anomaly."""
    ordinary = TrainingConfig(anomalies=0.0)
    length = EncoderConfig().max_spikes
    pieces = []
    for number, rows in enumerate(_in_batches(spike_times)):
        key = jr.fold_in(jr.key(seed), number)
        pieces.append(np.asarray(_augmented(key, jnp.asarray(rows), ordinary, length)))
    return np.concatenate(pieces)[: len(spike_times)]


@eqx.filter_jit
def _augmented(key, rows, training, length):
    return augment(key, rows, training, length, jnp.asarray(0.5, rows.dtype))[0]


def _in_batches(rows):
    """Batches of one size; the last row of all fills up the last batch."""
    for start in range(0, len(rows), READ_AT_ONCE):
        piece = rows[start : start + READ_AT_ONCE]
        missing = READ_AT_ONCE - len(piece)
        yield np.pad(piece, ((0, missing), (0, 0)), mode="edge")
