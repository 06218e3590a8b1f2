"""Spike trains in, a posterior out; and how encoders are trained."""

from dicjax.inference.checkpoint import (
    Checkpoint as Checkpoint,
    checkpoint_folder as checkpoint_folder,
    find_neuron as find_neuron,
    load_checkpoint as load_checkpoint,
    shipped_checkpoint as shipped_checkpoint,
    shipped_models as shipped_models,
)
from dicjax.inference.config import (
    AdapterConfig as AdapterConfig,
    DensityConfig as DensityConfig,
    EmulatorConfig as EmulatorConfig,
    EncoderConfig as EncoderConfig,
    TrainingConfig as TrainingConfig,
)
from dicjax.inference.dataset import (
    begin_source as begin_source,
    Dataset as Dataset,
    default_sources as default_sources,
    draw_by_recipe as draw_by_recipe,
    joined as joined,
    measured as measured,
    SHARD_SIZE as SHARD_SIZE,
    stimulus_of as stimulus_of,
)
from dicjax.inference.dataset_store import (
    from_table as from_table,
    neuron_hash as neuron_hash,
    to_table as to_table,
)
from dicjax.inference.density import (
    contexts as contexts,
    sample_density as sample_density,
)
from dicjax.inference.emulator import (
    FLOOR as FLOOR,
    Goal as Goal,
    goal as goal,
    log_conductances as log_conductances,
    polish as polish,
)
from dicjax.inference.encoder import PRIORS as PRIORS
from dicjax.inference.library import log_features as log_features
from dicjax.inference.posterior import (
    NUM_DRAWS as NUM_DRAWS,
    Posterior as Posterior,
    posterior_of as posterior_of,
    read_trains as read_trains,
)
from dicjax.inference.train import (
    fit_adapter as fit_adapter,
    fit_encoder as fit_encoder,
    Fitted as Fitted,
)
