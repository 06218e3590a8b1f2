"""Whether a neuron could fire a train. If not, the unit of time may be wrong."""

import numpy as np

from dicjax._core import Advice, Remedy
from dicjax.recordings.readers.common import Times, Train
from dicjax.recordings.readers.units import milliseconds_per


POSSIBLE_HZ = (1e-3, 1e3)
PLAUSIBLE_HZ = (0.05, 200.0)
PLAUSIBLE_ISI = 0.7  # ms, for all but the shortest 1 % of intervals


def is_credible(times: Times, is_sure: bool = False) -> bool:
    low, high = POSSIBLE_HZ if is_sure else PLAUSIBLE_HZ
    is_short = bool(np.percentile(np.diff(times), 1) < PLAUSIBLE_ISI)
    return low <= _rate(times) <= high and (is_sure or not is_short)


def is_usual(raw: list[Train]) -> bool:
    # NWB prescribes seconds, but some published files hold ms.
    known = [t.times * milliseconds_per(t.usual_unit) for t in raw if t.usual_unit]
    return any(PLAUSIBLE_HZ[0] <= _rate(ms) <= PLAUSIBLE_HZ[1] for ms in known)


def disbelief(raw: Train, known: str | None, is_sure: bool) -> Advice:
    tried = known or "ms"
    options = []
    for unit in ("s", "us", "samples@30000", "min", "ms"):
        times = raw.times * milliseconds_per(unit)
        # An odd but possible rate only needs a confirmation.
        if is_credible(times, is_sure=unit == tried and not is_sure):
            named = unit if raw.unit else Remedy("unit", unit)
            options += [", ", named, f" makes it {_rate(times):.4g} Hz"]
    remedy = "correct the unit in the file" if raw.unit else "give the true unit"
    if not options:
        remedy = "no unit makes it so, check that these are times"
    times = raw.times * milliseconds_per(tried)
    isi = np.diff(times)
    return Advice(
        f"read as {known or 'ms, for want of a stated unit'}, its {times.size} spikes "
        f"come at {_rate(times):.4g} Hz (mean ISI {isi.mean():.4g} ms, 1 % of them up "
        f"to {np.percentile(isi, 1):.3g} ms), which is not plausible: {remedy}",
        *options,
        ".",
    )


def _rate(times: Times) -> float:
    return float(1e3 * (times.size - 1) / (times[-1] - times[0]))
