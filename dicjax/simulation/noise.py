"""Fluctuating currents, made in the loop from a key, and the drive of members.

Every random number is a function of the key, of the number of the cell and of the time.
Nothing is stored, and a cell receives the same current wherever and whenever it is
simulated.
"""

import dataclasses
import itertools
import math
from typing import cast, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, Key, PyTree, UInt32

from dicjax._core import AnyArray, check_concrete, Scalar, strong
from dicjax.simulation.stimulus import AbstractStimulus, Step, Together


NODE_INTERVAL = 0.5  # ms between nodes of noise: a band limit of 1 kHz
TICKS = 8  # in 1 ms, in which times between values are counted
VALUES_PER_TAU = 5  # in one correlation time
INDEPENDENT = 32  # values apart, after which they do not correlate; a power of two
FAST, SLOW = 1.0, 8.0  # ms between values of the parts of a drive, at least
Nodes = tuple[Scalar, ...]
Words = tuple[UInt32[Array, "*cells"], UInt32[Array, "*cells"]]
"""Two random words of a cell, of which all its random numbers are made."""


class NoisyCurrent(AbstractStimulus):
    """A constant current with band-limited Gaussian noise.

    The noise has a random value every 0.5 ms and is linear in between, so that little
    of its power lies above 1 kHz. It is computed when it is needed; nothing is stored.

    - `key`: the key of its random numbers; cell `i` of a population uses
        `fold_in(key, i)`.
    - `numbers`: the number `i` of each cell; 0, 1, 2 and so on by default. Give numbers
        to keep the noise of a population that is simulated in parts.
    - `sigma`: standard deviation of the noise over time, in µA/cm².
    - `mean`: the constant current, in µA/cm².

    `sigma` and `mean` may differ from cell to cell.
    """

    key: Key[Array, ""] | Words
    sigma: Float[Array, "*cells"] = eqx.field(converter=strong, default=0.0)
    mean: Float[Array, "*cells"] = eqx.field(converter=strong, default=0.0)
    numbers: Int[Array, "*cells"] | None = None

    @property
    def longest_step(self) -> float:
        """A quarter of the time between two random values, in ms."""
        return NODE_INTERVAL / 4

    def seeded(self, members: Int[Array, " lanes"]) -> "NoisyCurrent":
        return _with_words(self, members)

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        """The current of one cell at each 0.5 ms."""
        # Interpolation leaves 2/3 of the variance of independent values on average.
        sigma = self.sigma * math.sqrt(1.5)
        first = whole.astype(jnp.uint32) * round(1 / NODE_INTERVAL)
        count = math.ceil((reach + 1) / NODE_INTERVAL) + 1
        words = _words_of(self)
        # Separate scalars, not an array: they vectorise over cells.
        return tuple(
            self.mean + sigma * _normal(words, first + i).astype(sigma.dtype)
            for i in range(count)
        )

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Scalar:
        return _between(prepared, (t + h / 2) / NODE_INTERVAL)


class FluctuatingCurrent(AbstractStimulus):
    r"""A current that fluctuates around zero as an Ornstein-Uhlenbeck process does.

    Its values are Gaussian, and two of them that are $t$ ms apart have the correlation
    $e^{-|t| / \tau}$. It has a value every $\tau / 5$, or every `interval`, whichever
    is longer, and is linear in between. It is computed when it is needed; nothing is
    stored.

    - `key`: the key of its random numbers; cell `i` of a population uses
        `fold_in(key, i)`.
    - `sigma`: standard deviation over time, in µA/cm².
    - `tau`: correlation time $\tau$, in ms.
    - `interval`: the shortest time between two values, in ms; a multiple of 1/8.
    - `numbers`: the number `i` of each cell; 0, 1, 2 and so on by default. Give numbers
        to keep the current of a population that is simulated in parts, and equal ones
        to give cells the same current.

    `sigma` and `tau` may differ from cell to cell.
    """

    key: Key[Array, ""] | Words
    sigma: Float[Array, "*cells"] = eqx.field(converter=strong)
    tau: Float[Array, "*cells"] = eqx.field(converter=strong)
    interval: float = eqx.field(static=True, default=NODE_INTERVAL)
    numbers: Int[Array, "*cells"] | None = None

    def __check_init__(self):
        check_concrete("FluctuatingCurrent", interval=self.interval)
        if not self.interval > 0 or self.interval * TICKS % 1:
            raise ValueError(
                "`interval` must be a positive multiple of 1/8 ms, got "
                f"{self.interval}."
            )

    @property
    def longest_step(self) -> float:
        """A quarter of the shortest time between two values, in ms."""
        return self.interval / 4

    def seeded(self, members: Int[Array, " lanes"]) -> "FluctuatingCurrent":
        return _with_words(self, members)

    def prepare(self, whole: Int[Array, ""], reach: float) -> PyTree:
        """The values of one cell, the time (ms) from the first one to `whole`, and the
        time between two."""
        # In whole ticks, because one float would lose digits at late times.
        ticks = jnp.round(self.tau * (TICKS / VALUES_PER_TAU)).astype(jnp.int32)
        ticks = jnp.maximum(ticks, round(self.interval * TICKS))
        now = whole.astype(jnp.int32) * TICKS
        first = now // ticks
        every = ticks.astype(self.tau.dtype) / TICKS
        rho = jnp.exp(-every / self.tau)
        # Straight lines have less variance than their ends.
        sigma = self.sigma * jax.lax.rsqrt((2 + rho) / 3)
        count = math.ceil((reach + 1) / self.interval) + 2
        words = _words_of(self)
        pairs = (_correlated(words, first + i, rho) for i in range(0, count, 2))
        values = tuple(sigma * x for pair in pairs for x in pair)
        return values, (now - first * ticks).astype(every.dtype) / TICKS, every

    def average(self, prepared: PyTree, t: Scalar, h: Scalar) -> Scalar:
        values, since, every = prepared
        return _between(values, (since + t + h / 2) / every)


Noise = TypeVar("Noise", NoisyCurrent, FluctuatingCurrent)


def _with_words(noise: Noise, members: Int[Array, " lanes"]) -> Noise:
    """The noise with two random words for each of these cells."""
    root = cast(Key[Array, ""], noise.key)
    numbers = members if noise.numbers is None else noise.numbers
    numbers = jnp.broadcast_to(numbers, members.shape)
    keys = jax.vmap(lambda i: jr.fold_in(root, i))(numbers)
    words = jax.vmap(lambda key: jr.bits(key, (2,), jnp.uint32))(keys)
    return dataclasses.replace(noise, key=(words[:, 0], words[:, 1]), numbers=None)


def _words_of(noise: NoisyCurrent | FluctuatingCurrent) -> Words:
    """The random words of one cell, whose number is 0 if it has none."""
    if isinstance(noise.key, tuple):
        return noise.key
    return cast(Words, jax.tree.map(lambda x: x[0], noise.seeded(jnp.arange(1)).key))


def _correlated(
    words: Words, index: Int[Array, ""], rho: Scalar
) -> tuple[Scalar, Scalar]:
    """Two neighbouring values of an Ornstein-Uhlenbeck process of variance 1.

    `rho` is the correlation of neighbours. Values that are far apart are independent.
    Between two known ones, the one in the middle is Gaussian, so that halving an
    interval again and again leads to any value.
    """
    normal = lambda i: _bell(words, i.astype(jnp.uint32)).astype(rho.dtype)
    low = index & -INDEPENDENT
    left, right = normal(low), normal(low + INDEPENDENT)
    steps = [rho]  # correlations over 1, 2, 4 ... values
    while 2 ** len(steps) < INDEPENDENT:
        steps.append(steps[-1] ** 2)
    for power, far in reversed(list(enumerate(steps))):
        middle = low + 2**power
        both = 1 + far**2
        value = far / both * (left + right)
        value = value + jnp.sqrt((1 - far**2) / both) * normal(middle)
        is_above = index >= middle
        low = jnp.where(is_above, middle, low)
        left, right = (
            jnp.where(is_above, value, left),
            jnp.where(is_above, right, value),
        )
    return left, right


class Drive(eqx.Module):
    """The input of members: a constant current, and one that fluctuates around it.

    The fluctuating current has a fast part, as of synapses, and a slow one, as of
    changing states, stimuli and behaviour. All values may differ from cell to cell.

    - `mean`: the constant current, in µA/cm².
    - `sigma`, `tau`: standard deviation (µA/cm²) and correlation time (ms) of the fast
        part, see [`dicjax.FluctuatingCurrent`][].
    - `slow_sigma`, `slow_tau`: of the slow part.
    """

    mean: Float[AnyArray, "*cells"]
    sigma: Float[AnyArray, "*cells"]
    tau: Float[AnyArray, "*cells"]
    slow_sigma: Float[AnyArray, "*cells"]
    slow_tau: Float[AnyArray, "*cells"]

    def stimulus(
        self, key: Key[Array, ""], numbers: Int[AnyArray, "*cells"] | None = None
    ) -> AbstractStimulus:
        """The current, for [`dicjax.simulate`][], with the random numbers of a key.

        `numbers` are as in [`dicjax.FluctuatingCurrent`][].
        """
        fast, slow = jr.split(key)
        own = None if numbers is None else jnp.asarray(numbers, jnp.int32)
        parts = (
            (fast, self.sigma, self.tau, FAST),
            (slow, self.slow_sigma, self.slow_tau, SLOW),
        )
        currents = (
            FluctuatingCurrent(
                key, strong(sigma), strong(tau), interval=interval, numbers=own
            )
            for key, sigma, tau, interval in parts
        )
        return Together((Step(strong(self.mean)), *currents))


def with_noise_of(stimulus: AbstractStimulus, num_cells: int) -> AbstractStimulus:
    """The stimulus whose noise stays that of each of so many cells, wherever they go.

    Noise that has numbers of its own keeps them.
    """
    is_noise = lambda x: isinstance(x, NoisyCurrent | FluctuatingCurrent)

    def numbered(x):
        if not is_noise(x) or x.numbers is not None:
            return x
        return dataclasses.replace(x, numbers=jnp.arange(num_cells, dtype=jnp.int32))

    return jax.tree.map(numbered, stimulus, is_leaf=is_noise)


def _between(nodes: Nodes, position: Scalar) -> Scalar:
    """The piecewise linear current at `position`, counted in nodes from the first."""
    current = nodes[0]
    for i, (before, after) in enumerate(itertools.pairwise(nodes)):
        current = current + (after - before) * jnp.clip(position - i, 0, 1)
    return current


def _normal(words: Words, counter: UInt32[Array, ""]) -> Scalar:
    """A standard normal number for every counter, by the Box-Muller transform.

    Unlike `jax.random`, this is plain arithmetic, which vectorises and runs inside of
    kernels.
    """
    bits = _scrambled(_scrambled(counter ^ words[0]) ^ words[1])
    more = _scrambled(bits ^ jnp.uint32(0x9E3779B9))
    # 24 bits each fill the mantissa of a float32; the half keeps the logarithm finite.
    uniform = lambda x: ((x >> 8).astype(jnp.float32) + 0.5) * 2.0**-24
    radius = jnp.sqrt(-2 * jnp.log(uniform(bits)))
    return radius * jnp.cos(2 * jnp.pi * uniform(more))


def _bell(words: Words, counter: UInt32[Array, ""]) -> Scalar:
    """A nearly normal number for every counter: a sum of eight uniform ones.

    It takes a third of the time of a normal one. What adds up several of them, as the
    values of a process do, is normal to within less than can be seen.
    """
    bits = _scrambled(_scrambled(counter ^ words[0]) ^ words[1])
    more = _scrambled(bits ^ jnp.uint32(0x9E3779B9))
    low = jnp.uint32(0x00FF00FF)
    two = lambda x: (x & low) + ((x >> 8) & low)
    four = two(bits) + two(more)
    total = ((four & jnp.uint32(0xFFFF)) + (four >> 16)).astype(jnp.float32)
    return (total - 8 * 127.5) * (1 / math.sqrt(8 * (2.0**16 - 1) / 12))


def _scrambled(x: UInt32[Array, ""]) -> UInt32[Array, ""]:
    # A bijection of 32-bit words in which every bit of the input flips half of the
    # output. The constants are from C. Wellons' search for the least biased such hash.
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
