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


# Of members that `generate` found for a recording like the one below.
G = np.float32(
    [
        [472.5, 125.0, 0.1811, 1.805, 2.478, 31.63, 0.0058, 0.0402],
        [500.0, 85.05, 1.508, 0.4896, 20.13, 39.86, 0.05, 0.0054],
        [356.3, 42.96, 10.64, 0.0569, 14.64, 46.58, 0.0405, 0.0191],
        [133.0, 61.89, 0.2407, 0.4517, 14.03, 27.45, 0.0153, 0.0088],
        [283.7, 77.23, 3.839, 0.8525, 19.59, 38.37, 0.0116, 0.0273],
        [45.28, 23.69, 1.767, 0.6503, 1.102, 50.0, 0.0132, 0.0409],
    ]
)  # mS/cm²
DRIVE = Drive(
    mean=np.float32([-0.022, -0.758, 0.2248, 0.452, 0.46, 0.7461]),
    sigma=np.float32([2.549, 4.798, 2.724, 2.951, 1.733, 1.371]),
    tau=np.full(6, 5, np.float32),
    slow_sigma=np.float32([0.0546, 0.0877, 0.1674, 0.046, 0.0564, 0.1027]),
    slow_tau=np.float32([127.8, 1557.0, 175.4, 417.5, 128.7, 61.28]),
)
DURATION, DISCARD = 13_000.0, 3000.0  # ms


def irregular_train() -> SpikeTrain:
    """A gamma process of shape 3 whose intervals last 100 ms in the mean."""
    intervals = np.random.default_rng(0).gamma(3, 100 / 3, 200)
    return SpikeTrain(np.cumsum(intervals), name="unit 7", source="/data/v1.csv")


@functools.cache
def make_driven() -> Generated:
    neuron, train = stg_prinz(), irregular_train()
    agreement = agreement_with(train, DURATION - DISCARD, 0.1)
    stimulus = DRIVE.stimulus(jax.random.key(1))
    run = simulate(neuron, G, DURATION, discard=DISCARD, stimulus=stimulus)
    found = agreement.compare(run.spike_times)
    order = np.argsort(~found.agrees, kind="stable")
    pick = lambda tree: jax.tree.map(lambda x: np.asarray(x)[order], tree)
    dics = dynamic_input_conductances(neuron, G, neuron.V_ref)
    return dataclasses.replace(
        rows_of(make_generated(), slice(len(G))),
        neuron=neuron,
        train=train,
        target=jax.tree.map(lambda x: np.asarray(x)[0], spike_features(train.times[None])),
        g=G[order],
        dics=np.asarray(dics)[order],
        spike_times=np.asarray(run.spike_times)[order],
        features=pick(found.features),
        distance=np.abs(found.errors).max(axis=1)[order],
        accepted=found.agrees[order],
        certificate=None,
        duration=DURATION,
        discard=DISCARD,
        drive=pick(DRIVE),
        agreement=agreement,
    )
