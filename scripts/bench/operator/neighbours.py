"""Predictions from the members whose features are most similar."""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import nnls
from scipy.spatial import KDTree

from dicjax.operator import CharacterisedMembers, Family
from dicjax.operator.characteristics import BY_NAME, to_coordinates
from dicjax.operator.scores import simulate_steps, Trial


SIMPLEX = 13  # neighbours: the corners of a simplex in the space of twelve features
CANDIDATES = (26, 52, 104, 208, 416, 832)  # neighbours that a regression may be over
TRIED = 512  # members by which one of these is chosen
RIDGE, UNITY = 1e-6, 1e3  # of regressions; how much weights must add up to one


def coordinates(
    values: Float[np.ndarray, "cells features"],
) -> Float[np.ndarray, "cells features"]:
    """Features as they are compared, of families with input conductances too."""
    return np.asarray(to_coordinates(values, tuple(BY_NAME)[: values.shape[1]]))


class Neighbourhood:
    """Known members around others, by distance in standardised features."""

    def __init__(self, x: Float[np.ndarray, "members features"]):
        self.scale = np.std(x, axis=0, dtype=np.float64)
        self.z = x / self.scale
        self._tree = KDTree(self.z)

    def of(self, values: Float[np.ndarray, "cells features"]) -> np.ndarray:
        """Standardised coordinates of features."""
        return coordinates(values) / self.scale

    def nearest(
        self, z: Float[np.ndarray, "cells features"], num: int
    ) -> tuple[Float[np.ndarray, "cells num"], Int[np.ndarray, "cells num"]]:
        """Distances to the nearest members, in rising order, and their numbers."""
        distance, index = self._tree.query(z, k=max(2, min(num, len(self.z))))
        return np.asarray(distance)[:, :num], np.asarray(index)[:, :num]

    def distance(self, values: Float[np.ndarray, "cells features"]) -> np.ndarray:
        """Distances of cells from the nearest member."""
        return self.nearest(self.of(values), 1)[0][:, 0]


def barycentric(z: np.ndarray, around: Float[np.ndarray, "num features"]) -> np.ndarray:
    """Weights of neighbours, none negative, whose mean is nearest to `z`.

    They are exact where `z` lies within the neighbours' hull. In twelve dimensions it
    hardly ever does: without the bound, weights are large and of either sign.
    """
    A = np.concatenate([around.T, np.full((1, len(around)), UNITY)])
    weights, _ = nnls(A, np.append(z, UNITY))
    return weights / weights.sum()


def local_regression(near, log_g, z, distance, index) -> np.ndarray:
    """Logarithms of conductances, linear in features over neighbours, nearer ones more.

    (Cleveland, 1979: weights are tricubic, and zero at the last neighbour.)
    """
    predicted = []
    for at, away, rows in zip(z, distance, index, strict=True):
        root = np.sqrt((1 - (away / away[-1]) ** 3) ** 3)[:, None]
        A = root * np.concatenate([np.ones((len(rows), 1)), near.z[rows] - at], axis=1)
        gram = A.T @ A + RIDGE * len(rows) * np.eye(A.shape[1])
        predicted.append(np.linalg.solve(gram, A.T @ (root * log_g[rows]))[0])
    return np.array(predicted)


def best_number(near: Neighbourhood, log_g: Float[np.ndarray, "members _"]) -> int:
    """Neighbours to regress over: the number that predicts known members the best."""
    some = np.random.default_rng(0).permutation(len(log_g))[:TRIED]
    errors = {}
    for num in CANDIDATES:
        if num < len(log_g):
            distance, index = near.nearest(near.z[some], num + 1)
            others = distance[:, 1:], index[:, 1:]
            predicted = local_regression(near, log_g, near.z[some], *others)
            errors[num] = np.mean(((predicted - log_g[some]) / log_g.std(axis=0)) ** 2)
    return min(errors, key=lambda num: errors[num])


def by_neighbours(family: Family, known: CharacterisedMembers, trial: Trial) -> dict:
    """Potentials of a trial's members, from known members through the simulator."""
    near = Neighbourhood(coordinates(known.measured.values))
    log_g = np.log(known.g.astype(np.float64))
    z = near.of(trial.features)
    distance, index = near.nearest(z, SIMPLEX)
    weights = 1 / np.maximum(distance, 1e-9)
    weights /= weights.sum(axis=1, keepdims=True)
    convex = np.array(
        [barycentric(at, near.z[rows]) for at, rows in zip(z, index, strict=True)]
    )
    mean = lambda w: np.einsum("cn,cnk->ck", w, log_g[index])
    num = best_number(near, log_g)
    regressed = local_regression(near, log_g, z, *near.nearest(z, num))
    simulated = lambda g: simulate_steps(family, g.astype(np.float32), trial.amplitude)
    predicted = {
        "nearest member": log_g[index[:, 0]],
        f"conductances of {SIMPLEX}, by inverse distance": mean(weights),
        f"conductances of {SIMPLEX}, barycentric": mean(convex),
        f"regression over {num}": np.clip(regressed, *np.log(family.bounds)),
    }
    answers = {name: simulated(np.exp(log_g)) for name, log_g in predicted.items()}
    average = np.zeros_like(trial.V)
    for w, rows in zip(weights.T, index.T, strict=True):
        average += w[:, None].astype(np.float32) * simulated(known.g[rows])
    return {**answers, f"potentials of {SIMPLEX}, by inverse distance": average}
