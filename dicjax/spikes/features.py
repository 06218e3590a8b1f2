"""Features of spike trains, among them the firing pattern.

A train is a row of times in ms, increasing and padded with infinity. All features are
functions of its interspike intervals (ISIs), which are taken before anything is
rounded to float32.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dicjax._core import AnyArray, batches, compiled_size, counted, described, Scalar
from dicjax.spikes.grouping import (
    grouping_of,
    mean_of,
    ratio_of,
    regularity_of,
    sum_of,
    unbroken,
    variation_of,
    whole_bursts,
    widest_gap,
)
from dicjax.spikes.patterns import BURSTING, Grouping, label_of, LABELS
from dicjax.spikes.trains import (
    AnyTrains,
    Count,
    Counts,
    end_to_end,
    Intervals,
    Mask,
    Ragged,
    Row,
    rows_of,
    SpikeTrain,
    times_of,
    Trains,
)


NARROWEST, AT_ONCE = 64, 131_072  # spikes for which there is room in a row, and in all
SMALLEST_VARIANCE = 1e-10  # of logarithms of intervals; less is rounding
FEWEST = 64  # rows at once: the last digit may depend on it where there are fewer


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
    - `period_cv`: coefficient of variation of the periods.
    - `spikes_per_burst_sd`: standard deviation of the numbers of spikes.
    - `intra_burst_cv`: coefficient of variation of ISIs within bursts.
    - `serial_correlation`: of the logarithms of neighbouring ISIs, of any train.

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
    period_cv: Float[AnyArray, "*cells"]
    spikes_per_burst_sd: Float[AnyArray, "*cells"]
    intra_burst_cv: Float[AnyArray, "*cells"]
    serial_correlation: Float[AnyArray, "*cells"]

    def __repr__(self) -> str:
        def patterns() -> str:
            num = np.bincount(np.ravel(self.label), minlength=len(LABELS))
            kinds = zip(num.tolist(), LABELS, strict=True)
            of_kind = ", ".join(f"{n:,} {name}" for n, name in kinds if n)
            return f"{counted(int(num.sum()), 'train')}, {of_kind}".rstrip(", ")

        return described(self, patterns)


TIMES = ("mean_isi", "isi_quartiles", "period", "intra_burst_isi", "burst_duration")
"""Fields of `Features` that are times, in ms."""


def spike_features(spike_times: AnyTrains) -> Features:
    """Measures every spike train of a batch and names its firing pattern.

    The pattern is *silent* below 3 spikes. It is *tonic* if the coefficient of
    variation (CV) of the ISIs is below 0.15. It is *bursting* if there are 6 spikes or
    more, the sorted ISIs have a gap, and splitting the train at the middle of the
    widest gap gives 3 bursts or more, with 1.5 spikes or more in the mean of the
    complete ones. It is *irregular* otherwise.

    Recordings miss spikes and hold wrong ones, and no single ISI decides:

    - A gap is the range between two ISIs of a ratio of 1.8 or more, if it is empty. It
        may hold a fifth as many ISIs as the side with fewer of them, if the ratio is
        2.2 or more. Longer ISIs are at least 0.5 % of all.
    - Bursts of several spikes have a CV of their numbers of spikes below 0.7, and
        pauses between bursts have one below 1.5. The first and the last burst, which
        may be cut, have no more than 3 times as many spikes as the mean burst, unless
        the complete bursts hold half of all spikes.
    - A train of 6 spikes or more is tonic too if its *ordinary* ISIs, those within a
        factor of 1.4 of the median, have a CV below 0.15, are 80 % of all and have a
        mean of at least 85 % of that of all, and the others follow no rhythm: the CV of
        the spikes between pauses is 0.5 or more where a gap has 80 % of the width that
        it must have. The train may even seem to burst, since spikes are missing, if
        60 % of the long ISIs are multiples of the median, within a quarter of it.

    **Arguments:**

    - `spike_times`: in ms, rows increasing and padded with infinity. Leading axes, if
        any, index independent cells. Also a [`dicjax.SpikeTrain`][], a sequence of
        them or of rows of any lengths, or what holds spike times, such as a
        [`dicjax.Run`][] or a [`dicjax.Trajectory`][].

    No interval reaches across a time in which a train was not `observed`, and a burst
    that this cuts is left out like the first and the last one.

    Arrays of JAX are measured where they are, in their precision and as a pure
    function. Others are measured in pieces, so that memory stays bounded.

    **Returns:**

    [`dicjax.Features`][] with these leading axes.

    **Raises:**

    - `ValueError`: if a row on the host does not increase; arrays of JAX are trusted.
    """
    if isinstance(spike_times, SpikeTrain):
        return jax.tree.map(lambda x: x[0], _on_host([spike_times]))
    times = times_of(spike_times)
    if isinstance(times, jax.Array):
        return _spike_features(*_differences(times))
    return _on_host(times)


def burst_gap(features: Features) -> Float[AnyArray, "*cells"]:
    """The interval (ms) that parts bursts: longer ones lie between two bursts.

    It is the geometric mean of the mean interval within bursts and the pause between
    them, and nan for trains that do not burst.
    """
    pause = features.period - features.burst_duration
    return (features.intra_burst_isi * pause) ** 0.5


def _differences(times: Trains) -> tuple[Intervals, Counts]:
    is_spike = jnp.isfinite(times)
    intervals = jnp.diff(jnp.where(is_spike, times, 0), axis=-1)
    intervals = jnp.where(is_spike[..., 1:], intervals, jnp.inf)
    return intervals, jnp.sum(is_spike, axis=-1, dtype=jnp.int32)


def _on_host(times: np.ndarray | list[Any]) -> Features:
    shape = (len(times),) if isinstance(times, list) else times.shape[:-1]
    # Values are known here even where a caller is being traced.
    with jax.ensure_compile_time_eval():
        pieces = [_of_piece(piece) for piece in end_to_end(times)]
        if not pieces:
            nothing = jnp.zeros((0, 2)), jnp.zeros(0, jnp.int32)
            pieces = [_spike_features(*nothing)]
    together = lambda *x: jnp.asarray(np.concatenate(x))
    every = jax.tree.map(together, *pieces)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), every)


def _of_piece(trains: Ragged) -> Features:
    """Features on the host.

    Trains are read in batches of few shapes, each in a row about as wide as its own
    spikes need. This takes less time than reading all in rows of one width, and gives
    the same features to the last digit.
    """
    dtype = jax.dtypes.canonicalize_dtype(trains.times.dtype)
    intervals = trains.intervals.astype(dtype)
    num_spikes = trains.counts.astype(np.int32)
    has_breaks = trains.is_fresh is not None
    counts, which = np.unique(num_spikes, return_inverse=True)
    sizes = [compiled_size(num, NARROWEST) for num in counts.tolist()]
    widths = np.array(sizes)[which]
    order, found = [], []
    for width in np.unique(widths).tolist():
        (rows,) = np.nonzero(widths == width)
        size = min(max(1, AT_ONCE // width), compiled_size(len(rows), FEWEST))
        for some, num in batches(rows, size):
            counts = np.maximum(trains.counts[some] - 1, 0)
            row = rows_of(intervals, trains.starts[some], counts, width - 1)
            numbers = jnp.asarray(row), jnp.asarray(num_spikes[some])
            own = _spike_features(*numbers, has_breaks)
            order.append(some[:num])
            found.append(jax.tree.map(lambda x, n=num: np.asarray(x)[:n], own))
    place = np.argsort(np.concatenate(order))
    return jax.tree.map(lambda *x: np.concatenate(x)[place], *found)


@eqx.filter_jit
def _spike_features(
    intervals: Intervals, num_spikes: Counts, has_breaks: bool = False
) -> Features:
    # Two intervals at least, so that no reduction is over nothing.
    missing = [(0, 0)] * num_spikes.ndim + [(0, max(2 - intervals.shape[-1], 0))]
    intervals = jnp.pad(intervals, missing, constant_values=jnp.inf)
    measure = functools.partial(_features_of_one, has_breaks=has_breaks)
    for _ in range(num_spikes.ndim):
        measure = jax.vmap(measure)
    return measure(intervals, num_spikes)


def _features_of_one(
    intervals: Row, num_spikes: Count, *, has_breaks: bool
) -> Features:
    known = jnp.isfinite(intervals)
    num = jnp.sum(known, dtype=jnp.int32)
    isi = jnp.where(known, intervals, 0)
    ordered = _sort_non_negative(intervals)
    mean = mean_of(isi, known)
    cv = jnp.where(num > 1, variation_of(isi, known), jnp.nan)
    cv2, lv = _local_variation(isi, known)

    clearness, threshold = widest_gap(ordered, num)
    is_gap = known & (isi > threshold)
    whole = whole_bursts(is_gap)
    if has_breaks:
        index = jnp.arange(isi.size, dtype=jnp.int32)
        whole &= unbroken(is_gap, ~known & (index < num_spikes - 1))
    split = grouping_of(isi, is_gap, whole, num_spikes, clearness)
    bursts = _bursts(isi, is_gap, whole, split)
    regular = regularity_of(isi, known, ordered, cv)
    label = label_of(num_spikes, regular, split)
    return Features(
        label=label,
        num_spikes=num_spikes,
        rate=1000 / mean,
        mean_isi=mean,
        cv=cv,
        cv2=cv2,
        lv=lv,
        isi_quartiles=_log_quartiles(ordered, num),
        serial_correlation=_serial_correlation(isi, known),
        num_bursts=jnp.where(label == BURSTING, split.num_bursts - 2, 0),
        **{k: jnp.where(label == BURSTING, x, jnp.nan) for k, x in bursts.items()},
    )


def _bursts(isi: Row, is_gap: Mask, whole: Mask, split: Grouping) -> dict[str, Scalar]:
    # Complete bursts lie between gaps, and there their means telescope: no burst needs
    # to be looked at alone.
    within = whole & ~is_gap
    time, time_within = sum_of(isi, whole), sum_of(isi, within)
    num_spikes = split.complete.astype(isi.dtype)
    num_complete = split.num_bursts - 2
    return {
        "period": ratio_of(time, num_complete),
        "intra_burst_isi": mean_of(isi, within),
        "spikes_per_burst": ratio_of(num_spikes, num_complete),
        "burst_duration": ratio_of(time_within, num_complete),
        "duty_cycle": time_within / jnp.where(time > 0, time, 1),
        "period_cv": split.period_cv,
        "spikes_per_burst_sd": split.spikes_per_burst_sd,
        "intra_burst_cv": variation_of(isi, within),
    }


def _serial_correlation(isi: Row, known: Mask) -> Scalar:
    log = jnp.log(jnp.where(known & (isi > 0), isi, 1))
    away = jnp.where(known, log - mean_of(log, known), 0)
    is_pair = known[1:] & known[:-1]
    variance = mean_of(away**2, known)
    # Equal intervals have no correlation.
    some = variance > SMALLEST_VARIANCE
    product = mean_of(away[1:] * away[:-1], is_pair)
    return jnp.where(some, product / jnp.where(some, variance, 1), jnp.nan)


def _local_variation(isi: Row, known: Mask) -> tuple[Scalar, Scalar]:
    total = isi[1:] + isi[:-1]
    is_pair = known[1:] & known[:-1] & (total > 0)
    change = jnp.abs(isi[1:] - isi[:-1]) / jnp.where(is_pair, total, 1)
    return 2 * mean_of(change, is_pair), 3 * mean_of(change**2, is_pair)


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
    return jax.tree.map(np.asarray, spike_features(train))
