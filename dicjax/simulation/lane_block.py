"""A block of lanes on one device: refilled, dispatched, and its results collected.

A lane simulates one cell. When that has finished, another cell takes the lane.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from dicjax._core import compiled_size
from dicjax.simulation.lanes import (
    CompiledNeuron,
    dispatch,
    DispatchOutput,
    initial_lanes,
    InitialConditions,
    LaneInputs,
    Lanes,
    step_sizes_of,
    StepSizes,
    take_bursts,
)
from dicjax.simulation.problem import (
    Finished,
    kept_spikes,
    num_ms,
    Part,
    Problem,
    saved_samples,
    SavedSamples,
)
from dicjax.simulation.stimulus import for_members


IDLE = -1  # the cell of a lane that has none


class Program(NamedTuple):
    """A problem as blocks dispatch it."""

    problem: Problem
    compiled: CompiledNeuron
    kinetics: tuple[np.ndarray, ...]
    step_sizes: StepSizes
    num_bursts: int


class LaneBlock(NamedTuple):
    """Lanes on one device between two dispatches.

    - `cells`: the cell of every lane, or `IDLE`; `inputs`: what these cells are given.
    - `is_fresh`: which lanes start over at the next dispatch.
    - `whole`: whole ms that every lane has been simulated for.
    - `last_t`, `last_V`: time (ms) and potential (mV) of the last step of every lane,
        from which saved potentials are interpolated.
    """

    device: Any
    lanes: Lanes
    cells: Int[np.ndarray, " lanes"]
    is_fresh: Bool[np.ndarray, " lanes"]
    inputs: LaneInputs
    whole: Int[np.ndarray, " lanes"]
    last_t: Float[np.ndarray, " lanes"]
    last_V: Float[np.ndarray, " lanes"]


def program_of(problem: Problem, num_bursts: int) -> Program:
    """The program that simulates a problem, `num_bursts` bursts at a time."""
    compiled = CompiledNeuron(problem.neuron)
    kinetics = tuple(map(np.asarray, compiled.kinetics_of(problem.neuron)))
    sizes = step_sizes_of(problem.dt, problem.stimulus, problem.g.dtype)
    return Program(problem, compiled, kinetics, sizes, num_bursts)


def initial_conditions(
    problem: Problem, cells: Int[np.ndarray, " lanes"]
) -> InitialConditions:
    """Where these cells start."""
    return InitialConditions(
        jnp.asarray(problem.V0[cells]), jnp.asarray(problem.Ca0[cells])
    )


def idle_block(program: Program, device: Any, num_lanes: int) -> LaneBlock:
    """Lanes without cells."""
    problem = program.problem
    inputs = inputs_of(program, np.zeros(num_lanes, int))
    neuron = program.compiled.neuron_with(inputs.kinetics)
    lanes = jax.eval_shape(initial_lanes, neuron, inputs.initial, program.step_sizes)
    return LaneBlock(
        device=device,
        lanes=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), lanes),
        cells=np.full(num_lanes, IDLE),
        is_fresh=np.ones(num_lanes, bool),
        inputs=inputs,
        whole=np.zeros(num_lanes, np.int64),
        last_t=np.zeros(num_lanes),
        last_V=np.zeros(num_lanes, problem.g.dtype),
    )


def refill(
    program: Program, block: LaneBlock, take: Callable[[int], Int[np.ndarray, " _"]]
) -> LaneBlock:
    """Gives idle lanes to new cells; `take(num)` returns the next ones, at most `num`.

    The block stays as it is where there are no cells left.
    """
    (idle,) = np.nonzero(block.cells == IDLE)
    new = take(len(idle))
    lanes = idle[: len(new)]
    is_fresh = np.zeros(len(block.cells), bool)
    is_fresh[lanes] = True
    if not len(new):
        return block._replace(is_fresh=is_fresh)
    problem = program.problem
    cells, last_V = block.cells.copy(), block.last_V.copy()
    cells[lanes], last_V[lanes] = new, problem.V0[new]
    return block._replace(
        cells=cells,
        is_fresh=is_fresh,
        inputs=inputs_of(program, np.maximum(cells, 0)),
        whole=np.where(is_fresh, 0, block.whole),
        last_t=np.where(is_fresh, 0, block.last_t),
        last_V=last_V,
    )


def inputs_of(program: Program, cells: Int[np.ndarray, " lanes"]) -> LaneInputs:
    """What these cells of a problem are given."""
    problem, stimulus = program.problem, program.problem.stimulus
    if stimulus is not None:
        stimulus = for_members(stimulus, jnp.asarray(cells))
    g = jnp.asarray(problem.g[cells])
    kinetics = tuple(jnp.asarray(x[cells]) for x in program.kinetics)
    return LaneInputs(g, stimulus, initial_conditions(problem, cells), kinetics)


def advance(program: Program, block: LaneBlock) -> tuple[LaneBlock, DispatchOutput]:
    """Dispatches once. Without any cell in its lanes, it compiles and returns."""
    problem = program.problem
    bursts = bursts_for(program, block.device)
    lanes, output = (dispatch if bursts is take_bursts else bursts)(
        program.compiled,
        block.lanes,
        block.inputs,
        program.step_sizes,
        jnp.asarray(num_ms(problem), jnp.int32),
        jnp.asarray(block.cells != IDLE),
        jnp.asarray(block.is_fresh),
        program.num_bursts,
        problem.save_every is not None,
    )
    return block._replace(lanes=lanes), output


def bursts_for(program: Program, device: Any) -> Callable:
    """The function that takes bursts fastest on a device, for compiled code."""
    is_traced = program.problem.save_every is not None
    if device.platform == "cpu" or is_traced or not _has_triton():
        return take_bursts
    # Half a second to import, which nobody without a GPU should wait for.
    from dicjax.simulation.gpu_kernel import dispatch_fused, supports

    is_supported = supports(program.compiled, program.problem.stimulus)
    return dispatch_fused if is_supported else take_bursts


@functools.cache
def _has_triton() -> bool:
    try:
        from jax.experimental.pallas.triton import CompilerParams, store
    except ImportError:  # JAX 0.11 has called it deprecated
        warnings.warn(
            "This JAX has no Pallas for Triton, so that GPUs are left to XLA, which is "
            "slower: JAX 0.10 to 0.12 have it.",
            stacklevel=2,
        )
        return False
    del CompilerParams, store
    return True


def collect(
    program: Program, block: LaneBlock, output: DispatchOutput
) -> tuple[LaneBlock, Part]:
    """What a dispatch gave; lanes whose cells have finished become idle."""
    problem, until = program.problem, num_ms(program.problem)
    count = int(output.count)
    lane, times, short = _spikes(program, block, output, count)
    spikes = kept_spikes(problem, block.cells[lane], times)
    fell_short = block.cells[short]
    samples = None
    if output.times is not None:
        block, samples = _samples(problem, block, output, count)
    cells, busy = block.cells, block.cells != IDLE
    after = np.asarray(block.lanes.whole, np.int64)
    is_finite = np.isfinite(np.asarray(block.lanes.y.V))
    done = busy & ((after >= until) | ~is_finite)
    has_lost = np.asarray(block.lanes.lost)[done]
    finished = Finished(cells[done], is_finite[done], has_lost)
    # A cell that diverged counts as simulated to the end.
    reached = np.where(done, until, np.minimum(after, until))
    gone = (reached - np.minimum(block.whole, until))[busy].sum()
    block = block._replace(cells=np.where(done, IDLE, cells), whole=after)
    return block, Part(spikes, fell_short, samples, finished, int(gone))


def _spikes(program: Program, block: LaneBlock, output: DispatchOutput, count: int):
    """Lanes and times (ms) of all spikes, lane by lane, and lanes of shortfalls."""
    by_lane = lambda x: np.asarray(x).T
    if block.device.platform != "cpu":
        # Fewer bytes to move; few sizes, since every slice is compiled.
        num_rows = min(compiled_size(count), program.num_bursts)
        by_lane = lambda x: np.asarray(x[:num_rows].T)
    spikes, ahead = (by_lane(x)[:, :count] for x in (output.spikes, output.ahead))
    lane, row = np.nonzero(spikes < np.inf)
    whole, spikes = block.whole[lane] + ahead[lane, row], spikes[lane, row]
    # How far a lane goes on after its time depends on its neighbours.
    kept = (block.cells[lane] != IDLE) & (whole < num_ms(program.problem))
    fired = kept & np.isfinite(spikes)
    times = whole[fired] + spikes[fired].astype(np.float64)
    # Shortfalls have the time of their burst.
    short = kept & ~fired & (whole >= program.problem.discard)
    return lane[fired], times, lane[short]


def _samples(
    problem: Problem, block: LaneBlock, output: DispatchOutput, count: int
) -> tuple[LaneBlock, SavedSamples]:
    """Potentials at the saved samples that lie between first and last step."""
    by_lane = lambda x: np.moveaxis(x, 1, 0).reshape(len(block.cells), -1)
    ahead, t, V = (
        np.asarray(x)[:count] for x in (output.ahead, output.times, output.V)
    )
    times = block.whole[:, None] + by_lane(ahead[..., None] + t.astype(float))
    times = np.column_stack((block.last_t, times))
    V = np.column_stack((block.last_V, by_lane(V)))
    block = block._replace(last_t=times[:, -1], last_V=V[:, -1])
    # Times stop being numbers where a cell diverges.
    busy = (block.cells != IDLE) & np.isfinite(times).all(axis=1)
    times, V, every = times[busy], V[busy], problem.save_every
    saved = saved_samples(problem)
    low = np.ceil(times[:, 0] / every - 1e-9).astype(int)
    high = np.floor(times[:, -1] / every + 1e-9).astype(int)
    low, high = np.maximum(low, saved.start), np.minimum(high, saved.stop - 1)
    num = np.maximum(high - low + 1, 0)
    row = np.repeat(np.arange(len(times)), num)
    sample = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num - low, num)
    # One search for all cells: complex numbers are ordered by row, then by time.
    x, t = np.arange(len(times))[:, None] + 1j * times, sample * every
    before = np.searchsorted(x.ravel(), row + 1j * t, side="right") - 1
    before = np.clip(before - row * x.shape[1], 0, x.shape[1] - 2)
    at = lambda x, later: x[row, before + later]
    part = (t - at(times, 0)) / (at(times, 1) - at(times, 0))
    interpolated = at(V, 0) + np.clip(part, 0, 1) * (at(V, 1) - at(V, 0))
    cells = block.cells[busy][row]
    return block, SavedSamples(cells, sample - saved.start, interpolated)
