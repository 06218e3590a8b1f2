"""Trajectories by any diffrax solver, which diffrax differentiates."""

import dataclasses
import math

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dicjax.neurons import Neuron
from dicjax.simulation.detection import detect_spike
from dicjax.simulation.diffrax_backend import controller_of, most_steps, SAMPLED
from dicjax.simulation.solvers import Membrane
from dicjax.simulation.stimulus import AbstractStimulus
from dicjax.simulation.trajectories.trajectory import (
    after,
    Followed,
    Moment,
    SavedState,
)


def following(
    solver: dfx.AbstractSolver,
    tolerance: float | None,
    adjoint: dfx.AbstractAdjoint | None,
    dt: float,
    span: float,
    max_steps: int | None,
    keeps_states: bool,
) -> "Following":
    """How to follow cells by `solver` for at most `span` ms."""
    return Following(
        solver=solver,
        controller=controller_of(tolerance),
        adjoint=adjoint or dfx.RecursiveCheckpointAdjoint(),
        dt=dt,
        max_steps=max_steps or most_steps(span, dt, tolerance),
        num_samples=max(1, math.ceil(span / SAMPLED - 1e-9)),
        keeps_states=keeps_states,
    )


class Following(eqx.Module):
    """Follows cells by a diffrax solver, whose first step is `dt` ms."""

    solver: dfx.AbstractSolver
    controller: dfx.AbstractStepSizeController
    adjoint: dfx.AbstractAdjoint
    dt: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)
    keeps_states: bool = eqx.field(static=True)

    def __call__(
        self,
        neuron: Neuron,
        g: Float[Array, " channels"],
        stimulus: AbstractStimulus | None,
        start: SavedState,
        ts: Moment,
    ) -> Followed:
        """One cell from `start` to the last of `ts`.

        Its gates are at the time of its potential. Time counts from the whole ms of
        the start, since late times lose digits.
        """
        dtype, since, end = g.dtype, start.until.whole, ts[-1]
        since_start = lambda time: after(time, Moment(since, jnp.zeros((), dtype)))
        begin, until = start.until.rest, since_start(end)
        samples = jnp.linspace(begin, until, self.num_samples + 1, dtype=dtype)
        later = None
        if stimulus is not None:
            later = lambda t: stimulus(t + since.astype(dtype))
        kept = (lambda t, y, g: y) if self.keeps_states else (lambda t, y, g: y.V)
        at_times = dfx.SubSaveAt(ts=jax.vmap(since_start)(ts), fn=kept)
        sampled = dfx.SubSaveAt(ts=samples, fn=lambda t, y, g: y.V)
        found = dfx.diffeqsolve(
            dfx.ODETerm(Membrane(neuron, later)),  # pyright: ignore
            self.solver,
            begin,
            until,
            jnp.asarray(self.dt, dtype),
            start.lanes.y,
            args=tuple(g),
            stepsize_controller=self.controller,
            saveat=dfx.SaveAt(subs=[at_times, sampled, dfx.SubSaveAt(t1=True)]),
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=False,
        )
        assert found.ys is not None  # sampled, hence saved
        (at_ts, V, last), h = found.ys, (until - begin) / self.num_samples
        # What was not reached is infinite.
        known = lambda x: jnp.where(jnp.isfinite(x), x, jnp.nan)
        at_ts, y = jax.tree.map(known, (at_ts, jax.tree.map(lambda x: x[0], last)))

        def look(pending, step):
            before, new, t = step
            seen = detect_spike(neuron, before, new, t, h, pending)
            is_seen = seen.is_spike | seen.is_shortfall
            return seen.pending, jnp.where(is_seen, seen.time, jnp.inf)

        pending, spikes = jax.lax.scan(
            look, start.lanes.pending, (V[:-1], V[1:], samples[:-1])
        )
        gone = (end.whole - since).astype(dtype)
        lanes = dataclasses.replace(
            start.lanes, y=y, whole=end.whole, t=end.rest, pending=pending - gone
        )
        is_from_here = start.num_bursts == 0
        return Followed(
            V=at_ts.V if self.keeps_states else at_ts,
            others=(at_ts.gates, at_ts.Ca) if self.keeps_states else None,
            spikes=Moment(jnp.full(spikes.shape, since), spikes),
            is_new=jnp.ones(spikes.shape, bool),
            num_steps=found.stats["num_accepted_steps"].astype(jnp.int32),
            is_done=(found.result == dfx.RESULTS.successful) & is_from_here,
            has_lost=jnp.zeros((), bool),
            final=SavedState(lanes, end, start.num_bursts),
        )
