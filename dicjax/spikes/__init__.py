"""What a spike, a train and a firing pattern are, and when two neurons fire alike."""

from dicjax.spikes.detection import (
    crossing_part as crossing_part,
    list_spikes as list_spikes,
    mark_spikes as mark_spikes,
    SPIKE_DOWN as SPIKE_DOWN,
    spike_trains as spike_trains,
    SPIKE_UP as SPIKE_UP,
)
from dicjax.spikes.features import (
    Features as Features,
    features_of as features_of,
    spike_features as spike_features,
)
from dicjax.spikes.patterns import (
    BURSTING as BURSTING,
    IRREGULAR as IRREGULAR,
    LABELS as LABELS,
    MIN_GAP_RATIO as MIN_GAP_RATIO,
    SILENT as SILENT,
    TONIC as TONIC,
)
from dicjax.spikes.step_response import (
    LATE as LATE,
    step_response as step_response,
    StepResponse as StepResponse,
)
from dicjax.spikes.trains import (
    AnyArray as AnyArray,
    as_train as as_train,
    MIN_SPIKES as MIN_SPIKES,
    pad_trains as pad_trains,
    SpikeTrain as SpikeTrain,
)
from dicjax.spikes.validity import (
    as_target as as_target,
    feature_errors as feature_errors,
    is_valid as is_valid,
)
