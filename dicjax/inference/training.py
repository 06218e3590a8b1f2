"""Training an encoder on simulated trains."""

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from dicjax._core import (
    checkpointer,
    constrain,
    fetch,
    from_first,
    is_first,
    placement,
    put,
)
from dicjax.inference.adapter import learned, merge
from dicjax.inference.augmentation import augment
from dicjax.inference.config import EncoderConfig, TrainingConfig
from dicjax.inference.dataset import Dataset, priors_of
from dicjax.inference.encoder import (
    Encoder,
    make_scales,
    mixture_log_prob,
    PRIORS,
    to_logits,
)
from dicjax.inference.library import log_features
from dicjax.spikes import (
    features_of_all,
    LABELS,
)


MIN_SPIKES = 10  # of a train that is learned from
CROPS = (24, 48, 96)  # lengths that are compiled for; short ones are cheaper
CROP_SHARES = (0.45, 0.35, 0.2)
# Beside the density of (g_s, g_u) in the loss.
FAST_WEIGHT, LABEL_WEIGHT, FEATURE_WEIGHT, ANOMALY_WEIGHT = 0.3, 0.3, 0.1, 0.3
FINE = 0.05  # of log features: misses far below count by their square
SHARES = {"tonic": 0.35, "bursting": 0.55, "irregular": 0.1}  # of what is learned from
REPEATS = 20.0  # times at most that a member is drawn for its pattern being rare
CLEAN = (0.5, 0.75)  # share of trains without flaws, in the first and second cycle
ANY = 1 / 3  # share of trains that are read as if their source were not known
HELD_OUT = 20  # every so many members are kept apart
NUM_VALIDATION = 2048
SAVE_EVERY = 2000  # steps


@dataclasses.dataclass(frozen=True)
class Trained:
    """An encoder and how its losses went.

    - `encoder`: with its adapter still attached, if it has one.
    - `losses`: of every step.
    - `validation`: rows of (step, loss on members kept apart).
    """

    encoder: Encoder
    losses: Float[np.ndarray, " steps"]
    validation: Float[np.ndarray, "rows 2"]


class Batch(eqx.Module):
    """Trains to learn from and what is known of them.

    - `slow`, `fast`: (g_s, g_u) and (g_f, V_th), the last nan where there is none.
    - `features`: logarithms; nan where undefined.
    - `priors`: index of the narrowest prior that each is a draw of.
    """

    spike_times: Float[Array | np.ndarray, "batch spikes"]
    slow: Float[Array | np.ndarray, "batch 2"]
    fast: Float[Array | np.ndarray, "batch 2"]
    labels: Int[Array | np.ndarray, " batch"]
    features: Float[Array | np.ndarray, "batch 7"]
    priors: Int[Array | np.ndarray, " batch"]

    def __getitem__(self, members) -> "Batch":
        return jax.tree.map(lambda x: x[members], self)


def batch_of(dataset: Dataset) -> Batch:
    """What there is to learn from simulated members, on the host."""
    features = features_of_all(dataset.spike_times)
    return Batch(
        spike_times=dataset.spike_times,
        slow=dataset.dics[:, 1:].astype(np.float32),
        fast=np.stack([dataset.dics[:, 0], dataset.V_th], 1).astype(np.float32),
        labels=np.asarray(features.label),
        features=log_features(features),
        priors=priors_of(dataset),
    )


def new_encoder(
    known: Batch,
    g_s: tuple[float, float],
    g_u: tuple[float, float],
    config: EncoderConfig,
    seed: int,
) -> Encoder:
    """An encoder that has learned nothing yet, scaled to a model's trains."""
    encoder = Encoder(config, scales_of(known, g_s, g_u), key=jr.key(seed))
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, encoder
    )


def scales_of(known: Batch, g_s: tuple[float, float], g_u: tuple[float, float]):
    """Ranges of DICs, and the mean and spread of log intervals, of simulated trains."""
    times = np.where(np.isfinite(known.spike_times), known.spike_times, np.nan)
    log_isi = np.log1p(np.abs(np.diff(times[: 1 << 15], axis=1)))
    low, high = np.nanquantile(known.fast, (0.001, 0.999), axis=0)
    # Where no member has a threshold, any range will do.
    low, high = np.nan_to_num(low, nan=-80.0), np.nan_to_num(high, nan=0.0)
    return make_scales(
        g_s,
        g_u,
        g_f=(low[0], high[0] + 1e-3),
        V_th=(low[1], high[1] + 1e-3),
        center=float(np.nanmean(log_isi)),
        scale=float(max(np.nanstd(log_isi), 0.3)),
    )


def learnable(dataset: Dataset) -> Dataset:
    """The members that fire enough to be learned from."""
    return dataset[np.isfinite(dataset.spike_times).sum(axis=1) >= MIN_SPIKES]


def train_encoder(
    encoder: Encoder,
    known: Batch,
    training: TrainingConfig,
    *,
    folder: pathlib.Path | None = None,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Trains an encoder of (g_s, g_u), or an adapter attached to one.

    Every step sees random stretches of random trains, as they might be recorded; see
    `augment`. A twentieth of the members is kept apart. Devices
    share every batch; where several processes were joined by `jax.distributed`, all
    have to call this with the same arguments, and the first one keeps the run.

    **Arguments:**

    - `encoder`: where to start; what `learned` says is trained.
    - `known`: simulated trains and what is known of them.
    - `training`: how to train.
    - `folder`: where the run is kept: `metrics.jsonl`, a line for every validation,
        and the state, from which a run that was stopped goes on as if it had not been.
    - `on_progress`: called with (step, number of steps, loss).

    **Raises:**

    - `ValueError`: if devices cannot share the batch evenly, or if `folder` holds the
        state of another run.
    """
    run = _Run(encoder, training, folder)
    held_out = np.arange(len(known.labels)) % HELD_OUT == 0
    learn = np.flatnonzero(~held_out)
    odds = np.cumsum(_odds(np.asarray(known.labels)[learn]))
    apart = known[np.flatnonzero(held_out)[:NUM_VALIDATION]]
    for step in range(run.step, training.num_steps):
        rng = np.random.default_rng((training.seed, step))
        crop = int(rng.choice(CROPS, p=CROP_SHARES))
        drawn = np.searchsorted(odds, rng.random(training.batch_size) * odds[-1])
        loss = run.advance(known[learn[drawn]], crop)
        last = step + 1 == training.num_steps
        if (step + 1) % SAVE_EVERY == 0 or last:
            run.validate(apart)
        if on_progress is not None and is_first():
            on_progress(step + 1, training.num_steps, loss)
    return run.result()


def _odds(labels):
    """How often each member is drawn: patterns by their shares, within reason."""
    odds = np.zeros(len(labels))
    for name, share in SHARES.items():
        of = labels == LABELS.index(name)
        if of.any():
            odds[of] = min(share / of.mean(), REPEATS)
    return odds


class _Run:
    """The state of a training run, in memory and on disk."""

    def __init__(self, encoder, training, folder):
        self.training = training
        self.folder = folder
        self.spec = learned(encoder)
        self.encoder = encoder
        self.average = encoder
        self.state = optimiser(training).init(eqx.filter(encoder, self.spec))
        self.step = 0
        self.losses = np.zeros(training.num_steps, np.float32)
        self.validation = np.zeros((0, 2), np.float32)
        self.started = time.time()
        self.where = placement(batch_size=training.batch_size)
        if folder is not None:
            self._restore()
        arrays = (self.encoder, self.average, self.state)
        self.encoder, self.average, self.state = put(arrays, self.where.everywhere)

    def advance(self, batch, crop) -> float:
        self.encoder, self.average, self.state, loss = _learn(
            self.encoder,
            self.average,
            self.state,
            put(batch, self.where.split),
            jr.fold_in(jr.key(self.training.seed), self.step),
            jnp.asarray(self.step, jnp.float32),
            jnp.asarray(self._clean(), jnp.float32),
            self.training,
            crop,
            self.where,
        )
        self.losses[self.step] = loss
        self.step += 1
        return float(loss)

    def _clean(self) -> float:
        return CLEAN[int(self.step >= _first_cycle(self.training))]

    def validate(self, apart) -> None:
        key = jr.key(0)  # the same stretches every time
        loss = float(_validation_loss(self.average, apart, key, self.training))
        row = np.array([[self.step, loss]], np.float32)
        self.validation = np.concatenate([self.validation, row])
        if self.folder is None or not is_first():
            return
        recent = self.losses[max(0, self.step - SAVE_EVERY) : self.step]
        line = {
            "step": self.step,
            "loss": float(recent.mean()),
            "validation_loss": loss,
            "learning_rate": float(np.asarray(_schedule(self.training)(self.step))),
            "seconds": round(time.time() - self.started, 1),
        }
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._save()

    def _arrays(self):
        arrays = (self.encoder, self.average, self.state)
        leaves = jax.tree.leaves(eqx.filter(arrays, eqx.is_array))
        return {f"{i:04}": np.asarray(x) for i, x in enumerate(leaves)}

    def _save(self):
        path = (self.folder / f"state-{self.step:07}").absolute()
        shutil.rmtree(path, ignore_errors=True)
        content = {
            "arrays": self._arrays(),
            "losses": self.losses[: self.step],
            "validation": self.validation,
        }
        with checkpointer() as writer:
            writer.save(path, content)
        for old in self.folder.glob("state-*"):
            if old.name < path.name:
                shutil.rmtree(old)

    def _read(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        states = sorted(self.folder.glob("state-???????"))
        if not states:
            (self.folder / "metrics.jsonl").unlink(missing_ok=True)
            return None
        with checkpointer() as reader:
            return reader.restore(states[-1].absolute())

    def _restore(self):
        content = from_first(self._read)
        if content is None:
            return
        arrays = (self.encoder, self.average, self.state)
        kept, structure = jax.tree.flatten(eqx.filter(arrays, eqx.is_array))
        found = [content["arrays"][f"{i:04}"] for i in range(len(content["arrays"]))]
        steps = len(content["losses"])
        if [x.shape for x in kept] != [x.shape for x in found] or steps > len(
            self.losses
        ):
            raise ValueError(
                f"{self.folder} holds the state of another training run; name another "
                "folder, or empty it."
            )
        restored = jax.tree.unflatten(structure, [jnp.asarray(x) for x in found])
        rest = eqx.filter(arrays, eqx.is_array, inverse=True)
        self.encoder, self.average, self.state = eqx.combine(restored, rest)
        self.step = steps
        self.losses[:steps] = content["losses"]
        self.validation = np.asarray(content["validation"], np.float32).reshape(-1, 2)

    def result(self) -> Trained:
        average = fetch(self.average, self.where)
        return Trained(average, self.losses, self.validation)


def _first_cycle(training: TrainingConfig) -> int:
    """Steps of the first of two cycles; the second one polishes."""
    return max(2, training.num_steps * 2 // 3)


def _schedule(training: TrainingConfig) -> optax.Schedule:
    first = _first_cycle(training)
    rate = training.learning_rate
    warm_up = min(500, first // 10 + 1)
    learn = optax.warmup_cosine_decay_schedule(0.0, rate, warm_up, first)
    rest = max(training.num_steps - first, 1)
    polish = optax.cosine_decay_schedule(rate / 2, rest)
    return optax.join_schedules([learn, polish], [first])


def optimiser(training: TrainingConfig) -> optax.GradientTransformation:
    """AdamW with clipped gradients; a warm-up and a cosine, and a second, lower one."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(_schedule(training), weight_decay=training.weight_decay),
    )


@eqx.filter_jit(donate="none")
def _learn(
    encoder,
    average,
    state,
    batch,
    key,
    step,
    clean,
    training,
    crop,
    where,
):
    key, any_key = jr.split(key)
    spike_times, is_anomaly = constrain(
        augment(key, batch.spike_times, training, crop, clean), where.split
    )
    forgotten = jr.bernoulli(any_key, ANY, batch.priors.shape)
    priors = jnp.where(forgotten, PRIORS.index("any"), batch.priors)
    changing, fixed = eqx.partition(encoder, learned(encoder))

    def loss(changing):
        whole = merge(eqx.combine(changing, fixed))
        return _loss(whole, spike_times, priors, is_anomaly, batch)

    value, gradient = constrain(
        eqx.filter_value_and_grad(loss)(changing), where.everywhere
    )
    updates, state = optimiser(training).update(gradient, state, changing)
    changing = eqx.apply_updates(changing, updates)
    # An average over few steps at first, so that it soon forgets the start.
    decay = jnp.minimum(0.999, (1 + step) / (10 + step))
    before = eqx.filter(average, learned(average))
    now = jax.tree.map(lambda a, e: decay * a + (1 - decay) * e, before, changing)
    changing, now, state = constrain((changing, now, state), where.everywhere)
    return eqx.combine(changing, fixed), eqx.combine(now, fixed), state, value


@eqx.filter_jit
def _validation_loss(encoder, batch, key, training):
    clean = jnp.asarray(CLEAN[0], jnp.float32)
    spike_times, is_anomaly = augment(
        key, batch.spike_times, training, CROPS[-1], clean
    )
    return _loss(merge(encoder), spike_times, batch.priors, is_anomaly, batch)


def _loss(encoder: Encoder, spike_times, priors, is_anomaly, batch: Batch) -> PyTree:
    reading = jax.vmap(encoder)(spike_times, priors)
    scales = encoder.scales
    slow = to_logits(batch.slow, scales.low[None], scales.high[None])
    fast = to_logits(batch.fast, scales.fast_low[None], scales.fast_high[None])
    density = jax.vmap(mixture_log_prob)
    miss = -density(reading.weights, reading.means, reading.factors, slow)
    miss_fast = -density(
        reading.fast_weights, reading.fast_means, reading.fast_factors, fast
    )
    label = optax.softmax_cross_entropy_with_integer_labels(
        reading.labels, batch.labels
    )
    known = jnp.isfinite(batch.features)
    away = jnp.where(known, reading.features - jnp.where(known, batch.features, 0), 0)
    features = jnp.mean(jnp.sqrt(1 + (away / FINE) ** 2) - 1, axis=-1)
    each = miss + FAST_WEIGHT * miss_fast
    each += LABEL_WEIGHT * label + FEATURE_WEIGHT * features
    own = (~is_anomaly).astype(each.dtype)
    anomaly = optax.sigmoid_binary_cross_entropy(reading.anomaly, 1 - own)
    total = jnp.sum(own * each) / jnp.maximum(jnp.sum(own), 1)
    return total + ANOMALY_WEIGHT * jnp.mean(anomaly)
