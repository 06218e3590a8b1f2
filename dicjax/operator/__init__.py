"""The neural operator: currents and features in, potentials out; its training."""

from dicjax.operator.cell_comparison import (
    compare as compare,
    COMPARED as COMPARED,
    Comparison as Comparison,
    EVERY as EVERY,
    measure_cell as measure_cell,
)
from dicjax.operator.characteristics import (
    BY_NAME as BY_NAME,
    characterise as characterise,
    Characteristics as Characteristics,
    FEATURES as FEATURES,
)
from dicjax.operator.checkpoint import load_operator as load_operator
from dicjax.operator.config import (
    OperatorConfig as OperatorConfig,
    OperatorTraining as OperatorTraining,
)
from dicjax.operator.ensemble import draw_ensemble as draw_ensemble
from dicjax.operator.families import (
    FAMILIES as FAMILIES,
    Family as Family,
    find_family as find_family,
)
from dicjax.operator.model import Operator as Operator
from dicjax.operator.prediction import (
    respond as respond,
    Response as Response,
    sampled_step as sampled_step,
)
from dicjax.operator.scores import Scores as Scores
from dicjax.operator.tables import (
    describe_features as describe_features,
    read_current as read_current,
    read_features as read_features,
)
from dicjax.operator.train import (
    CharacterisedMembers as CharacterisedMembers,
    CHUNK as CHUNK,
    fit_operator as fit_operator,
    tune_to_feature as tune_to_feature,
)
