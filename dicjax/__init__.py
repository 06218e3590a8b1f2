"""From recorded spike times to validated populations of conductance-based neurons."""

import importlib.metadata

from dicjax.channels import GatedChannel as GatedChannel
from dicjax.config import (
    EncoderConfig as EncoderConfig,
    GenerateConfig as GenerateConfig,
    TrainingConfig as TrainingConfig,
)
from dicjax.dic import (
    dynamic_input_conductances as dynamic_input_conductances,
    sensitivity as sensitivity,
    Threshold as Threshold,
    threshold as threshold,
)
from dicjax.encoder import Posterior as Posterior
from dicjax.gating import (
    AbstractCurve as AbstractCurve,
    Bell as Bell,
    CalciumSaturation as CalciumSaturation,
    Constant as Constant,
    Gate as Gate,
    Nernst as Nernst,
    Product as Product,
    Scaled as Scaled,
    Sigmoid as Sigmoid,
)
from dicjax.models import MODELS as MODELS, stg as stg, stg_prinz as stg_prinz
from dicjax.neuron import Calcium as Calcium, Neuron as Neuron, State as State
from dicjax.pipeline import (
    generate as generate,
    infer as infer,
    OutOfRange as OutOfRange,
)
from dicjax.population import (
    compensate as compensate,
    impose as impose,
    Population as Population,
    sample as sample,
)
from dicjax.readers import read_spike_trains as read_spike_trains
from dicjax.recipe import Recipe as Recipe
from dicjax.result import Generated as Generated
from dicjax.simulation import Run as Run, simulate as simulate
from dicjax.solvers import (
    Membrane as Membrane,
    StaggeredExponential as StaggeredExponential,
)
from dicjax.spikes import (
    feature_errors as feature_errors,
    Features as Features,
    is_valid as is_valid,
    LABELS as LABELS,
    spike_features as spike_features,
    SpikeTrain as SpikeTrain,
)
from dicjax.stimulus import NoisyCurrent as NoisyCurrent


__version__ = importlib.metadata.version("dicjax")
