"""The step of current in recorded sweeps, and what it shows of the membrane."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import least_squares

from dicjax._core import described, on_host
from dicjax.recordings.current_clamp.channels import Rows
from dicjax.recordings.current_clamp.sweeps import Sweeps
from dicjax.spikes import LATE


COARSE = 800  # places at which a step is first looked for
MAX_SECOND = 0.04  # what a second step may explain, as a part of the first
MIN_AROUND = 10  # samples before, in and after a step
TRIMMED = 0.02  # part of the samples that a level leaves out at either end

QUIET = -20.0  # mV; what stays below has no spikes
MIN_PART = 0.02  # of the largest amplitude, below which a step counts as none
CHARGED = 0.9  # part of the steady deflection up to which charging is fitted
MIN_CHARGING = 5  # samples
MAX_TAU = 0.2  # part of the step; a slower membrane is not steady at its end

Trace = Float[np.ndarray, " samples"]
PerSweep = Float[np.ndarray, " sweeps"]


class Steps(eqx.Module):
    """One step of current at the same time in all sweeps.

    - `amplitude`: of the step above the holding level, in pA; may be 0 or negative.
    - `holding`: level before the step, in pA.
    - `start`, `stop`: of the step, in ms from the first sample.
    """

    amplitude: Float[np.ndarray, " sweeps"]
    holding: Float[np.ndarray, " sweeps"]
    start: float = eqx.field(static=True)
    stop: float = eqx.field(static=True)

    def __repr__(self) -> str:
        return described(self)


@on_host()
def find_steps(sweeps: Sweeps, *, within: tuple[float, float] | None = None) -> Steps:
    """Finds the one step of current that all sweeps have in common.

    It is the step, up in some sweeps and down in others, that explains most of how the
    currents vary, by least squares. No second step may explain 4 % as much, which rules
    out ramps, waves and noise. Levels are means without the highest and lowest 2 %: a
    median would be as coarse as the digits recorded.

    **Arguments:**

    - `sweeps`: currents and potentials.
    - `within`: the part to look in, as start and stop in ms, if sweeps hold several
        steps. Default: all.

    **Returns:**

    A [`dicjax.Steps`][].

    **Raises:**

    - `ValueError`: if there is no single step, or no holding level before and after it.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    every, name = sweeps.every, sweeps.name
    duration = sweeps.current.shape[1] * every
    begin, end = (0.0, duration) if within is None else within
    first, last = (round(time / every) for time in (begin, end))
    is_part = 0 <= first < last <= sweeps.current.shape[1]
    if not is_part or last - first < 3 * MIN_AROUND:
        raise ValueError(
            f"{name}: `within` must be the start and stop, in ms, of a part of the "
            f"sweep's {duration:g} ms that has {3 * MIN_AROUND} samples, got {within}."
        )
    current = sweeps.current[:, first:last]
    if not np.ptp(current, axis=1).any():
        raise ValueError(
            f"{name}: the current is constant: a step of current is needed."
        )
    a, b, gain = _best_step(current)
    is_in = (np.arange(last - first) >= a) & (np.arange(last - first) < b)
    levels = [_means(current[:, where]) for where in (is_in, ~is_in)]
    _, _, second = _best_step(current - np.where(is_in, *levels))
    start, stop = (round((first + i) * every, 9) for i in (a, b))
    if second > MAX_SECOND * gain:
        raise ValueError(
            f"{name}: the currents have no single step in common: beside the clearest, "
            f"from {start:g} to {stop:g} ms, another explains {second / gain:.0%} as "
            "much: give sweeps of one step each, or the part that has it as `within`."
        )
    if min(a, b - a, last - first - b) < MIN_AROUND:
        raise ValueError(
            f"{name}: a step from {start:g} to {stop:g} ms has fewer than {MIN_AROUND} "
            "samples before, in or after it: give sweeps that begin before the step "
            "and end after it."
        )
    holding = _level(current[:, :a])
    return Steps(_level(current[:, a:b]) - holding, holding, start, stop)


def _means(rows: Rows) -> Float[np.ndarray, "sweeps 1"]:
    return rows.mean(axis=1, keepdims=True)


def _level(current: Rows) -> PerSweep:
    cut = int(TRIMMED * current.shape[1])
    return np.sort(current, axis=1)[:, cut : current.shape[1] - cut].mean(axis=1)


def _best_step(current: Rows) -> tuple[int, int, float]:
    """The samples between which a step explains most of the currents, and how much."""
    num_samples = current.shape[1]
    sums = np.cumsum(current - _means(current), axis=1)
    sums = np.pad(sums, ((0, 0), (1, 0)))
    every = max(1, num_samples // COARSE)
    places = np.arange(0, num_samples + 1, every)
    a, b, gain = _best_of(sums, places, places)
    for _ in range(2):
        near = [np.arange(i - every, i + every + 1) for i in (a, b)]
        from_, to = (i[(i >= 0) & (i <= num_samples)] for i in near)
        a, _, _ = _best_of(sums, from_, np.array([b]))
        _, b, gain = _best_of(sums, np.array([a]), to)
    return a, b, gain


def _best_of(
    sums: Float[np.ndarray, "sweeps places"],
    starts: Int[np.ndarray, " starts"],
    stops: Int[np.ndarray, " stops"],
) -> tuple[int, int, float]:
    # The excess of a step over the mean is the difference of two sums; its square, over
    # all sweeps, is had from products that fill no more than starts × stops.
    begin, end = sums[:, starts], sums[:, stops]
    squares = np.sum(begin**2, axis=0)[:, None] + np.sum(end**2, axis=0)
    excess = squares - 2 * begin.T @ end
    inside = stops - starts[:, None]
    outside = sums.shape[1] - 1 - inside
    is_step = (inside > 0) & (outside > 0)
    gain = np.where(is_step, excess / np.where(is_step, inside * outside, 1), 0)
    i, j = np.unravel_index(np.argmax(gain), gain.shape)
    return int(starts[i]), int(stops[j]), float(gain[i, j])


class PassiveMembrane(eqx.Module):
    """The passive membrane of a cell around its resting potential.

    - `resistance`: input resistance, in MΩ.
    - `time_constant`: in ms.
    """

    resistance: float
    time_constant: float

    @property
    def capacitance(self) -> float:
        """In pF."""
        return 1e3 * self.time_constant / self.resistance


@on_host()
def passive_membrane(sweeps: Sweeps, steps: Steps) -> PassiveMembrane:
    """Measures the membrane by steps of current that make it fire no spikes.

    Deflections are taken from the mean potential before the step, and divided by the
    amplitudes by least squares over all sweeps without spikes, at each time. The mean
    of this ratio over the last tenth of the step is the input resistance. An
    exponential is fitted to the ratio until it reaches 90 % of that resistance. It may
    begin with a jump, which an unbalanced electrode adds.

    **Arguments:**

    - `sweeps`: currents and potentials.
    - `steps`: as [`dicjax.find_steps`][] finds them.

    **Returns:**

    A [`dicjax.PassiveMembrane`][].

    **Raises:**

    - `ValueError`: if all sweeps with a step have spikes, or the potential does not
        charge toward a steady level in the direction of the current.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    name = sweeps.name
    if len(steps.amplitude) != len(sweeps.V):
        raise ValueError(
            f"{name}: {len(steps.amplitude)} steps are not those of {len(sweeps.V)} "
            "sweeps: find the steps of these sweeps."
        )
    a, b = (round(time / sweeps.every) for time in (steps.start, steps.stop))
    late = max(1, round(LATE * (b - a)))
    before, amplitude = max(a - late, 0), steps.amplitude
    is_quiet = sweeps.V[:, before:b].max(axis=1) < QUIET
    is_step = np.abs(amplitude) > MIN_PART * np.abs(amplitude).max()
    if not (is_quiet & is_step).any():
        raise ValueError(
            f"{name}: no step of current stays below the threshold of spikes, which "
            "resistance and time constant are measured by: add a sweep with a smaller "
            "or a hyperpolarising step, or give the capacitance."
        )
    V, amplitude = sweeps.V[is_quiet], amplitude[is_quiet]
    deflection = V[:, a:b] - _means(V[:, before:a])
    response = 1e3 * amplitude @ deflection / (amplitude @ amplitude)  # MΩ
    resistance = float(response[-late:].mean())
    if not resistance > 0:
        raise ValueError(
            f"{name}: the potential moves against the current, as if by "
            f"{resistance:.3g} MΩ: correct the sign of one of them."
        )
    return PassiveMembrane(resistance, _time_constant(sweeps, response, resistance))


def _time_constant(sweeps: Sweeps, response: Trace, resistance: float) -> float:
    width = max(1, len(response) // 50)
    smooth = np.convolve(response, np.full(width, 1 / width), "same")
    count = int(np.argmax(smooth >= CHARGED * resistance))
    t, duration = np.arange(count) * sweeps.every, len(response) * sweeps.every
    tau = np.nan
    if count >= MIN_CHARGING:
        charge = lambda x: resistance - x[0] * np.exp(-t / x[1]) - response[:count]
        with np.errstate(all="ignore"):  # steps that go too far are taken back
            fit = least_squares(charge, (resistance, t[-1] / 2), x_scale="jac")
        tau = float(fit.x[1])
    if not sweeps.every <= tau <= MAX_TAU * duration:
        raise ValueError(
            f"{sweeps.name}: the potential does not charge to a steady level within "
            f"the step of {duration:g} ms (time constant {tau:.3g} ms): give a longer "
            "step, sampled faster than the membrane charges."
        )
    return tau
