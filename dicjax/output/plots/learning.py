"""Figures of how encoders learn."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dicjax.output.plots import style


SMOOTHED = 200  # steps that a point of the curve is the mean of


def plot_training(
    losses: Float[np.ndarray, " steps"], validation: Float[np.ndarray, "rows 2"]
) -> Figure:
    """The loss over the steps of training, and on members kept apart.

    - `losses`: of every step; shown as means over 200 steps.
    - `validation`: rows of (step, loss).
    """
    figure, (ax,) = style.new_panels(2.6)
    size = max(1, min(SMOOTHED, len(losses) // 10))
    means = losses[: len(losses) // size * size].reshape(-1, size).mean(axis=1)
    steps = (np.arange(len(means)) + 0.5) * size
    ax.plot(steps, means, color=style.OTHER, lw=1.2)
    ax.plot(*validation.T, color=style.MEMBERS, lw=1.6, marker="o", ms=3)
    # The first steps are far off, and of no interest.
    settled = np.concatenate([means[len(means) // 20 :], validation[:, 1]])
    low, high = settled.min(), np.quantile(settled, 0.98)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set_xlabel("step")
    ax.set_ylabel("loss (nats)")
    key = ("while learning", style.MUTED), ("on members kept apart", style.MEMBERS)
    style.color_key(ax, *key)
    return figure
