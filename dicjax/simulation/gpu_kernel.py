"""The dispatch of `lanes` as one kernel for GPUs.

A program of the kernel keeps the state of a few lanes in registers over all steps of a
dispatch. It reads and writes the state once; in between it writes spikes only. XLA
would carry the state through memory at every step.
"""

import functools

import jax
import jax.experimental.pallas as pl
import jax.experimental.pallas.triton as plt
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from dicjax.neurons import member_axes
from dicjax.simulation.lanes import (
    burst,
    CompiledNeuron,
    DispatchOutput,
    LaneInputs,
    Lanes,
    restarted,
    StepSizes,
)
from dicjax.simulation.stimulus import (
    AbstractStimulus,
    cell_axes,
    Injected,
    InjectedConductance,
    Together,
    Waveform,
)


TILE = 128  # lanes in a program: one in each thread of four warps


def supports(compiled: CompiledNeuron, stimulus: AbstractStimulus | None) -> bool:
    """Whether the kernel can run this: it has no memory for arrays and waveforms."""
    if isinstance(stimulus, Together):
        return all(supports(compiled, part) for part in stimulus.parts)
    if isinstance(stimulus, InjectedConductance):
        return supports(compiled, stimulus.conductance)
    return compiled.is_scalar and not isinstance(stimulus, Waveform | Injected)


@functools.partial(
    jax.jit, static_argnames=("compiled", "num_bursts", "record", "interpret")
)
def dispatch_fused(
    compiled: CompiledNeuron,
    lanes: Lanes,
    inputs: LaneInputs,
    step_sizes: StepSizes,
    until: Int[Array, ""],
    busy: Bool[Array, " lanes"],
    is_fresh: Bool[Array, " lanes"],
    num_bursts: int,
    record: bool,
    interpret: bool = False,
) -> tuple[Lanes, DispatchOutput]:
    """Does what `dispatch` does, without traces, on a multiple of `TILE` lanes.

    It always takes all `num_bursts` bursts, even if all lanes have finished.
    """
    del until, busy, record
    g, stimulus, initial, kinetics = inputs
    num_lanes = len(g)
    neuron = compiled.neuron_with(kinetics)
    lanes = restarted(neuron, lanes, step_sizes, is_fresh, initial)
    columns = tuple(g.T)
    leaves, treedef = jax.tree.flatten((lanes, columns, stimulus, kinetics, step_sizes))
    shared = [leaf.ndim == 0 for leaf in leaves]
    # Arguments of a kernel need at least one axis.
    leaves = [
        leaf.reshape(1) if one else leaf
        for leaf, one in zip(leaves, shared, strict=True)
    ]
    state, state_treedef = jax.tree.flatten(lanes)
    lane_spec = pl.BlockSpec((TILE,), lambda i: (i,))
    row_spec = pl.BlockSpec((num_bursts, TILE), lambda i: (0, i))
    rows = jax.ShapeDtypeStruct((num_bursts, num_lanes), g.dtype)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (*state, lanes.whole)]
    whole = jax.ShapeDtypeStruct(rows.shape, jnp.uint16)
    *state, num, spikes, ahead = pl.pallas_call(
        functools.partial(_tile, compiled, treedef, shared, num_bursts),
        grid=(num_lanes // TILE,),
        in_specs=[
            pl.BlockSpec((1,), lambda i: (0,)) if one else lane_spec for one in shared
        ],
        out_specs=[*[lane_spec] * len(shapes), row_spec, row_spec],
        out_shape=[*shapes, rows, whole],
        interpret=interpret,
        compiler_params=plt.CompilerParams(num_warps=TILE // 32),
    )(*leaves)
    written = jnp.arange(num_bursts, dtype=num.dtype)[:, None] < num[None]
    spikes = jnp.where(written, spikes, jnp.inf)
    lanes = jax.tree.unflatten(state_treedef, state)
    return lanes, DispatchOutput(num.max(), spikes, ahead, None, None)


def _tile(compiled, treedef, shared, num_bursts, *refs):
    """Runs one program of the kernel on references to its lanes."""
    inputs, (*outputs, spikes, ahead) = refs[: len(shared)], refs[len(shared) :]
    read = [
        ref[0] if one else ref[...] for ref, one in zip(inputs, shared, strict=True)
    ]
    lanes, g, stimulus, kinetics, step_sizes = jax.tree.unflatten(treedef, read)
    neuron = compiled.neuron_with(kinetics)
    began, column = lanes.whole, jnp.arange(TILE, dtype=jnp.int32)
    of_cells = None if stimulus is None else cell_axes(stimulus)
    one = lambda neuron, lane, g, stimulus: burst(
        neuron, lane, g, stimulus, step_sizes, fence=lambda x: x
    )[:2]
    all_lanes = jax.vmap(one, (member_axes(neuron), 0, 0, of_cells))

    def advance(i, val):
        del i
        lanes, count = val
        gone = (lanes.whole - began).astype(jnp.uint16)
        lanes, time = all_lanes(neuron, lanes, g, stimulus)
        fired = time < jnp.inf  # or fell short
        # Spikes fill rows from the top, so that the host has to read few rows.
        plt.store(spikes.at[count, column], time, mask=fired)
        plt.store(ahead.at[count, column], gone, mask=fired)
        return lanes, count + fired.astype(count.dtype)

    none = jnp.zeros(TILE, jnp.int32)
    lanes, count = jax.lax.fori_loop(0, num_bursts, advance, (lanes, none))
    for ref, leaf in zip(outputs, [*jax.tree.leaves(lanes), count], strict=True):
        ref[...] = leaf
