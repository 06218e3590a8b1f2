"""An atlas of what a model can do: simulated members and the activity of each.

It travels with the encoder. It says how far a recording is from anything the model
did, which model suits it best, and which members fire most like it.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dicjax.spikes import BURSTING, feature_errors, Features, LABELS, SILENT


COLUMNS = ("mean_isi", "period", "intra_burst_isi", "spikes_per_burst")
NEIGHBOURS = 3  # that must be near for a recording to count as within range


class Atlas(eqx.Module):
    """Conductances (mS/cm²), firing patterns, and logarithms of features.

    - `features`: logarithms of mean ISI, burst period, intra-burst ISI (ms), spikes per
        burst and the three quartiles of the ISI (ms); nan where undefined.
    """

    g: Float[np.ndarray, "cells channels"]
    labels: Int[np.ndarray, " cells"]
    features: Float[np.ndarray, "cells 7"]

    def errors(self, target: Features) -> Float[np.ndarray, " cells"]:
        """How far each member is from one train: the largest |ln| of a ratio.

        Infinite where the firing pattern differs.
        """
        errors = np.abs(np.asarray(feature_errors(self.as_features(), target)))
        worst = np.max(np.where(np.isfinite(errors), errors, np.inf), axis=1)
        return np.where(self.labels == int(target.label), worst, np.inf)

    def distance(self, target: Features) -> float:
        """The factor by which some feature of the nearest members misses the train."""
        nearest = np.sort(self.errors(target))[:NEIGHBOURS]
        return float(np.exp(nearest[-1])) if len(nearest) else float("inf")

    def span(self, target: Features) -> str:
        """What the members that fire in the train's pattern span, in words."""
        of = self.labels == int(target.label)
        name = LABELS[int(target.label)]
        if not of.any():
            return f"no member of it is {name}"
        num = len(COLUMNS) if int(target.label) == BURSTING else 1
        values = self.features[of, :num]
        low, high = np.exp(np.nanquantile(values, (0.005, 0.995), axis=0))
        if num == 1:
            return (
                f"its {name} members have mean ISIs of {low[0]:.0f} to {high[0]:.0f} ms"
            )
        return (
            f"its bursting members have periods of {low[1]:.0f} to {high[1]:.0f} "
            f"ms, {low[3]:.1f} to {high[3]:.1f} spikes per burst and intra-burst "
            f"ISIs of {low[2]:.0f} to {high[2]:.0f} ms"
        )

    def miss(self, target: Features) -> str:
        """What the nearest members get wrong about a train, in words."""
        nearest = np.argsort(self.errors(target))[:NEIGHBOURS]
        factor = self.distance(target)
        if not np.isfinite(factor):
            return ""
        errors = np.abs(np.asarray(feature_errors(self.as_features(), target)))
        worst = int(np.argmax(errors[nearest[-1]]))
        if int(target.label) == BURSTING:
            names = ("burst period", "intra-burst ISI", "number of spikes per burst")
        else:
            names = ("mean ISI", "first quartile of ISIs", "third quartile of ISIs")
        return (
            f"the nearest of its {len(self.g):,} simulated members miss the "
            f"{names[worst]} by a factor of {factor:.2g}"
        )

    def as_features(self) -> Features:
        values = np.exp(self.features)
        unknown = np.full(len(values), np.nan, values.dtype)
        return Features(
            label=self.labels,
            num_spikes=np.zeros(len(values), np.int32),
            rate=1000 / values[:, 0],
            cv=unknown,
            cv2=unknown,
            lv=unknown,
            isi_quartiles=values[:, 4:],
            num_bursts=np.zeros(len(values), np.int32),
            burst_duration=unknown,
            duty_cycle=unknown,
            **{name: values[:, i] for i, name in enumerate(COLUMNS)},
        )


def make_atlas(
    g: Float[np.ndarray, "cells channels"],
    features: Features,
    weights: Float[np.ndarray, " cells"],
    num: int,
    seed: int = 0,
) -> Atlas:
    """Picks `num` members that fired, half at random and half by `weights`."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(features.label)
    fired = np.flatnonzero((labels != SILENT) & (weights > 0))
    num = min(num, len(fired))
    rare = rng.choice(
        fired, num // 2, replace=False, p=weights[fired] / weights[fired].sum()
    )
    rest = rng.permutation(np.setdiff1d(fired, rare))[: num - len(rare)]
    members = np.sort(np.concatenate([rare, rest]))
    return Atlas(
        g=np.asarray(g[members], np.float32),
        labels=labels[members].astype(np.int32),
        features=log_features(features)[members],
    )


def log_features(features: Features) -> Float[np.ndarray, "cells 7"]:
    """Logarithms of the features that an atlas holds and an encoder predicts."""
    columns = [np.asarray(getattr(features, name)) for name in COLUMNS]
    quartiles = np.asarray(features.isi_quartiles)
    values = np.concatenate([np.stack(columns, axis=1), quartiles], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return np.where(np.isfinite(logs), logs, np.nan).astype(np.float32)
