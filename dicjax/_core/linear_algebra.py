"""Linear algebra of small matrices, a handful of rows each, to be mapped over many.

Written out in elementary operations, which fuse with what surrounds them. The routines
of `jax.numpy.linalg` call LAPACK once per matrix instead, which is slow for many small
ones, and worse: mapped over a batch they wait, on a worker of XLA's pool, for other
workers of that pool. Two such calls at once on a machine of two cores wait for ever.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


SWEEPS = 8  # of rotations; convergence is quadratic


def solve(
    A: Float[Array, "rows rows"], b: Float[Array, "rows ..."]
) -> Float[Array, "rows ..."]:
    """Solves $A x = b$ by elimination with partial pivoting.

    `b` is a vector or several in columns. Not finite where `A` is singular.
    """
    n = len(A)
    rest = jnp.concatenate([A, b.reshape(n, -1)], axis=1)
    rows = []
    for _ in range(n):
        is_pivot = (jnp.arange(len(rest)) == jnp.argmax(jnp.abs(rest[:, 0])))[:, None]
        pivot = jnp.sum(jnp.where(is_pivot, rest, 0), axis=0)
        others = jnp.where(is_pivot[1:], rest[:1], rest[1:])
        factor = others[:, 0] / pivot[0]
        rest = others[:, 1:] - factor[:, None] * pivot[None, 1:]
        rows.append(pivot)
    x = jnp.zeros((0, rows[0].size - n), A.dtype)
    for row in reversed(rows):
        known = len(x)
        value = (row[known + 1 :] - row[1 : known + 1] @ x) / row[0]
        x = jnp.concatenate([value[None], x])
    return x.reshape(b.shape)


def orthonormal(
    A: Float[Array, "m n"],
) -> tuple[Float[Array, "m n"], Float[Array, "n n"]]:
    """Orthonormal columns Q and the upper triangle R of $A = Q R$, by Gram-Schmidt.

    Twice, which leaves columns orthogonal to rounding. `A` is at least as high as wide.
    """
    columns, triangle = [], []
    for j in range(A.shape[1]):
        column = A[:, j]
        above = [jnp.zeros_like(column[0])] * j
        for _ in range(2):
            for i, other in enumerate(columns):
                along = other @ column
                column = column - along * other
                above[i] = above[i] + along
        length = jnp.sqrt(column @ column)
        columns.append(column / length)
        below = [jnp.zeros_like(length)] * (A.shape[1] - j - 1)
        triangle.append(jnp.stack([*above, length, *below]))
    return jnp.stack(columns, axis=1), jnp.stack(triangle, axis=1)


def least_squares(A: Float[Array, "m n"], b: Float[Array, " m"]) -> Float[Array, " n"]:
    """The `x` that makes $|A x - b|$ least; `A` is at least as high as wide."""
    Q, R = orthonormal(A)
    return solve(R, Q.T @ b)


def least_change(
    J: Float[Array, "m n"], r: Float[Array, " m"], ridge: Float[Array, ""] | float
) -> Float[Array, " n"]:
    r"""The regularised Gauss-Newton step $-J^\top (J J^\top + \lambda I)^{-1} r$.

    Without a ridge it is the smallest change that removes a residual `r` whose Jacobian
    is `J`, to first order. A ridge keeps it small where `J` does not determine it.
    """
    gram = J @ J.T + ridge * jnp.eye(len(J), dtype=J.dtype)
    return -J.T @ solve(gram, r)


def condition_number(A: Float[Array, "m n"]) -> Float[Array, ""]:
    """Largest over smallest singular value; infinite where there is none.

    One-sided Jacobi rotations turn columns (rows, of a matrix wider than high) until
    they are orthogonal; their lengths are the singular values.
    """
    finite = jnp.isfinite(A).all()
    A = jnp.where(finite, A, 0)
    A = A if A.shape[0] >= A.shape[1] else A.T
    n = A.shape[1]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]

    def sweep(_, A):
        for i, j in pairs:
            A = _rotated(A, i, j)
        return A

    # One rotation of two columns is exact.
    A = jax.lax.fori_loop(0, SWEEPS, sweep, A) if n > 2 else sweep(0, A)
    values = jnp.sqrt(jnp.sum(A**2, axis=0))
    least = jnp.min(values)
    return jnp.where(least > 0, jnp.max(values) / least, jnp.inf)


def _rotated(A, i, j):
    a, b = A[:, i], A[:, j]
    twice = 2 * (a @ b)
    turns = twice != 0
    slope = (b @ b - a @ a) / jnp.where(turns, twice, 1)
    sign = jnp.where(slope >= 0, 1, -1).astype(A.dtype)
    tangent = sign / (jnp.abs(slope) + jnp.hypot(slope, jnp.ones_like(slope)))
    tangent = jnp.where(turns, tangent, 0)
    cosine = 1 / jnp.hypot(tangent, jnp.ones_like(tangent))
    sine = tangent * cosine
    return A.at[:, i].set(cosine * a - sine * b).at[:, j].set(sine * a + cosine * b)
