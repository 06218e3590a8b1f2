import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from dicjax.inference.calibration import levels_needed
from dicjax.inference.posterior import Posterior
from scripts.bench.encoder.readings import expected_coverage, ranks_of_truths


NUM = 512


def _posteriors(width):
    """Posteriors of random centres, and truths drawn with a width of one."""
    key = jr.key(0)
    centers = jr.normal(jr.fold_in(key, 0), (NUM, 2))
    factor = jnp.eye(2) * width
    posterior = Posterior(
        weights=jnp.zeros((NUM, 1)),
        means=centers[:, None],
        factors=jnp.tile(factor, (NUM, 1, 1, 1)),
        low=jnp.zeros(2),
        high=jnp.ones(2),
        ranks=jnp.tile(jnp.linspace(0, 1, 101), (NUM, 1)),
    )
    noise = jr.normal(jr.fold_in(key, 1), (NUM, 2))
    logits = centers + noise
    return posterior, np.asarray(1 / (1 + jnp.exp(-logits)))


MEASURES = {
    "levels": levels_needed,
    "ranks": lambda posterior, truth: ranks_of_truths(posterior, truth)[:, 0],
    "coverage": expected_coverage,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_true_posteriors_give_uniform_numbers(measure):
    posterior, truth = _posteriors(1.0)
    values = measure(posterior, truth)
    assert scipy.stats.kstest(values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("width", [0.5, 2.0])
def test_posteriors_too_sure_or_too_humble_are_found_out(measure, width):
    posterior, truth = _posteriors(width)
    values = measure(posterior, truth)
    assert scipy.stats.kstest(values, "uniform").pvalue < 1e-3
