"""What it costs that the kinetics of members differ."""

import dataclasses
import time
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from scripts.bench.results import Benchmark, Measurement, row
from scripts.bench.stg_members import stg_members


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kinetics(Benchmark):
    """STG neurons that share their kinetics, beside neurons that have their own.

    The same members are simulated in turn with one neuron, with a half-activation of
    the sodium current for each, with all numbers of the channels for each, and with
    every number of the neuron for each. Numbers are those of the
    neuron itself, so that all fire alike. Costs are in CPU seconds.
    """

    num: int = 2048
    """Members."""
    duration: float = 2000.0
    """Simulated time, in ms."""
    rounds: int = 5
    """Simulations of each, which take turns."""

    def measure(self) -> Iterator[Measurement]:
        """Measures all ways in turn."""
        shared = dj.stg()
        g = stg_members(2 * self.num, 0, "float32")[: self.num]
        each = lambda x: jnp.broadcast_to(x, (len(g), *jnp.shape(x)))
        midpoints = lambda n: n.channels[0].gates[0].steady_state.midpoint
        neurons = {
            "none": shared,
            "one half-activation": eqx.tree_at(midpoints, shared, replace_fn=each),
            "every channel": eqx.tree_at(
                lambda n: n.channels, shared, jax.tree.map(each, shared.channels)
            ),
            "every number": jax.tree.map(each, shared),
        }
        first, seconds = {}, {name: [] for name in neurons}
        spikes = {}
        for number in range(self.rounds + 1):
            for name, neuron in neurons.items():
                began = time.process_time()
                run = dj.simulate(neuron, g, self.duration)
                took = time.process_time() - began
                spikes[name] = np.asarray(run.num_spikes).sum()
                if number == 0:
                    first[name] = took
                else:
                    seconds[name].append(took)
        for name, some in seconds.items():
            pairs = zip(some, seconds["none"], strict=True)
            work = len(g) * self.duration / 1000
            columns = {
                ("first call", "CPU-s"): first[name],
                ("throughput", "neuron-s/CPU-s"): [work / x for x in some],
                ("cost", "of shared kinetics"): [x / y for x, y in pairs],
                ("spikes", ""): float(spikes[name]),
            }
            yield from row("kinetics of members", {"own": name}, columns)
