import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
from test_neuron import BOXES

from dicjax.neurons.models import MODELS
from dicjax.simulation.gpu_kernel import dispatch_fused, supports, TILE
from dicjax.simulation.lanes import (
    CompiledNeuron,
    dispatch,
    initial_lanes,
    InitialConditions,
    LaneInputs,
    StepSizes,
)
from dicjax.simulation.noise import NoisyCurrent
from dicjax.simulation.protocols import PulseTrain
from dicjax.simulation.stimulus import (
    Chirp,
    for_members,
    Ramp,
    Step,
    Together,
    Waveform,
)


SLOW = pytest.mark.slow
STIMULI = {
    "none": None,
    "step": Step(np.linspace(0, 10, TILE, dtype=np.float32), 5.0),
    "noise and ramp": NoisyCurrent(jr.key(0), 3.0) + Ramp(0.0, 5.0, 1.0, 9.0),
    "chirp": Chirp(5.0, low=10.0, high=90.0, rise=10.0),
    "pulses": PulseTrain(np.linspace(0, 10, TILE, dtype=np.float32), 1.0, 5.0, 0.5, 3),
}


def conductances(name, num):
    if name in BOXES:
        rng = np.random.default_rng(0)
        return rng.uniform(0, BOXES[name], (num, len(BOXES[name])))
    return np.tile(MODELS[name]().default_g, (num, 1))


def arguments(name, stimulus=None, num=TILE, dtype="float32"):
    dtype = np.dtype(dtype)
    neuron = MODELS[name]().with_dtype(dtype)
    g = jnp.asarray(conductances(name, num), dtype)
    step_sizes = StepSizes(jnp.asarray(0.05, dtype), jnp.asarray(0.2, dtype))
    if stimulus is not None:
        cast = lambda x: x.astype(dtype) if x.dtype in (float, "float32") else x
        stimulus = jax.tree.map(cast, for_members(stimulus, jnp.arange(num)))
    until = jnp.asarray(10_000, jnp.int32)
    all_lanes = jnp.ones(num, bool)
    initial = InitialConditions(
        jnp.full(num, neuron.initial_V), jnp.full(num, neuron.initial_Ca)
    )
    lanes = initial_lanes(neuron, initial, step_sizes)
    inputs = LaneInputs(g, stimulus, initial)
    compiled = CompiledNeuron(neuron)
    return compiled, lanes, inputs, step_sizes, until, all_lanes, all_lanes


@pytest.mark.parametrize(
    "stimulus",
    [x if x == "noise and ramp" else pytest.param(x, marks=SLOW) for x in STIMULI],
)
def test_the_kernel_takes_the_steps_of_the_engine(stimulus):
    args = arguments("stg", STIMULI[stimulus], dtype="float64")
    lanes, output = dispatch(*args, 10, False)
    fused, compact = dispatch_fused(*args, 10, False, interpret=True)
    for a, b in zip(jax.tree.leaves(lanes), jax.tree.leaves(fused), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    every, packed = (
        np.asarray(x.spikes) + np.asarray(x.ahead) for x in (output, compact)
    )
    assert np.isfinite(every).sum() > 20
    for a, b in zip(every.T, packed.T, strict=True):
        fired = a[np.isfinite(a)]
        np.testing.assert_allclose(b[: len(fired)], fired, rtol=1e-7)
        assert np.isinf(b[len(fired) :]).all()
    assert int(compact.count) == np.isfinite(packed).sum(0).max()


def test_the_kernel_agrees_in_single_precision():
    args = arguments("stg", num=2 * TILE)
    lanes, _ = dispatch(*args, 6, False)
    fused, _ = dispatch_fused(*args, 6, False, interpret=True)
    np.testing.assert_allclose(lanes.t, fused.t, atol=2e-3)
    close = np.isclose(lanes.y.V, fused.y.V, atol=1.0)
    assert close.mean() > 0.97  # in the middle of a spike the last digit matters


# They have every kind of curve, channel and calcium that models have.
VARIED = {"stg-prinz", "da", "cortical", "connor-stevens"}


@pytest.mark.parametrize(
    "name", [x if x in VARIED else pytest.param(x, marks=SLOW) for x in MODELS]
)
def test_the_kernel_compiles_for_a_gpu_whatever_the_model(name):
    stimuli = [STIMULI[x] for x in ("noise and ramp", "chirp", "pulses")]
    args = arguments(name, Together(tuple(stimuli)))
    fused = lambda lanes: dispatch_fused(args[0], lanes, *args[2:], 8, False)
    # JAX 0.11 asks which GPU it is for.
    device = AbstractDevice("NVIDIA H200", num_cores=132, platform="gpu")
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        lowered = jax.jit(fused).trace(args[1]).lower(lowering_platforms=("cuda",))
    assert "triton" in lowered.as_text()


def test_waveforms_are_left_to_the_engine():
    waveform = Waveform(np.zeros(10), 0.1)
    stg = CompiledNeuron(MODELS["stg"]())
    assert not supports(stg, waveform) and not supports(stg, Step(1.0) + waveform)
    assert supports(stg, None)
    assert supports(stg, Step(1.0) + NoisyCurrent(jr.key(0), 1.0))
