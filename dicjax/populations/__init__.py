"""Members judged, corrected, refined, certified, moved and explained."""

from dicjax.populations.certification import (
    AXES as AXES,
    Axis as Axis,
    Certificate as Certificate,
    certify as certify,
    OTHER_START as OTHER_START,
    Perturbation as Perturbation,
    PERTURBATIONS as PERTURBATIONS,
    START_MORE_CA as START_MORE_CA,
)
from dicjax.populations.correction import (
    children as children,
    Known as Known,
    MEMORY as MEMORY,
)
from dicjax.populations.diversity import (
    coverage as coverage,
    entropy_dimension as entropy_dimension,
    participation_ratio as participation_ratio,
)
from dicjax.populations.evaluation import (
    judge as judge,
    simulate_by_recipe as simulate_by_recipe,
    Verdict as Verdict,
    wilson as wilson,
    Window as Window,
    window_for as window_for,
)
from dicjax.populations.explanation import (
    attribute as attribute,
    Attribution as Attribution,
    Identifiability as Identifiability,
    identifiability as identifiability,
    reachability as reachability,
    ReachabilityMap as ReachabilityMap,
)
from dicjax.populations.explanation.sloppiness import (
    reach as reach,
)
from dicjax.populations.neuromodulation import (
    Path as Path,
    path as path,
)
from dicjax.populations.refinement import (
    LONGEST as LONGEST,
    refine as refine,
    Refined as Refined,
    slopes_of_ensemble as slopes_of_ensemble,
    stepped as stepped,
)
from dicjax.populations.sensitivities import (
    feature_slopes as feature_slopes,
)
