"""Features of spike trains, among them the firing pattern.

A train is a row of times in ms, increasing and padded with infinity. All features are
functions of its interspike intervals (ISIs), which are taken before anything is
rounded to float32.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dicjax._core import batches, compiled_size, widened
from dicjax.spikes.patterns import BURSTING, label_of
from dicjax.spikes.trains import (
    AnyArray,
    Count,
    Counts,
    Intervals,
    Mask,
    pad_trains,
    Row,
    Scalar,
    SpikeTrain,
    Trains,
)


NARROWEST, AT_ONCE = 64, 131_072  # spikes for which there is room in a row, and in all


class Features(eqx.Module):
    """What a spike train looks like; nan where a feature is not defined.

    Bursts are described without the first and the last one, which may be cut.

    - `label`: the firing pattern, an index into [`dicjax.LABELS`][].
    - `num_spikes`: how many there are.
    - `rate`: inverse of the mean interspike interval (ISI), in Hz.
    - `mean_isi`: in ms; `isi_quartiles`: in ms, interpolated in the logarithm.
    - `cv`: coefficient of variation of the ISIs; `cv2`, `lv`: the same of neighbours.
    - `num_bursts`: complete ones.
    - `period`: of bursts, onset to onset, in ms.
    - `intra_burst_isi`: mean ISI within bursts, in ms.
    - `spikes_per_burst`: in the mean.
    - `burst_duration`: first to last spike, in ms.
    - `duty_cycle`: `burst_duration` as a share of `period`.

    ??? cite "Reference"

        CV2: Holt et al. (1996), J. Neurophysiol. 75(5). LV: Shinomoto et al. (2003),
        Neural Comput. 15(12).
    """

    label: Int[AnyArray, "*cells"]
    num_spikes: Int[AnyArray, "*cells"]
    rate: Float[AnyArray, "*cells"]
    mean_isi: Float[AnyArray, "*cells"]
    cv: Float[AnyArray, "*cells"]
    cv2: Float[AnyArray, "*cells"]
    lv: Float[AnyArray, "*cells"]
    isi_quartiles: Float[AnyArray, "*cells 3"]
    num_bursts: Int[AnyArray, "*cells"]
    period: Float[AnyArray, "*cells"]
    intra_burst_isi: Float[AnyArray, "*cells"]
    spikes_per_burst: Float[AnyArray, "*cells"]
    burst_duration: Float[AnyArray, "*cells"]
    duty_cycle: Float[AnyArray, "*cells"]


TIMES = ("mean_isi", "isi_quartiles", "period", "intra_burst_isi", "burst_duration")
"""Fields of `Features` that are times, in ms."""


def spike_features(spike_times: Trains) -> Features:
    """Measures every spike train of a batch and names its firing pattern.

    The pattern is *silent* below 3 spikes; *tonic* if the coefficient of variation of
    the ISIs is below 0.15; *bursting* if there are 6 spikes or more, the sorted ISIs
    have a gap of ratio 1.8 or more between neighbours, and splitting the train at the
    geometric mean across the largest such gap gives 3 bursts or more, with 1.5 spikes
    or more on average over the complete ones; *irregular* otherwise.

    **Arguments:**

    - `spike_times`: in ms, rows increasing and padded with infinity. Leading axes, if
        any, index independent cells.

    **Returns:**

    [`dicjax.Features`][] with these leading axes.

    **Raises:**

    - `ValueError`: if a row on the host does not increase; arrays on a device are
        trusted.
    """
    return _spike_features(*_intervals(spike_times))


def burst_gap(features: Features) -> Float[AnyArray, "*cells"]:
    """The interval (ms) that parts bursts: longer ones lie between two bursts.

    It is the geometric mean of the mean interval within bursts and the pause between
    them, and nan for trains that do not burst.
    """
    pause = features.period - features.burst_duration
    return (features.intra_burst_isi * pause) ** 0.5


def _intervals(spike_times: Trains) -> tuple[Intervals, Counts]:
    if isinstance(spike_times, jax.Array):
        return _differences(jnp, spike_times)
    times = np.asarray(spike_times)
    dtype = times.dtype if times.dtype.kind == "f" else np.float64
    times = times.astype(np.float64)
    before, after = times[..., :-1], times[..., 1:]
    follows = after >= before
    if not follows.all():
        raise ValueError(
            f"Spike times must increase along the last axis, but {after[~follows][0]} "
            f"ms follows {before[~follows][0]} ms: sort them and pad with infinity."
        )
    intervals, num_spikes = _differences(np, times)
    return jnp.asarray(intervals.astype(dtype)), jnp.asarray(num_spikes)


def _differences(numpy, times):
    is_spike = numpy.isfinite(times)
    intervals = numpy.diff(numpy.where(is_spike, times, 0), axis=-1)
    intervals = numpy.where(is_spike[..., 1:], intervals, numpy.inf)
    return intervals, numpy.sum(is_spike, axis=-1).astype(np.int32)


@eqx.filter_jit
def _spike_features(intervals: Intervals, num_spikes: Counts) -> Features:
    # Two intervals at least, so that no reduction is over nothing.
    missing = [(0, 0)] * num_spikes.ndim + [(0, max(2 - intervals.shape[-1], 0))]
    intervals = jnp.pad(intervals, missing, constant_values=jnp.inf)
    measure = _features_of_one
    for _ in range(num_spikes.ndim):
        measure = jax.vmap(measure)
    return measure(intervals, num_spikes)


def _features_of_one(intervals: Row, num_spikes: Count) -> Features:
    known = jnp.isfinite(intervals)
    isi = jnp.where(known, intervals, 0)
    ordered = _sort_non_negative(intervals)
    mean = mean_of(isi, known)
    variance = mean_of((isi - mean) ** 2, known)
    cv = _safe_sqrt(jnp.where(jnp.sum(known) > 1, variance, jnp.nan)) / mean
    cv2, lv = _local_variation(isi, known)

    ratio, threshold = _largest_gap(ordered)
    is_gap = known & (isi > threshold)
    num_gaps = jnp.sum(is_gap, dtype=jnp.int32)
    bursts = _bursts(isi, is_gap, num_gaps - 1)
    label = label_of(num_spikes, cv, ratio, num_gaps + 1, bursts["spikes_per_burst"])
    return Features(
        label=label,
        num_spikes=num_spikes,
        rate=1000 / mean,
        mean_isi=mean,
        cv=cv,
        cv2=cv2,
        lv=lv,
        isi_quartiles=_log_quartiles(ordered, jnp.sum(known, dtype=jnp.int32)),
        num_bursts=jnp.where(label == BURSTING, num_gaps - 1, 0),
        **{k: jnp.where(label == BURSTING, x, jnp.nan) for k, x in bursts.items()},
    )


def _bursts(isi: Row, is_gap: Mask, num_complete: Count) -> dict[str, Scalar]:
    # Complete bursts lie between the first and the last gap, and there their means
    # telescope: no burst needs to be looked at alone.
    index = jnp.arange(isi.size, dtype=jnp.int32)
    first = jnp.min(jnp.where(is_gap, index, isi.size))
    last = jnp.max(jnp.where(is_gap, index, -1))
    between = (index > first) & (index <= last)
    within = between & ~is_gap
    time, time_within = _sum_of(isi, between), _sum_of(isi, within)
    return {
        "period": _ratio(time, num_complete),
        "intra_burst_isi": mean_of(isi, within),
        "spikes_per_burst": _ratio((last - first).astype(isi.dtype), num_complete),
        "burst_duration": _ratio(time_within, num_complete),
        "duty_cycle": time_within / jnp.where(time > 0, time, 1),
    }


def _ratio(total: Scalar, count: Count) -> Scalar:
    some = jnp.maximum(count, 1).astype(total.dtype)
    return jnp.where(count > 0, total / some, jnp.nan)


def mean_of(x: Row, where: Mask) -> Scalar:
    """Mean of the selected values; nan if there are none."""
    return _ratio(_sum_of(x, where), jnp.sum(where, dtype=jnp.int32))


def _sum_of(x: Row, where: Mask) -> Scalar:
    # The order in which `jnp.sum` adds, and thus the last digit, depends on how many
    # rows are computed at once.
    x = jnp.where(where, x, 0)
    while x.size > 1:
        half = (x.size + 1) // 2
        x = x[:half] + jnp.pad(x[half:], (0, 2 * half - x.size))
    return jnp.sum(x)


def _safe_sqrt(x: Scalar) -> Scalar:
    # The slope at zero is infinite, but a spread of zero is a minimum.
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))


def _local_variation(isi: Row, known: Mask) -> tuple[Scalar, Scalar]:
    total = isi[1:] + isi[:-1]
    is_pair = known[1:] & (total > 0)
    change = jnp.abs(isi[1:] - isi[:-1]) / jnp.where(is_pair, total, 1)
    return 2 * mean_of(change, is_pair), 3 * mean_of(change**2, is_pair)


def _largest_gap(ordered: Row) -> tuple[Scalar, Scalar]:
    below, above = ordered[:-1], ordered[1:]
    known = jnp.isfinite(above) & (below > 0)
    ratios = jnp.where(known, above / jnp.where(known, below, 1), 0)
    ratio = jnp.max(ratios)
    edge = jnp.min(jnp.where(known & (ratios == ratio), below, jnp.inf))
    return ratio, edge * jnp.sqrt(ratio)


def _log_quartiles(ordered: Row, num_intervals: Count) -> Float[Array, " 3"]:
    final = jnp.maximum(num_intervals - 1, 0)
    quarters = jnp.arange(1, 4, dtype=jnp.int32) * final
    lower, share = quarters // 4, (quarters % 4).astype(ordered.dtype) / 4
    upper = jnp.minimum(lower + 1, final)
    smallest = jnp.finfo(ordered.dtype).tiny  # two spikes may coincide in float32
    below, above = (jnp.log(jnp.maximum(ordered[i], smallest)) for i in (lower, upper))
    return jnp.exp(below * (1 - share) + above * share)


@jax.custom_jvp
def _sort_non_negative(x: Row) -> Row:
    # Positive floats are ordered as their bits, which a CPU sorts four times faster.
    integer = jnp.dtype(f"int{8 * x.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(x, integer)
    return jax.lax.bitcast_convert_type(jnp.sort(bits, stable=False), x.dtype)


@_sort_non_negative.defjvp
def _sort_non_negative_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    order = jnp.argsort(x)
    return x[order], dx[order]


def features_of(train: SpikeTrain) -> Features:
    """Features of one train, as scalars on the host."""
    # A few widths only, so that trains of other lengths compile nothing new.
    padded = pad_trains([train], compiled_size(train.num_spikes, 128))
    return jax.tree.map(lambda x: np.asarray(x)[0, ...], spike_features(padded))


def features_of_all(spike_times: Float[np.ndarray, "cells spikes"]) -> Features:
    """Features of many trains, on the host.

    Trains are read in pieces of few shapes, each in a row about as wide as its own
    spikes need. This takes less time than reading all in rows of one width, and gives
    the same features to the last digit.
    """
    if not len(spike_times):
        return jax.tree.map(np.asarray, spike_features(spike_times))
    needed = np.isfinite(spike_times).sum(axis=1)
    sizes = [compiled_size(num, NARROWEST) for num in range(spike_times.shape[1] + 1)]
    widths = np.array(sizes)[needed]
    order, pieces = [], []
    for width in np.unique(widths).tolist():
        (rows,) = np.nonzero(widths == width)
        for some, num in batches(rows, max(1, AT_ONCE // width)):
            found = spike_features(widened(spike_times[some, :width], width))
            order.append(some[:num])
            pieces.append(jax.tree.map(lambda x, n=num: np.asarray(x)[:n], found))
    order = np.argsort(np.concatenate(order))
    return jax.tree.map(lambda *x: np.concatenate(x)[order], *pieces)
