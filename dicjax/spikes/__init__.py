"""What a spike, a train and a firing pattern are, and when two neurons fire alike."""

from dicjax.spikes.agreement import (
    Agreement as Agreement,
    agreement_with as agreement_with,
    distribution_distance as distribution_distance,
    log_isi_quantiles as log_isi_quantiles,
    MAX_AGREED as MAX_AGREED,
    quantiles_of as quantiles_of,
)
from dicjax.spikes.detection import (
    crossing_part as crossing_part,
    is_upstroke as is_upstroke,
    list_spikes as list_spikes,
    mark_shortfalls as mark_shortfalls,
    mark_spikes as mark_spikes,
    shortfall_level as shortfall_level,
    spike_trains as spike_trains,
    V_REARM as V_REARM,
    V_SPIKE as V_SPIKE,
)
from dicjax.spikes.features import (
    burst_gap as burst_gap,
    Features as Features,
    features_of as features_of,
    spike_features as spike_features,
)
from dicjax.spikes.patterns import (
    BURSTING as BURSTING,
    columns_of as columns_of,
    COMPARED as COMPARED,
    Feature as Feature,
    FEATURES as FEATURES,
    IRREGULAR as IRREGULAR,
    LABELS as LABELS,
    NUM_COMPARED as NUM_COMPARED,
    pattern_of as pattern_of,
    PATTERNS as PATTERNS,
    SILENT as SILENT,
    TONIC as TONIC,
    VARIED as VARIED,
)
from dicjax.spikes.step_response import (
    LATE as LATE,
    step_response as step_response,
    StepResponse as StepResponse,
)
from dicjax.spikes.target import as_target as as_target, Target as Target
from dicjax.spikes.trains import (
    AnyTrains as AnyTrains,
    as_train as as_train,
    as_trains as as_trains,
    end_to_end as end_to_end,
    ENOUGH_SPIKES as ENOUGH_SPIKES,
    MIN_SPIKES as MIN_SPIKES,
    pad_trains as pad_trains,
    Ragged as Ragged,
    rows_of as rows_of,
    SpikeTrain as SpikeTrain,
    times_of as times_of,
    times_of_one as times_of_one,
)
from dicjax.spikes.validity import (
    compared_errors as compared_errors,
    feature_errors as feature_errors,
    is_valid as is_valid,
)
