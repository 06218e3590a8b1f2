"""How the intervals of a train are grouped: around one, or into bursts and pauses.

All functions see one train, and their number of intervals may be any, so that some of a
row are not known.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dicjax._core import Scalar
from dicjax.spikes.patterns import (
    Grouping,
    INTERVALS_PER_PAUSE,
    INTERVALS_PER_STRAY,
    MIN_GAP_RATIO,
    MIN_STRAY_GAP_RATIO,
    MISSED_WITHIN,
    ORDINARY,
    Regularity,
)


Row = Float[Array, " _"]
Mask = Bool[Array, " _"]
Count = Int[Array, ""]


def ratio_of(total: Scalar, count: Count) -> Scalar:
    """The quotient, nan if there is nothing."""
    some = jnp.maximum(count, 1).astype(total.dtype)
    return jnp.where(count > 0, total / some, jnp.nan)


def mean_of(x: Row, where: Mask) -> Scalar:
    """Mean of the selected values; nan if there are none."""
    return ratio_of(sum_of(x, where), jnp.sum(where, dtype=jnp.int32))


def sum_of(x: Row, where: Mask) -> Scalar:
    """Sum of the selected values."""
    # The order in which `jnp.sum` adds, and thus the last digit, depends on how many
    # rows are computed at once.
    x = jnp.where(where, x, 0)
    while x.size > 1:
        half = (x.size + 1) // 2
        x = x[:half] + jnp.pad(x[half:], (0, 2 * half - x.size))
    return jnp.sum(x)


def variation_of(x: Row, where: Mask) -> Scalar:
    """Coefficient of variation of the selected values; nan if there are none."""
    mean = mean_of(x, where)
    variance = mean_of((x - mean) ** 2, where)
    # The slope at zero is infinite, but a spread of zero is a minimum.
    is_zero = variance == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, variance))) / mean


def regularity_of(isi: Row, known: Mask, ordered: Row, cv: Scalar) -> Regularity:
    """How regular intervals are.

    - `isi`: intervals, of which some are `known`; `ordered`: sorted; `cv`: theirs.
    """
    num = jnp.sum(known, dtype=jnp.int32)
    median = ordered[jnp.maximum(num - 1, 0) // 2]
    is_long = known & (isi > ORDINARY * median)
    is_near = known & ~is_long & (isi * ORDINARY > median)
    times = isi / jnp.where(median > 0, median, 1)
    is_multiple = is_long & (jnp.abs(times - jnp.round(times)) < MISSED_WITHIN)
    share = mean_of(is_multiple.astype(isi.dtype), is_long)
    return Regularity(
        cv=cv,
        ordinary_cv=variation_of(isi, is_near),
        ordinary=mean_of(is_near.astype(isi.dtype), known),
        ordinary_mean=mean_of(isi, is_near) / mean_of(isi, known),
        multiples=jnp.where(jnp.any(is_long), share, 1),
    )


def widest_gap(ordered: Row, num: Count) -> tuple[Scalar, Scalar]:
    """The widest gap among sorted intervals, some of which may stray into it.

    Returns how many times as wide as it must be it is, and the interval (ms) in its
    middle, on a logarithmic scale.
    """
    index = jnp.arange(ordered.size - 1, dtype=jnp.int32)
    shorter, longer = index + 1, num - 1 - index
    is_candidate = (longer >= 2) & (INTERVALS_PER_PAUSE * longer >= num)
    is_candidate &= 3 * shorter + 3 >= num  # or bursts have too few spikes
    strays = jnp.minimum(shorter, longer) // INTERVALS_PER_STRAY
    # Strays are the longest of the short intervals, the shortest of the long, or both.
    some = (0, strays // 2, strays)
    ways = [(below, strays - below, MIN_STRAY_GAP_RATIO) for below in some]
    ways = [(0, 0, MIN_GAP_RATIO), *ways]
    clearness, middle = jnp.zeros_like(ordered[1:]), jnp.full_like(ordered[1:], jnp.inf)
    for num_below, num_above, least in ways:
        below = ordered[jnp.maximum(index - num_below, 0)]
        above = ordered[jnp.minimum(index + 1 + num_above, ordered.size - 1)]
        is_gap = is_candidate & jnp.isfinite(above) & (below > 0)
        ratio = jnp.where(is_gap, above / jnp.where(is_gap, below, 1), 0)
        is_wider = ratio > least * clearness
        clearness = jnp.where(is_wider, ratio / least, clearness)
        middle = jnp.where(is_wider, below * jnp.sqrt(ratio), middle)
    widest = jnp.max(clearness)
    is_widest = (clearness == widest) & (clearness > 0)
    return widest, jnp.min(jnp.where(is_widest, middle, jnp.inf))


def whole_bursts(is_gap: Mask) -> Mask:
    """Intervals of whole bursts, with the gap after each: from the first gap on."""
    index = jnp.arange(is_gap.size, dtype=jnp.int32)
    first = jnp.min(jnp.where(is_gap, index, is_gap.size))
    last = jnp.max(jnp.where(is_gap, index, -1))
    return (index > first) & (index <= last)


def unbroken(is_gap: Mask, is_break: Mask) -> Mask:
    """Intervals in bursts that no break cuts: a gap lies next to them on both sides."""
    index = jnp.arange(is_gap.size, dtype=jnp.int32)
    at = lambda mask, fill: jnp.where(mask, index, fill)
    earlier = lambda mask: jnp.pad(at(mask, -1)[:-1], (1, 0), constant_values=-1)
    before = lambda mask: jax.lax.cummax(earlier(mask))
    after = lambda mask: jax.lax.cummin(at(mask, is_gap.size), reverse=True)
    return (before(is_gap) > before(is_break)) & (after(is_gap) < after(is_break))


def grouping_of(
    isi: Row, is_gap: Mask, whole: Mask, num_spikes: Count, clearness: Scalar
) -> Grouping:
    """What a train is like that gaps split into bursts, of which some are `whole`."""
    index = jnp.arange(is_gap.size, dtype=jnp.int32)
    at = jnp.sort(jnp.where(is_gap, index, is_gap.size), stable=False)
    first, last = at[0], jnp.max(jnp.where(is_gap, index, -1))
    num_complete = jnp.sum(whole & is_gap, dtype=jnp.int32)
    complete = jnp.sum(whole, dtype=jnp.int32)
    runs = (at[1:] - at[:-1]).astype(clearness.dtype)
    ends = jnp.minimum(at[1:], is_gap.size - 1)
    is_run = (at[1:] < is_gap.size) & whole[ends]
    passed = jnp.cumsum(isi)
    periods = passed[ends] - passed[jnp.minimum(at[:-1], is_gap.size - 1)]
    many = is_run & (runs > 1)
    outer = jnp.maximum(first + 1, num_spikes - 1 - last)
    run_cv, burst_cv = variation_of(runs, is_run), variation_of(runs, many)
    return Grouping(
        clearness=clearness,
        num_bursts=num_complete + 2,  # the first and the last may be cut
        spikes_per_burst=ratio_of(complete.astype(clearness.dtype), num_complete),
        outer=outer.astype(clearness.dtype),
        complete=complete,
        run_cv=jnp.where(num_complete > 2, run_cv, jnp.nan),
        burst_cv=jnp.where(jnp.any(many), burst_cv, 0),
        pause_cv=variation_of(isi, is_gap),
        period_cv=jnp.where(num_complete > 1, variation_of(periods, is_run), jnp.nan),
        spikes_per_burst_sd=jnp.where(
            num_complete > 1, run_cv * mean_of(runs, is_run), jnp.nan
        ),
    )
