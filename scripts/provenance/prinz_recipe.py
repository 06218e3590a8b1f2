"""How the recipe of `stg-prinz` was chosen.

`python -m scripts.provenance.prinz_recipe RECORDINGS`, a folder of spike-time files of
pyloric neurons. Questions answered by simulation: at which potential, and normalised by
what, a train's features predict most of the DICs; and which pair of conductances,
solved for given DICs, leaves members that fire most like recordings.
"""

import dataclasses
import pathlib
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

import dicjax as dj
from dicjax.dics import OK
from dicjax.spikes import features_of


NUM_CELLS = 12_288
POTENTIALS = (-60.0, -55.0, -51.0, -48.0, -45.0, -40.0)
PAIRS = (("CaT", "H"), ("CaS", "H"), ("A", "H"), ("Kd", "H"), ("Na", "H"))
COLUMNS = {
    "bursting": ("period", "intra_burst_isi", "spikes_per_burst"),
    "tonic": ("mean_isi",),
}


def predicted_share(x, y, num: int = 10):
    """Share of the variance of `y` that cells with similar `x` predict."""
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    neighbours = np.asarray(KDTree(x).query(x, num + 1)[1])
    predicted = y[neighbours[:, 1:]].mean(axis=1)
    return 1 - ((y - predicted) ** 2).sum(axis=0) / ((y - y.mean(0)) ** 2).sum(axis=0)


def informative(neuron, g, features) -> None:
    """Prints how well features predict (g_s, g_u) at several potentials."""
    for label, names in COLUMNS.items():
        of = np.asarray(features.label) == dj.LABELS.index(label)
        x = np.log(
            np.stack(
                [np.asarray(getattr(features, name))[of] for name in names], axis=1
            )
        )
        for V in POTENTIALS:
            dics = np.asarray(dj.dynamic_input_conductances(neuron, g[of], V))[:, 1:]
            by_leak = dics * neuron.normaliser / g[of, -1:]
            row = [f"{label:9} {V:6.0f} mV"]
            for name, y in (("constant", dics), ("leak", by_leak)):
                y = np.clip(y, *np.quantile(y, (0.01, 0.99), axis=0))
                r2 = predicted_share(x, y)
                row.append(f"{name}: R2 of g_s {r2[0]:5.2f}, of g_u {r2[1]:5.2f}")
            print("   ".join(row), flush=True)


def pairs(neuron, g, features, recordings: pathlib.Path) -> None:
    """Prints how members compensated through each pair fire."""
    dics = np.asarray(dj.dynamic_input_conductances(neuron, g, neuron.V_ref))[:, 1:]
    for path in sorted(recordings.glob("stg*.csv")):
        (train,) = dj.read_spike_trains(path)
        target = features_of(train)
        errors = np.abs(np.asarray(dj.feature_errors(features, target))).max(axis=1)
        errors[np.asarray(features.label) != target.label] = np.inf
        nearest = np.argsort(np.nan_to_num(errors, nan=np.inf))[:48]
        print(path.stem)
        for pair in PAIRS:
            recipe = dataclasses.replace(neuron.recipe, pairs=(("always", pair),))
            member = dataclasses.replace(neuron, recipe=recipe)
            targets = np.repeat(dics[nearest], 11, axis=0)[:512]
            population = dj.compensate(jax.random.key(1), member, targets, max_draws=30)
            ok = population.status == OK
            run = dj.simulate(member, population.g[ok], 10_000, discard=3_000, dt=0.1)
            fired = dj.spike_features(run.spike_times)
            same = np.asarray(fired.label) == target.label
            miss = np.abs(np.asarray(dj.feature_errors(fired, target))).max(axis=1)[
                same
            ]
            print(
                f"  {'-'.join(pair):6} feasible {ok.mean():.2f}  same pattern "
                f"{same.mean():.2f}  median miss x{np.exp(np.nanmedian(miss)):.2f}  "
                f"within 26 %: {(miss < np.log(1.26)).sum()}",
                flush=True,
            )


def main() -> None:
    neuron = dj.stg_prinz()
    g = np.asarray(dj.sample(jax.random.key(0), neuron, NUM_CELLS), np.float32)
    run = dj.simulate(neuron, g, 15_000, discard=4_000, dt=0.1)
    features = dj.spike_features(run.spike_times)
    informative(neuron, g, features)
    if len(sys.argv) > 1:
        for V in (-51.0, float(neuron.V_ref)):
            print(f"V_ref {V:.0f} mV")
            moved = eqx.tree_at(lambda n: n.V_ref, neuron, jnp.asarray(V))
            pairs(moved, g, features, pathlib.Path(sys.argv[1]))


if __name__ == "__main__":
    main()
