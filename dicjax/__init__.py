"""From recorded spike times to validated populations of conductance-based neurons."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

from dicjax.anomalies import examine as examine, Finding as Finding
from dicjax.channels import (
    AbstractChannel as AbstractChannel,
    GatedChannel as GatedChannel,
    MarkovChannel as MarkovChannel,
    Transition as Transition,
)
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
from dicjax.diversity import (
    coverage as coverage,
    entropy_dimension as entropy_dimension,
    participation_ratio as participation_ratio,
)
from dicjax.electrophysiology import (
    step_response as step_response,
    StepResponse as StepResponse,
)
from dicjax.explanation import (
    attribute as attribute,
    identifiability as identifiability,
    reachability as reachability,
)
from dicjax.gating import (
    AbstractCurve as AbstractCurve,
    AbstractGate as AbstractGate,
    Bell as Bell,
    CalciumSaturation as CalciumSaturation,
    Constant as Constant,
    Exponential as Exponential,
    Gate as Gate,
    GoldmanHodgkinKatz as GoldmanHodgkinKatz,
    Linoid as Linoid,
    MagnesiumBlock as MagnesiumBlock,
    Nernst as Nernst,
    OpenFraction as OpenFraction,
    Power as Power,
    Product as Product,
    RateGate as RateGate,
    Relaxation as Relaxation,
    Scaled as Scaled,
    Sigmoid as Sigmoid,
    Sum as Sum,
)
from dicjax.models import (
    connor_stevens as connor_stevens,
    cortical as cortical,
    da as da,
    hodgkin_huxley as hodgkin_huxley,
    MODELS as MODELS,
    pospischil as pospischil,
    stg as stg,
    stg_prinz as stg_prinz,
)
from dicjax.neuron import (
    Calcium as Calcium,
    Neuron as Neuron,
    State as State,
    Temperature as Temperature,
)
from dicjax.paths import path as path
from dicjax.pipeline import (
    Cancelled as Cancelled,
    generate as generate,
    infer as infer,
    OutOfRange as OutOfRange,
)
from dicjax.polytope import sample_polytope as sample_polytope
from dicjax.population import (
    compensate as compensate,
    impose as impose,
    Population as Population,
    sample as sample,
)
from dicjax.posterior import Posterior as Posterior
from dicjax.reach import reach as reach
from dicjax.readers import read_spike_trains as read_spike_trains
from dicjax.recipe import Recipe as Recipe
from dicjax.refinement import refine as refine
from dicjax.result import Generated as Generated
from dicjax.robustness import certify as certify
from dicjax.simulation import Run as Run, simulate as simulate
from dicjax.slopes import feature_slopes as feature_slopes
from dicjax.spikes import (
    feature_errors as feature_errors,
    Features as Features,
    is_valid as is_valid,
    LABELS as LABELS,
    spike_features as spike_features,
    SpikeTrain as SpikeTrain,
)
from dicjax.stimulus import (
    AbstractStimulus as AbstractStimulus,
    Chirp as Chirp,
    NoisyCurrent as NoisyCurrent,
    Ramp as Ramp,
    Step as Step,
    Waveform as Waveform,
)


__version__ = importlib.metadata.version("dicjax")

# What would make everyone wait for libraries that few need.
_ON_DEMAND = {
    "characterise": "dicjax.characterisation",
    "Characteristics": "dicjax.characterisation",
    "compare": "dicjax.comparison",
    "Comparison": "dicjax.comparison",
    "draw_ensemble": "dicjax.ensemble",
    "export_brian2": "dicjax.exporters",
    "export_csv": "dicjax.exporters",
    "export_jaxley": "dicjax.exporters",
    "export_neuron": "dicjax.exporters",
    "export_nwb": "dicjax.exporters",
    "export_xlsx": "dicjax.exporters",
    "Family": "dicjax.families",
    "FAMILIES": "dicjax.families",
    "find_steps": "dicjax.current_clamp",
    "load_operator": "dicjax.operator_checkpoint",
    "measure_cell": "dicjax.comparison",
    "Membrane": "dicjax.solvers",
    "Operator": "dicjax.operator",
    "passive_membrane": "dicjax.current_clamp",
    "PassiveMembrane": "dicjax.current_clamp",
    "read_population": "dicjax.stored",
    "read_sweeps": "dicjax.current_clamp",
    "respond": "dicjax.response",
    "Response": "dicjax.response",
    "StaggeredMidpoint": "dicjax.solvers",
    "Steps": "dicjax.current_clamp",
    "StoredPopulation": "dicjax.stored",
    "Sweeps": "dicjax.current_clamp",
}
if TYPE_CHECKING:
    from dicjax.characterisation import (
        characterise as characterise,
        Characteristics as Characteristics,
    )
    from dicjax.comparison import (
        compare as compare,
        Comparison as Comparison,
        measure_cell as measure_cell,
    )
    from dicjax.current_clamp import (
        find_steps as find_steps,
        passive_membrane as passive_membrane,
        PassiveMembrane as PassiveMembrane,
        read_sweeps as read_sweeps,
        Steps as Steps,
        Sweeps as Sweeps,
    )
    from dicjax.ensemble import draw_ensemble as draw_ensemble
    from dicjax.exporters import (
        export_brian2 as export_brian2,
        export_csv as export_csv,
        export_jaxley as export_jaxley,
        export_neuron as export_neuron,
        export_nwb as export_nwb,
        export_xlsx as export_xlsx,
    )
    from dicjax.families import FAMILIES as FAMILIES, Family as Family
    from dicjax.operator import Operator as Operator
    from dicjax.operator_checkpoint import load_operator as load_operator
    from dicjax.response import respond as respond, Response as Response
    from dicjax.solvers import (
        Membrane as Membrane,
        StaggeredMidpoint as StaggeredMidpoint,
    )
    from dicjax.stored import (
        read_population as read_population,
        StoredPopulation as StoredPopulation,
    )


def __getattr__(name: str) -> object:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'dicjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ON_DEMAND])
