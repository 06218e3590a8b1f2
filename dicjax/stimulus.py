"""Applied currents."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, Key

from dicjax.gating import strong


NODE_INTERVAL = 0.5  # ms between noise nodes: a band limit of 1 kHz
NUM_NODES = 4  # that a window of 1 ms may touch, wherever it starts
Nodes = tuple[Float[Array, ""], ...]


class NoisyCurrent(eqx.Module):
    """A constant current with band-limited Gaussian noise.

    Noise is drawn every 0.5 ms, joined by straight lines (so that little of it lies
    above 1 kHz) and made on the fly from the key of each cell: nothing is stored.

    - `mean`: the constant part, in µA/cm².
    - `sigma`: standard deviation over time of the noise, in µA/cm².
    - `key`: its randomness; cell `i` of a population uses `fold_in(key, i)`.
    """

    key: Key[Array, ""]
    sigma: Float[Array, ""] = eqx.field(converter=strong, default=0.0)
    mean: Float[Array, ""] = eqx.field(converter=strong, default=0.0)

    def nodes(self, cell_key: Key[Array, ""], first: Int[Array, ""]) -> Nodes:
        """Successive nodes of one cell's current, from node `first` on."""
        # Joining independent nodes by lines leaves 2/3 of their variance on average.
        sigma = self.sigma * jnp.sqrt(1.5).astype(self.sigma.dtype)
        node = lambda i: jr.normal(jr.fold_in(cell_key, first + i), dtype=sigma.dtype)
        # Separate scalars, not an array: they vectorise over cells.
        return tuple(self.mean + sigma * node(i) for i in range(NUM_NODES))


def between_nodes(nodes: Nodes, position: Float[Array, ""]) -> Float[Array, ""]:
    """The piecewise linear current at `position`, counted in nodes from the first."""
    current = nodes[0]
    for i, (before, after) in enumerate(itertools.pairwise(nodes)):
        current = current + (after - before) * jnp.clip(position - i, 0, 1)
    return current
