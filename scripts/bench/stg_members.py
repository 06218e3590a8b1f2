"""The population of STG neurons that speed is measured on."""

import jax
import numpy as np

import dicjax as dj
from dicjax.dics import OK


G_S, G_U = (-20.0, 20.0), (0.0, 20.0)  # the published range of targets


def stg_members(num: int, seed: int, dtype: str) -> np.ndarray:
    """Conductances (mS/cm²) of members with DICs uniform over the published range.

    Fewer than `num`, if some targets cannot be reached.
    """
    (low_s, high_s), (low_u, high_u) = G_S, G_U
    targets = np.random.default_rng(seed).uniform(
        (low_s, low_u), (high_s, high_u), (num, 2)
    )
    with jax.enable_x64(dtype == "float64"):
        members = dj.compensate(
            jax.random.key(seed), dj.stg(), targets, dtype=np.dtype(dtype)
        )
    return np.asarray(members.g)[members.status == OK]
