import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from jax.test_util import check_grads

from dicjax._core.linear_algebra import (
    condition_number,
    least_change,
    least_squares,
    orthonormal,
    solve,
)


def matrices(m, n):
    return np.random.default_rng(m * 100 + n).normal(size=(64, m, n))


def vector(m):
    return np.random.default_rng(m).normal(size=m)


@pytest.mark.parametrize(
    "n, columns", [(1, ()), (2, (1,)), (3, ()), (3, (4,)), (9, ()), (13, (4,))]
)
def test_solutions_agree_with_an_independent_solver(n, columns):
    A = matrices(n, n)
    b = np.random.default_rng(n).normal(size=(64, n, *columns))
    found = jax.jit(jax.vmap(solve))(A, b)
    expected = np.linalg.solve(A, b.reshape(64, n, -1)).reshape(b.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_first_pivot_of_zero_does_no_harm():
    A = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    b = A @ np.ones(3)
    np.testing.assert_allclose(A @ np.asarray(jax.jit(solve)(A, b)), b)


def test_rows_of_very_different_size_keep_their_digits():
    A = np.array([[1e-20, 1.0], [1.0, 1.0]])
    found = jax.jit(solve)(A, np.array([1.0, 2.0]))
    np.testing.assert_allclose(found, [1.0, 1.0])


def test_a_singular_matrix_has_no_finite_solution():
    A = np.array([[1.0, 2.0], [2.0, 4.0]])
    assert not np.isfinite(jax.jit(solve)(A, np.array([1.0, 1.0]))).any()


def test_solutions_can_be_differentiated():
    A, b = jnp.asarray(matrices(3, 3)[0]), jnp.arange(3.0)
    check_grads(jax.jit(solve), (A, b), order=1)


@pytest.mark.parametrize("m, n", [(2, 1), (4, 2), (8, 3)])
def test_columns_are_orthonormal_and_span_the_same(m, n):
    A = matrices(m, n)
    Q, R = map(np.asarray, jax.jit(jax.vmap(orthonormal))(A))
    np.testing.assert_allclose(Q.mT @ Q, np.tile(np.eye(n), (64, 1, 1)), atol=1e-13)
    np.testing.assert_allclose(Q @ R, A, atol=1e-13)
    np.testing.assert_allclose(np.tril(R, -1), 0)


def test_nearly_parallel_columns_are_orthonormal_too():
    A = np.array([[1.0, 1.0], [1e-9, 0.0], [0.0, 1e-9]])
    Q = np.asarray(jax.jit(orthonormal)(A)[0])
    np.testing.assert_allclose(Q.T @ Q, np.eye(2), atol=1e-14)


@pytest.mark.parametrize("m, n", [(3, 2), (6, 3), (2, 2)])
def test_least_squares_agree_with_an_independent_solver(m, n):
    A, b = matrices(m, n)[0], vector(m)
    expected = np.linalg.lstsq(A, b)[0]
    np.testing.assert_allclose(jax.jit(least_squares)(A, b), expected, atol=1e-12)


@pytest.mark.parametrize("m, n", [(2, 5), (5, 2), (3, 3)])
def test_the_least_change_minimises_misses_and_its_own_size(m, n):
    J, r, ridge = matrices(m, n)[0], vector(m), 0.3
    both = np.concatenate([J, np.sqrt(ridge) * np.eye(n)])
    expected = np.linalg.lstsq(both, np.append(-r, np.zeros(n)))[0]
    found = jax.jit(least_change)(J, r, ridge)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("m, n", [(1, 1), (2, 2), (2, 5), (3, 3), (6, 3), (5, 5)])
def test_condition_agrees_with_an_independent_solver(m, n):
    A = matrices(m, n)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(condition_number))(A), np.linalg.cond(A, 2), rtol=1e-9
    )


numbers = st.floats(-1e3, 1e3, allow_subnormal=False, width=32)


@given(arrays(float, (3, 2), elements=numbers))
def test_condition_is_that_of_lapack_or_infinite(A):
    found = float(jax.jit(condition_number)(jnp.asarray(A)))
    values = np.linalg.svd(A, compute_uv=False)
    if values[-1] > 1e-10 * values[0]:
        np.testing.assert_allclose(found, values[0] / values[-1], rtol=1e-4)
    else:
        assert found > 1e9


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_matrix_without_information_has_an_infinite_condition(value):
    assert jax.jit(condition_number)(np.full((2, 2), value)) == np.inf


def test_two_routines_at_once_do_not_wait_for_each_other():
    # What LAPACK's routines do for ever where XLA's pool has as many workers.
    @jax.jit
    @jax.vmap
    def both(A, b):
        return (
            solve(A, b),
            condition_number(A),
            condition_number(A + 1),
            solve(A + 1, b),
        )

    A, b = jr.normal(jr.key(0), (5000, 2, 2)), jr.normal(jr.key(1), (5000, 2))
    results = [jax.block_until_ready(both(A, b)) for _ in range(50)]
    x = results[-1][0]
    np.testing.assert_allclose(np.einsum("bij,bj->bi", A, x), b, atol=1e-6)
