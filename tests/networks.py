"""Networks that have learned nothing, made without compiling their random weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dicjax.inference.config import EncoderConfig
from dicjax.inference.encoder import Encoder, make_scales


def random_network(make, *args, seed=0):
    """A network whose arrays are small random numbers in single precision."""
    rng = np.random.default_rng(seed)

    def draw(x):
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        size = max(x.shape[-1:], default=1) ** -0.5
        return jnp.asarray(rng.uniform(-size, size, x.shape), jnp.float32)

    shapes = eqx.filter_eval_shape(make, *args, key=jr.key(0))
    return jax.tree.map(draw, shapes)


def random_encoder(config: EncoderConfig, seed=0) -> Encoder:
    """An encoder for g_s between -20 and 20 and g_u between 0 and 20."""
    scales = make_scales((-20.0, 20.0), (0.0, 20.0))
    scales = jax.tree.map(lambda x: x.astype(jnp.float32), scales)
    made = random_network(Encoder, config, scales, seed=seed)
    return eqx.tree_at(lambda e: e.scales, made, scales)
