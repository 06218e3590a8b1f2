"""How diverse a population is, and how much of another one it covers.

All of it is about logarithms of maximal conductances, and none of it depends on the
unit of any of them. Conductances are floored at a thousandth of their largest value.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from dicjax._core import HasConductances, members_of, on_host, renamed_argument


FLOOR = 1e-3  # of a channel's largest conductance: what counts as none of it
MIN_MEMBERS = 3  # members whose diversity is defined
CONSTANT = 1e-6  # what a logarithm varies by, at most, if rounding is all of it
SLACK = 1e-9  # by which rounding may lengthen a distance


@on_host()
def participation_ratio(
    g: Float[np.ndarray, "cells channels"] | HasConductances,
) -> float:
    r"""Effective number of directions of variation of log conductances.

    $(\sum \lambda)^2 / \sum \lambda^2$ over the eigenvalues $\lambda$ of their
    correlation matrix: 1 where all lie on a line, the number of channels where all are
    independent; 0 where no conductance varies, nan for fewer than 3 members.

    **Arguments:**

    - `g`: maximal conductances, in mS/cm² or any other unit, or a
        [`dicjax.Population`][], of which members that are not "ok" are left out.

    **Raises:**

    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    share = _shares_of_variance(g)
    return float(1 / (share**2).sum()) if share.size else 0.0


@on_host()
def entropy_dimension(
    g: Float[np.ndarray, "cells channels"] | HasConductances,
) -> float:
    r"""Effective number of directions of variation, by the entropy of their shares.

    $e^H$ with $H = -\sum p \ln p$ and $p = \lambda / \sum \lambda$, where `g`,
    $\lambda$ and the limits are those of [`dicjax.participation_ratio`][]. It is larger
    in between, since directions in which little varies count more.

    **Raises:**

    - `TypeError`: if JAX traces an argument, since this runs on the host.

    ??? cite "Reference"

        Roy & Vetterli (2007). *The effective rank: a measure of effective
        dimensionality.* EUSIPCO.
    """
    share = _shares_of_variance(g)
    return float(np.exp(-(share * np.log(share)).sum())) if share.size else 0.0


@renamed_argument("neighbours", "num_neighbours")
@on_host()
def coverage(
    reference: Float[np.ndarray, "cells channels"] | HasConductances,
    generated: Float[np.ndarray, "batch _"] | HasConductances,
    num_neighbours: int = 5,
) -> float:
    """Share of the reference members that have a generated member nearby.

    Nearby is within the reference member's own distance to its 5th nearest neighbour in
    the reference, in log conductances scaled by their spread over the reference.
    Channels that are constant in the reference are left out. A population drawn like
    the reference and as large covers 97 % of it; with the arguments exchanged, the
    result is the share of generated members that lie within the reference. It is nan
    for fewer than 3 reference members or if none of their conductances varies.

    **Arguments:**

    - `reference`, `generated`: maximal conductances, in mS/cm² or any other unit, or
        [`dicjax.Population`][]s, of which members that are not "ok" are left out.
    - `num_neighbours`: which neighbour's distance counts as near.

    **Raises:**

    - `ValueError`: if the two have different channels, or `num_neighbours` is below 1.
    - `TypeError`: if JAX traces an argument, since this runs on the host.

    ??? cite "Reference"

        Naeem, Oh, Uh, Choi & Yoo (2020). *Reliable fidelity and diversity metrics for
        generative models.* ICML.
    """
    reference, generated = (np.asarray(members_of(x)) for x in (reference, generated))
    if reference.shape[1] != generated.shape[1]:
        raise ValueError(
            f"The reference has {reference.shape[1]} channels, but what was generated "
            f"has {generated.shape[1]}: compare populations of one model."
        )
    if num_neighbours < 1:
        raise ValueError(f"`num_neighbours` must be at least 1, got {num_neighbours}.")
    if len(reference) < MIN_MEMBERS:
        return float("nan")
    largest = reference.max(axis=0)
    log_g = _floored_logarithms(reference, largest)
    varies = np.ptp(log_g, axis=0) > CONSTANT
    if not varies.any():
        return float("nan")
    if not len(generated):
        return 0.0
    spread = log_g[:, varies].std(axis=0)
    own = log_g[:, varies] / spread
    others = _floored_logarithms(generated, largest)[:, varies] / spread
    # Of the reference, the first neighbour is the member itself.
    rank = min(num_neighbours, len(own) - 1) + 1
    radius = np.asarray(KDTree(own).query(own, rank)[0])[:, -1]
    nearest = KDTree(others).query(own)[0]
    return float((nearest <= (1 + SLACK) * radius).mean())


def _shares_of_variance(members) -> Float[np.ndarray, " _"]:
    """Positive eigenvalues of the correlation matrix, divided by their sum."""
    g = np.asarray(members_of(members))
    if len(g) < MIN_MEMBERS:
        return np.full(1, np.nan)
    log_g = _floored_logarithms(g, g.max(axis=0))
    log_g = log_g[:, np.ptp(log_g, axis=0) > CONSTANT]
    if not log_g.size:
        return np.zeros(0)
    values = np.linalg.eigvalsh(np.atleast_2d(np.corrcoef(log_g.T)))
    values = values[values > 0]  # others are zero but for rounding
    return values / values.sum()


def _floored_logarithms(g, largest) -> Float[np.ndarray, "cells channels"]:
    # A channel that nobody has is constant, whatever its floor.
    floor = np.where(largest > 0, FLOOR * largest.astype(np.float64), 1.0)
    return np.log(np.maximum(g.astype(np.float64), floor))
