"""A library of what a model can do: simulated members and the activity of each.

It is part of a checkpoint. It shows how far a recording is from anything the model did,
which model suits the recording best, and which members fire most like it.
"""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from dicjax._core import AnyArray, listed, short
from dicjax.spikes import (
    columns_of,
    COMPARED,
    compared_errors,
    Features,
    pattern_of,
    SILENT,
)


NEIGHBOURS = 3  # that must be near for a recording to count as within range


class Library(eqx.Module):
    """Conductances (mS/cm²), firing patterns, and logarithms of `COMPARED` features.

    Features that are not defined are nan.
    """

    g: Float[np.ndarray, "cells channels"]
    labels: Int[np.ndarray, " cells"]
    features: Float[np.ndarray, "cells 7"]

    def log_ratios(self, target: Features) -> Float[np.ndarray, "cells 4"]:
        """How far each member is from one train; see [`dicjax.feature_errors`][]."""
        return np.asarray(compared_errors(np.exp(self.features), target))

    def errors(self, target: Features) -> Float[np.ndarray, " cells"]:
        """The largest |ln| of a ratio; infinite where the firing pattern differs."""
        errors = np.abs(self.log_ratios(target))
        worst = np.max(np.where(np.isfinite(errors), errors, np.inf), axis=1)
        return np.where(self.labels == int(target.label), worst, np.inf)

    def distance(self, target: Features) -> float:
        """The factor by which some feature of the nearest members misses the train."""
        one = jax.tree.map(lambda x: np.asarray(x)[None], target)
        return float(self.distances(one)[0])

    def distances(self, targets: Features) -> Float[np.ndarray, " trains"]:
        """The same of many trains."""
        labels, wanted = np.asarray(targets.label), log_features(targets)
        nearest = np.full(len(labels), np.inf)
        rank = min(NEIGHBOURS, len(self.g))
        for label in np.unique(labels).tolist():
            columns = list(columns_of(label))
            members = self.features[self.labels == label][:, columns]
            members = members[np.isfinite(members).all(axis=1)]
            trains = np.flatnonzero(labels == label)
            own = wanted[trains][:, columns]
            known = np.isfinite(own).all(axis=1)
            if columns and len(members) and known.any():
                # The largest difference of logarithms, as in `errors`.
                found, _ = KDTree(members).query(own[known], rank, p=np.inf)
                nearest[trains[known]] = np.reshape(found, (-1, rank))[:, -1]
        return np.exp(nearest)

    def span(self, target: Features) -> str:
        """The ranges of features of members with the train's pattern, in words."""
        of = self.labels == int(target.label)
        name, compared, _ = pattern_of(target)
        if not of.any():
            return f"no member of it is {name}"
        spans = []
        for feature in compared:
            values = self.features[of, COMPARED.index(feature)]
            low, high = np.exp(np.nanquantile(values, (0.005, 0.995)))
            span = f"{short(low)} to {short(high)} {feature.unit}".rstrip()
            spans.append(f"{feature.words} {span}")
        return f"its {name} members have {listed(spans)}"

    def miss(self, target: Features) -> str:
        """The feature of a train that the nearest members miss most, in words."""
        factor = self.distance(target)
        if not np.isfinite(factor):
            return ""
        last = np.argsort(self.errors(target))[:NEIGHBOURS][-1]
        off = int(np.argmax(np.abs(self.log_ratios(target)[last])))
        worst = pattern_of(target).compared[off]
        return (
            f"the nearest of its {len(self.g):,} simulated members miss the "
            f"{worst.words} by a factor of {factor:.2g}"
        )


def make_library(
    g: Float[np.ndarray, "cells channels"],
    labels: Int[AnyArray, " cells"],
    features: Float[AnyArray, "cells 7"],
    weights: Float[np.ndarray, " cells"],
    num: int,
    seed: int = 0,
) -> Library:
    """Picks `num` members that fired, half at random and half by `weights`."""
    rng = np.random.default_rng(seed)
    fired = np.flatnonzero((np.asarray(labels) != SILENT) & (weights > 0))
    num, odds = min(num, len(fired)), weights[fired]
    rare = rng.choice(fired, num // 2, replace=False, p=odds / odds.sum())
    rest = rng.permutation(np.setdiff1d(fired, rare))[: num - len(rare)]
    of = np.sort(np.concatenate([rare, rest]))
    g, labels = np.asarray(g[of], np.float32), np.asarray(labels[of], np.int32)
    return Library(g, labels, np.asarray(features[of]))


def log_features(features: Features) -> Float[np.ndarray, "cells 7"]:
    """Logarithms of the features that a library holds and an encoder predicts."""
    values = np.stack([np.asarray(x.read(features)) for x in COMPARED], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return np.where(np.isfinite(logs), logs, np.nan).astype(np.float32)
