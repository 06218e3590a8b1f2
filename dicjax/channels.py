"""Ion channels: what each conducts per unit of maximal conductance."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dicjax.gating import AbstractCurve, Constant, Gate


def as_reversal(reversal: float | AbstractCurve) -> AbstractCurve:
    """A fixed reversal potential (mV) as a curve; curves pass through."""
    return reversal if isinstance(reversal, AbstractCurve) else Constant(reversal)


class GatedChannel(eqx.Module):
    r"""A channel whose current is $g \cdot \prod_j x_j^{n_j} \cdot (V - E)$.

    - `name`: how conductance columns and reports call it.
    - `gates`: its gates; a leak has none.
    - `reversal`: $E$, in mV: a number, or a curve such as [`dicjax.gating.Nernst`][].
    """

    name: str = eqx.field(static=True)
    gates: tuple[Gate, ...] = ()
    reversal: AbstractCurve = eqx.field(converter=as_reversal, kw_only=True)

    def current(
        self,
        V: Float[Array, ""],
        gates: tuple[Float[Array, ""], ...],
        Ca: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The current of one mS/cm² of this channel, in µA/cm², outward positive."""
        current = V - self.reversal(V, Ca)
        for gate, x in zip(self.gates, gates, strict=True):
            current = current * jnp.power(x, gate.exponent)
        return current
