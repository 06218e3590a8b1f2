"""Which directions of conductances the spikes of a population pin down."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from dicjax._core import listed, on_host


NAMED = 0.35  # of the largest loading: what a channel needs to be named
NUM_NAMED = 4  # channels that a direction is named by at most
NUM_STIFF, NUM_SLOPPY = 2, 3  # directions that are described in words
LARGEST = 10.0  # factor beyond which a first-order statement only says "more"


@dataclasses.dataclass(frozen=True, eq=False)
class Identifiability:
    r"""How far log conductances may move along each direction before spikes change.

    A move of length $d$ along the unit vector $v$ multiplies conductance $i$ by
    $e^{d v_i}$. $F = \langle J^\top J \rangle$ is the mean over members of products of
    slopes, with features in units of their tolerance. Along an eigenvector of $F$ of
    eigenvalue $\lambda$, the move changes features by $d\sqrt\lambda$ tolerances (root
    mean square over members of the norm over features), to first order. It reaches one
    tolerance at $d = 1/\sqrt\lambda$.

    - `channel_names`, `feature_names`: what slopes were given of.
    - `tolerance`: relative change of a feature that counts as seen.
    - `spread`: of log conductances, against which directions count as constrained.
    - `eigenvalues`: of $F$, largest first: from stiff to sloppy.
    - `directions`: its unit eigenvectors, one a row; the largest entry is positive.
    - `num_constrained`: in how many directions features leave tolerance before
        conductances leave their spread.
    - `spectra`, `num_alone`: `eigenvalues` and `num_constrained` of every member alone.
        A member has at most as many constrained directions as features, so each has
        sloppy directions of its own even where none is common to all.
    """

    channel_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    tolerance: float
    spread: Float[np.ndarray, " channels"]
    eigenvalues: Float[np.ndarray, " channels"]
    directions: Float[np.ndarray, "channels channels"]
    num_constrained: int
    spectra: Float[np.ndarray, "cells channels"]
    num_alone: Int[np.ndarray, " cells"]

    @property
    def reach(self) -> Float[np.ndarray, " channels"]:
        """How far each direction goes unseen, in log conductance; inf for ever."""
        return reach(self.eigenvalues)

    @property
    def factors(self) -> Float[np.ndarray, "channels channels"]:
        """What each conductance is multiplied by at the end of each direction."""
        is_part = self.directions != 0
        moved = np.where(is_part, self.reach[:, None], 0) * self.directions
        with np.errstate(over="ignore"):
            return np.exp(moved)

    @property
    def stiff(self) -> Float[np.ndarray, "directions channels"]:
        """The directions that spikes constrain, the stiffest first."""
        return self.directions[: self.num_constrained]

    @property
    def sloppy(self) -> Float[np.ndarray, "directions channels"]:
        """The directions that spikes leave free, the sloppiest last."""
        return self.directions[self.num_constrained :]

    def describe(self, direction: int) -> str:
        """Names a direction by its channels, and says how far it goes unseen."""
        v, factors = self.directions[direction], self.factors[direction]
        order = np.argsort(-np.abs(v), kind="stable")[:NUM_NAMED]
        named = [int(i) for i in order if abs(v[i]) >= NAMED * abs(v[order[0]])]
        first, names = named[0], self.channel_names
        signs = ", ".join(f"{names[i]} {'+' if v[i] > 0 else '-'}" for i in named)
        together = " together" if len(named) > 1 else ""
        if not factors[first] <= LARGEST:
            by = f"{names[first]} by more than a factor of {LARGEST:g}"
        else:
            by = f"by {'factors' if together else 'a factor'} of "
            by += listed([_factor(factors[i]) for i in named])
        return f"{signs}: can change{together} unseen, {by}."

    def __str__(self) -> str:
        num, alone = len(self.channel_names), float(np.median(self.num_alone))
        last = range(num - 1, max(num - 1 - NUM_SLOPPY, NUM_STIFF - 1), -1)
        is_given = np.any(self.spread != 1)
        until = "leave their spread" if is_given else "change by a factor of e"
        return "\n".join(
            [
                f"Of {num} directions of log conductance, {listed(self.feature_names)} "
                f"constrain {alone:g} in the median member and {self.num_constrained} "
                f"in all {len(self.spectra)} at once: to first order, they are off by "
                f"{self.tolerance:.0%} before conductances {until}.",
                *(f"Stiff: {self.describe(i)}" for i in range(min(NUM_STIFF, num))),
                *(f"Sloppy: {self.describe(i)}" for i in last),
            ]
        )


@on_host()
def identifiability(
    slopes: Float[np.ndarray, "cells features channels"],
    channel_names: Sequence[str],
    feature_names: Sequence[str],
    spread: Float[np.ndarray, " channels"] | None = None,
    *,
    tolerance: float = 0.10,
) -> Identifiability:
    r"""Finds the directions of log conductance that spikes constrain, and those not.

    **Arguments:**

    - `slopes`: $\partial \ln \text{feature} / \partial \ln \text{conductance}$ of every
        member. Features of members with a slope that is nan are left out. The number
        of spikes per burst jumps, so that small differences of conductances make its
        slopes too steep: take 10 or 20 %.
    - `channel_names`, `feature_names`: names of the last two axes of `slopes`.
    - `spread`: standard deviations of log conductances: a direction counts as
        constrained where features change sooner. By default 1, a factor of e.
    - `tolerance`: relative change $t$ of a feature that counts as seen: features are
        in units of $\ln(1 + t)$.

    **Raises:**

    - `ValueError`: if names do not match `slopes`, no slope is defined, `spread` is
        negative or not finite, or `tolerance` is not positive.
    - `TypeError`: if JAX traces an argument, since this runs on the host.

    ??? cite "Reference"

        Gutenkunst et al. (2007). *Universally sloppy parameter sensitivities in systems
        biology models.* PLoS Comput. Biol. 3(10).
    """
    names = tuple(channel_names), tuple(feature_names)
    spread = np.ones(len(names[0])) if spread is None else spread
    defined = np.asarray(np.isfinite(slopes).all(axis=-1))
    _check(slopes, defined, names, spread, tolerance)
    some = defined.any(axis=1)
    slopes = slopes[some].astype(np.float64) / np.log1p(tolerance)
    defined = defined[some]
    slopes = np.where(defined[..., None], slopes, 0)
    # Rows whose squares add up to the mean over the members that have each feature.
    rows = slopes / np.sqrt(np.maximum(defined.sum(axis=0), 1))[:, None]
    rows = rows.reshape(-1, len(spread))
    rows = np.pad(rows, ((0, max(len(spread) - len(rows), 0)), (0, 0)))
    # Singular values: small eigenvalues of F itself would drown in rounding.
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    at = np.abs(directions).argmax(axis=1)[:, None]
    largest = np.take_along_axis(directions, at, axis=1)
    return Identifiability(
        channel_names=names[0],
        feature_names=names[1],
        tolerance=tolerance,
        spread=spread,
        eigenvalues=_squares(values),
        directions=directions * np.sign(largest),
        num_constrained=int((_spectra(rows * spread) > 1).sum()),
        spectra=_spectra(slopes),
        num_alone=(_spectra(slopes * spread) > 1).sum(axis=-1),
    )


def reach(
    eigenvalues: Float[np.ndarray, "*cells channels"],
) -> Float[np.ndarray, "*cells channels"]:
    """How far directions go before spikes change, in log conductance."""
    with np.errstate(divide="ignore"):
        return 1 / np.sqrt(eigenvalues)


def _factor(x: float) -> str:
    return f"{x:.3f}" if 0.9 < x < 1.1 else f"{x:.2f}"


def _spectra(
    rows: Float[np.ndarray, "*cells rows channels"],
) -> Float[np.ndarray, "*cells channels"]:
    values = np.linalg.svd(rows, compute_uv=False)
    missing = rows.shape[-1] - values.shape[-1]
    return np.pad(_squares(values), [(0, 0)] * (rows.ndim - 2) + [(0, missing)])


def _squares(values: Float[np.ndarray, "*cells _"]) -> Float[np.ndarray, "*cells _"]:
    # What is lost in the rounding of the largest is zero.
    noise = 1e-12 * values.max(axis=-1, keepdims=True, initial=0)
    return np.where(values > noise, values**2, 0)


def _check(slopes, defined, names, spread, tolerance) -> None:
    sizes = tuple(len(x) for x in names)
    if slopes.shape[1:] != sizes[::-1] or spread.shape != sizes[:1]:
        raise ValueError(
            f"`slopes` must have a row for each of {names[1]} and a column for each of "
            f"{names[0]}, as `spread`, got shapes {slopes.shape} and {spread.shape}."
        )
    if not tolerance > 0:
        raise ValueError(f"`tolerance` must be positive, got {tolerance}.")
    if not (np.isfinite(spread) & (spread >= 0)).all():
        raise ValueError(
            "`spread` must be finite and not negative, as standard deviations of log "
            f"conductances, got {spread.tolist()}."
        )
    if not defined.any():
        raise ValueError(
            f"No slope of {listed(names[1])} is defined for any of {len(slopes)} "
            "members: give members that fire, and in one pattern."
        )
