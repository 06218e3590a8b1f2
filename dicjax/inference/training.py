"""Training an encoder on simulated trains."""

import dataclasses
import json
import pathlib
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from dicjax._core import (
    begin_fit,
    clipped,
    constrain,
    decay_of,
    fetch,
    from_first,
    improve,
    in_float32,
    is_first,
    keep_state,
    Kept,
    kept_state,
    placement,
    Progress,
    put,
    train,
)
from dicjax.inference.adapter import learned, merge
from dicjax.inference.augmentation import augment
from dicjax.inference.config import EncoderConfig, TrainingConfig
from dicjax.inference.dataset import Batch
from dicjax.inference.encoder import Encoder, make_scales, Mixture, PRIORS, to_logits
from dicjax.spikes import LABELS


# Beside the density of (g_s, g_u) in the loss.
FAST_WEIGHT, LABEL_WEIGHT, FEATURE_WEIGHT, ANOMALY_WEIGHT = 0.3, 0.3, 0.1, 0.3
FINE = 0.05  # of log features: misses far below count by their square
SHARES = {"tonic": 0.35, "bursting": 0.55, "irregular": 0.1}  # of what is learned from
REPEATS = 20.0  # times at most that a member is drawn for its pattern being rare
CLEAN = (0.5, 0.75)  # share of trains without flaws, in the first and second cycle
ANY = 1 / 3  # share of trains that are read as if their source were not known
HELD_OUT = 20  # every so many members are kept apart
NUM_VALIDATION = 2048
METRICS = "metrics.jsonl"
AVERAGED = 0.999  # decay of the moving average of weights


@dataclasses.dataclass(frozen=True)
class Trained:
    """An encoder and how its losses went.

    The encoder's adapter is still attached, if it has one. `validation` has rows of
    (step, loss on members kept apart).
    """

    encoder: Encoder
    losses: Float[np.ndarray, " steps"]
    validation: Float[np.ndarray, "rows 2"]


def new_encoder(
    known: Batch,
    g_s: tuple[float, float],
    g_u: tuple[float, float],
    config: EncoderConfig,
    seed: int,
) -> Encoder:
    """An encoder that has learned nothing yet, scaled to a model's trains."""
    return in_float32(Encoder(config, scales_of(known, g_s, g_u), key=jr.key(seed)))


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


def train_encoder(
    encoder: Encoder,
    known: Batch,
    training: TrainingConfig,
    *,
    folder: pathlib.Path | None = None,
    on_progress: Progress | None = None,
) -> Trained:
    """Trains an encoder of (g_s, g_u), or an adapter attached to one.

    Every step sees random stretches of random trains, as they might be recorded; see
    `augment`. A twentieth of the members is kept apart. Devices share every batch;
    where several processes were joined by `jax.distributed`, all have to call this with
    the same arguments, and the first one keeps the run in `folder`: `metrics.jsonl`, a
    line for every validation, and the state, from which a run that was stopped goes on
    as if it had not been. Only the leaves that `learned` marks are trained.

    Raises `ValueError` if devices cannot share the batch evenly, or if `folder` holds
    the state of another run.
    """
    where = placement(batch_size=training.batch_size)
    first_cycle = _first_cycle(training)
    changing, fixed = eqx.partition(encoder, learned(encoder))
    fit = begin_fit(changing, optimiser(training))
    losses = np.zeros(training.num_steps, np.float32)
    run = Kept((fit, losses), {"step": 0, "validation": []})
    settings = json.dumps(dataclasses.asdict(training), sort_keys=True)
    if folder is not None:
        run = from_first(lambda: kept_state(folder, settings, run.arrays)) or run
    fit, losses = run.arrays
    fit, fixed = put((fit, fixed), where.everywhere)
    validation = run.about["validation"]
    held_out = np.arange(len(known.labels)) % HELD_OUT == 0
    learn_from = np.flatnonzero(~held_out)
    odds = np.cumsum(_odds(np.asarray(known.labels)[learn_from]))
    apart = known[np.flatnonzero(held_out)[:NUM_VALIDATION]]
    started = time.time()

    def learn(step, fit):
        rng = np.random.default_rng((training.seed, step))
        crop = int(rng.choice(training.crops, p=training.crop_shares))
        drawn = np.searchsorted(odds, rng.random(training.batch_size) * odds[-1])
        batch = put(known[learn_from[drawn]], where.split)
        key = jr.fold_in(jr.key(training.seed), step)
        at = jnp.asarray(step, jnp.float32)
        clean = jnp.asarray(CLEAN[int(step >= first_cycle)], jnp.float32)
        fit, losses[step] = _learn(
            fit, fixed, batch, key, at, clean, training, crop, where
        )
        return fit, losses[step]

    def keep(done, fit):
        value = float(_validation_loss(fit.average, fixed, apart, training))
        validation.append((float(done), value))
        if folder is not None:
            whole = fetch(fit, where)
            if is_first():
                _note(folder, training, losses[:done], value, time.time() - started)
                about = {"step": done, "validation": validation}
                keep_state(folder, settings, (whole, losses), about)

    fit = train(
        fit,
        learn,
        training.num_steps,
        first=run.about["step"],
        keep=keep,
        keep_every=training.save_every,
        on_progress=on_progress,
    )
    average = eqx.combine(fetch(fit.average, where), fetch(fixed, where))
    rows = np.array(validation, np.float32).reshape(-1, 2)
    return Trained(average, losses, rows)


def _odds(labels):
    """How often each member is drawn: patterns by their shares, within reason."""
    odds = np.zeros(len(labels))
    for name, share in SHARES.items():
        of = labels == LABELS.index(name)
        if of.any():
            odds[of] = min(share / of.mean(), REPEATS)
    return odds


def _note(folder, training, losses, validation_loss, seconds) -> None:
    """Adds a line to the metrics of a run; the first one replaces those of others."""
    step = len(losses)
    line = {
        "step": step,
        "loss": float(losses[-training.save_every :].mean()),
        "validation_loss": validation_loss,
        "learning_rate": float(np.asarray(_schedule(training)(step))),
        "seconds": round(seconds, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / METRICS).open("a" if step > training.save_every else "w") as file:
        file.write(json.dumps(line) + "\n")


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
    adam = optax.adamw(_schedule(training), weight_decay=training.weight_decay)
    return clipped(adam)


@eqx.filter_jit
def _learn(fit, fixed, batch, key, step, clean, training, crop, where):
    key, any_key = jr.split(key)
    stretches = augment(key, batch.spike_times, training, crop, clean)
    spike_times, is_anomaly = constrain(stretches, where.split)
    forgotten = jr.bernoulli(any_key, ANY, batch.priors.shape)
    priors = jnp.where(forgotten, PRIORS.index("any"), batch.priors)

    def loss(changing):
        whole = merge(eqx.combine(changing, fixed))
        return encoder_loss(whole, spike_times, priors, is_anomaly, batch)

    decay = decay_of(step, AVERAGED)
    improved = improve(fit, loss, optimiser(training), decay, where)
    return constrain(improved, where.everywhere)


@eqx.filter_jit
def _validation_loss(average, fixed, batch, training):
    key = jr.key(0)  # the same stretches every time
    clean, crop = jnp.asarray(CLEAN[0], jnp.float32), training.crops[-1]
    spike_times, is_anomaly = augment(key, batch.spike_times, training, crop, clean)
    whole = merge(eqx.combine(average, fixed))
    return encoder_loss(whole, spike_times, batch.priors, is_anomaly, batch)


def encoder_loss(
    encoder: Encoder,
    spike_times: Float[Array, "batch spikes"],
    priors: Int[Array, " batch"],
    is_anomaly: Bool[Array, " batch"],
    batch: Batch,
) -> Float[Array, ""]:
    """What an encoder is trained to make small, for stretches of the trains of a batch.

    The densities of (g_s, g_u) and (g_f, V_th), firing patterns, features and the
    score of anomalies. Of trains that are anomalies, only the score counts.
    """
    reading = jax.vmap(encoder)(spike_times, priors)
    scales = encoder.scales
    slow = to_logits(batch.slow, scales.low[None], scales.high[None])
    fast = to_logits(batch.fast, scales.fast_low[None], scales.fast_high[None])
    density = jax.vmap(Mixture.log_prob)
    miss, miss_fast = -density(reading.slow, slow), -density(reading.fast, fast)
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
