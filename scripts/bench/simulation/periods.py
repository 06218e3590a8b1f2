"""Periods and labels of simulated cells beside those of a reference."""

import dataclasses

import numpy as np

import dicjax as dj
from dicjax.spikes import BURSTING, pad_trains, TONIC


UNSETTLED = 1e-3  # of the period


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Periods (ms) and labels of the first cells, and which of them are `certain`.

    Where spikes per burst are about to change, no tolerance may settle the period, and
    where intervals alternate, the period depends on which spike comes first or last. No
    simulator is right or wrong about such cells.
    """

    period: np.ndarray
    label: np.ndarray
    certain: np.ndarray

    @classmethod
    def from_trains(
        cls, trains: list[np.ndarray], looser: list[np.ndarray], discard: float
    ) -> "Truth":
        """From solutions at two tolerances, spike times in ms."""
        period, label = _periods(trains, discard)
        kept = [x[x >= discard] for x in trains]
        certain = np.ones(len(trains), bool)
        for others in (looser, [x[1:] for x in kept], [x[:-1] for x in kept]):
            other_period, other_label = _periods(others, discard)
            apart = np.abs(other_period / period - 1) > UNSETTLED
            certain &= (label == other_label) & ~apart
        return cls(period, label, certain)


def errors(
    spikes: np.ndarray, truth: Truth, discard: float
) -> dict[tuple[str, str], float]:
    """Columns: errors of periods where patterns agree, and how many do not."""
    num = min(len(spikes), len(truth.period))
    found, label = _periods(list(spikes[:num]), discard)
    true, certain = truth.period[:num], truth.certain[:num]
    same = label == truth.label[:num]
    both = certain & same & np.isfinite(found) & np.isfinite(true)
    error = 100 * np.abs(found[both] / true[both] - 1)
    of = lambda f: float(f(error)) if len(error) else np.nan
    return {
        ("median error", "%"): of(np.median),
        ("mean error", "%"): of(np.mean),
        ("largest error", "%"): of(np.max),
        ("other label", ""): int((certain & ~same).sum()),
        ("cells", ""): int(certain.sum()),
        ("left out as uncertain", ""): int((~certain).sum()),
    }


def _periods(trains: list[np.ndarray], discard: float) -> tuple[np.ndarray, np.ndarray]:
    """Period (ms; nan for what is neither tonic nor bursting) and label of each."""
    rows = pad_trains([np.append(x[x >= discard], np.inf) for x in trains])
    features = dj.spike_features(rows)
    label = np.asarray(features.label)
    period = np.where(
        label == TONIC,
        np.asarray(features.mean_isi),
        np.where(label == BURSTING, np.asarray(features.period), np.nan),
    )
    return period, label
