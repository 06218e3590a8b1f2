"""What neurons should fire like, and how nearly."""

import dataclasses

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dicjax._core import AnyArray
from dicjax.spikes.agreement import Agreement, agreement_with
from dicjax.spikes.features import Features, features_of, TIMES
from dicjax.spikes.patterns import Pattern, pattern_of, SILENT
from dicjax.spikes.trains import as_train, Errors, SpikeTrain
from dicjax.spikes.validity import error_limits, feature_errors, is_valid


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """What neurons should fire like, and how nearly.

    - `features`: of one train, as scalars.
    - `tolerance`: how far each feature may be off, as a share.
    - `train`: the spike train that they were measured on, if there is one.
    - `agreement`: what neurons with a drive of their own, which vary like a recording,
        are compared by; `None` for others.
    """

    features: Features
    tolerance: float = 0.10
    train: SpikeTrain | None = None
    agreement: Agreement | None = None

    @property
    def label(self) -> int:
        return int(self.features.label)

    @property
    def pattern(self) -> Pattern:
        return pattern_of(self.features)

    def has_pattern(self, label: Int[AnyArray, "*cells"]) -> Bool[np.ndarray, "*cells"]:
        """Whether neurons fire in the target's pattern, or in one of its stretches."""
        if self.agreement is not None:
            return self.agreement.patterns[np.asarray(label)]
        return np.asarray(label) == self.label

    @property
    def names(self) -> tuple[str, ...]:
        """The features that neurons are judged by."""
        if self.agreement is not None:
            return self.agreement.names
        return tuple(feature.name for feature in self.pattern.compared)

    def errors(self, features: Features) -> Float[Array, "*cells 4"]:
        """How far neurons are off; see [`dicjax.feature_errors`][]."""
        return feature_errors(features, self.features)

    def limits(self, errors: Errors) -> Errors:
        """How far each error may be off, on the side on which it is."""
        return error_limits(errors, self.features, self.tolerance)

    def for_span(self, span: float) -> "Target":
        """The target of neurons that vary and are simulated for `span` ms.

        It needs the `train`.
        """
        assert self.train is not None, "features alone do not say how much they vary"
        agreement = agreement_with(self.train, span, self.tolerance)
        return dataclasses.replace(self, agreement=agreement)

    def at_pace(self, faster: float) -> "Target":
        """The same activity with all its times divided by a factor."""
        # As arrays again, since NumPy computes scalars from arrays of no dimension.
        factor, now = np.asarray(faster), self.features
        times = {name: np.asarray(getattr(now, name) / factor) for name in TIMES}
        features = dataclasses.replace(now, rate=np.asarray(now.rate * factor), **times)
        return dataclasses.replace(self, features=features)

    def is_valid(self, features: Features) -> Bool[Array, "*cells"]:
        """Which neurons fire like it; see [`dicjax.is_valid`][]."""
        return is_valid(features, self.features, self.tolerance)


def as_target(
    target: "Target | Features | SpikeTrain | Float[np.ndarray, ' spikes']",
    tolerance: float = 0.10,
) -> Target:
    """A target, given as spike times (ms), as features, or as one with a tolerance.

    A `ValueError` refuses a silent one, or a tolerance that is not between 0 and 1.
    """
    if isinstance(target, Target):
        return target
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must lie between 0 and 1, got {tolerance}.")
    train = None
    if not isinstance(target, Features):
        train = as_train(target)
        target = features_of(train)
    if int(target.label) == SILENT:
        raise ValueError(
            "The target is silent: there is nothing to fire like. Give one that fires."
        )
    return Target(target, tolerance, train)
