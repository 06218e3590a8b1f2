"""dicjax itself."""

import jax

import dicjax as dj
from scripts.bench.peers.task import Result, Run, Task


def build(task: Task) -> Run:
    """Compiles by simulating the same population for a millisecond."""
    jax.config.update("jax_enable_x64", task.dtype == "float64")
    neuron, g = dj.stg(), task.g.astype(task.dtype)
    dj.simulate(neuron, g, 1.0, dt=task.dt)

    def run() -> Result:
        result = dj.simulate(neuron, g, task.duration, dt=task.dt)
        rows = zip(result.spike_times, result.num_spikes, strict=True)
        return Result(lambda: [times[:num] for times, num in rows])

    return run
