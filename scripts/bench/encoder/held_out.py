"""Members that no encoder has seen."""

import jax.random as jr

import dicjax as dj
from dicjax.inference import Checkpoint, Dataset, load_checkpoint, shipped_checkpoint
from dicjax.inference.dataset import learnable, make_dataset, PRIOR_OF, SAMPLERS, Source
from scripts.bench.processes import reuse_compiled_programs


SEED = 77


def load(model: str) -> Checkpoint:
    """The checkpoint that ships for a model, for benchmarks that compile for it."""
    reuse_compiled_programs()
    return load_checkpoint(shipped_checkpoint(model), model)


def held_out(model: str, num: int) -> Dataset:
    """Members of a model's recipe, or of its box where the recipe draws from that."""
    neuron = dj.MODELS[model]()
    sampler = "box" if neuron.required_recipe.bounded else "recipe"
    return learnable(make_dataset(jr.key(SEED), neuron, (Source(sampler, num),)))


def prior_of(members: Dataset) -> str:
    """The prior under which members that `held_out` gives are to be read."""
    return PRIOR_OF[SAMPLERS[members.sampler[0]]]
