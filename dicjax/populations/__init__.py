"""Members judged, corrected, refined, certified, moved and explained."""

from dicjax.populations.attribution import (
    attribute as attribute,
    Attribution as Attribution,
)
from dicjax.populations.certification import (
    AXES as AXES,
    Axis as Axis,
    Certificate as Certificate,
    certify as certify,
    OTHER_START as OTHER_START,
    Perturbation as Perturbation,
    PERTURBING_AXES as PERTURBING_AXES,
    START_MORE_CA as START_MORE_CA,
)
from dicjax.populations.correction import (
    corrected_children as corrected_children,
    expected_misses as expected_misses,
    Known as Known,
    update_known as update_known,
)
from dicjax.populations.diversity import (
    coverage as coverage,
    entropy_dimension as entropy_dimension,
    participation_ratio as participation_ratio,
)
from dicjax.populations.driving import (
    Coordinates as Coordinates,
    draw_drives as draw_drives,
    drive_at as drive_at,
    HIGHEST as HIGHEST,
    LOWEST as LOWEST,
    NUM_COORDINATES as NUM_COORDINATES,
    rows_of_drive as rows_of_drive,
)
from dicjax.populations.evaluation import (
    evaluate as evaluate,
    simulate_by_recipe as simulate_by_recipe,
    Verdict as Verdict,
    wilson as wilson,
    Window as Window,
    window_for as window_for,
)
from dicjax.populations.maps import (
    reachability as reachability,
    ReachabilityMap as ReachabilityMap,
)
from dicjax.populations.neuromodulation import Path as Path, path as path
from dicjax.populations.refinement import (
    FiringRates as FiringRates,
    refine as refine,
    Refined as Refined,
    refined_by_ensemble as refined_by_ensemble,
    StepFeatures as StepFeatures,
    VoltageTrace as VoltageTrace,
)
from dicjax.populations.rhythms import Rhythm as Rhythm, rhythm as rhythm
from dicjax.populations.sensitivities import (
    Autodiff as Autodiff,
    Differences as Differences,
    feature_slopes as feature_slopes,
)
from dicjax.populations.sloppiness import (
    Identifiability as Identifiability,
    identifiability as identifiability,
    reach as reach,
)
