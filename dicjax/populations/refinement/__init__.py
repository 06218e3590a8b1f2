"""Refinement: members that miss a target move until they do what it does."""

from dicjax.populations.refinement.refine import refine as refine, Refined as Refined
from dicjax.populations.refinement.responses import StepFeatures as StepFeatures
from dicjax.populations.refinement.steps import (
    MIN_KNOWN as MIN_KNOWN,
    refined_by_ensemble as refined_by_ensemble,
)
from dicjax.populations.refinement.targets import (
    FiringRates as FiringRates,
    VoltageTrace as VoltageTrace,
)
