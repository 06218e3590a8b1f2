"""A population of members with a drive, put together by hand."""

import dataclasses
import functools

import jax
import numpy as np
from test_tables import make_generated, rows_of

from dicjax.dics.conductances import dynamic_input_conductances
from dicjax.generation.result import Generated
from dicjax.neurons.models import stg_prinz
from dicjax.simulation.noise import Drive
from dicjax.simulation.simulate import simulate
from dicjax.spikes.agreement import agreement_with
from dicjax.spikes.features import spike_features
from dicjax.spikes.trains import SpikeTrain


NUM = 8
# A member that `generate` found for a gamma process with a mean interval of 100 ms.
G = np.array([283.7, 77.23, 3.839, 0.8525, 19.59, 38.37, 0.0116, 0.0273])  # mS/cm²
INPUT = (0.46, 1.733, 5.0, 0.5, 400.0)  # µA/cm² and ms, as fields of `Drive`
DURATION, DISCARD = 23_000.0, 3000.0  # ms


def drive_of(num: int) -> Drive:
    return Drive(*(np.full(num, x, np.float32) for x in INPUT))


@functools.cache
def make_driven() -> Generated:
    """Members around one, and one whose input fluctuates too much; the recording is
    the one in the middle, with other noise."""
    neuron = stg_prinz()
    scatter = np.random.default_rng(0).lognormal(0, 0.02, (NUM, len(G)))
    g = (G * scatter).astype(np.float32)
    drive = drive_of(NUM)
    factors = np.append(np.linspace(0.98, 1.02, NUM - 1), 4).astype(np.float32)
    drive = dataclasses.replace(drive, sigma=drive.sigma * factors)
    fire = lambda g, drive, seed: simulate(
        neuron,
        g,
        DURATION,
        discard=DISCARD,
        stimulus=drive.stimulus(jax.random.key(seed)),
    )
    recorded = fire(np.float32(G[None]), drive_of(1), 7)
    times = np.asarray(recorded.spike_times[0, : int(recorded.num_spikes[0])], float)
    train = SpikeTrain(times, name="unit 7", source="/data/v1.csv")
    run = fire(g, drive, 1)
    agreement = agreement_with(train, DURATION - DISCARD, 0.1)
    found = agreement.compare(run.spike_times)
    order = np.argsort(~found.agrees, kind="stable")
    pick = lambda tree: jax.tree.map(lambda x: np.asarray(x)[order], tree)
    return dataclasses.replace(
        rows_of(make_generated(), slice(NUM)),
        neuron=neuron,
        train=train,
        target=jax.tree.map(np.asarray, spike_features(train)),
        g=g[order],
        dics=pick(dynamic_input_conductances(neuron, g, neuron.V_ref)),
        spike_times=pick(run.spike_times),
        features=pick(found.features),
        distance=np.abs(pick(found.errors)).max(axis=1),
        accepted=pick(found.agrees),
        certificate=None,
        duration=DURATION,
        discard=DISCARD,
        drive=pick(drive),
        agreement=agreement,
    )
