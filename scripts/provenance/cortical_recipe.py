"""How the recipe of `pospischil-ib` was chosen.

These cells are silent by themselves, so a constant current is applied to all. Four
questions are answered by simulation: which cell shows more than one firing pattern in a
box of conductances around published ones, and at which current; at which potential a
train's features predict most of the dynamic input conductances; which two conductances
can be solved for them; and which step is short enough.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import dicjax as dj
from dicjax.dics import OK
from scripts.provenance.prinz_recipe import COLUMNS, predicted_share


DURATION, DISCARD = 4_000.0, 1_500.0  # ms
LARGER = {"CaL": 0.66, "M": 0.15}  # mS/cm², beyond three times the defaults of "IB"
# Model, conductances whose bounds are not thrice the published ones, currents (µA/cm²).
CANDIDATES = (
    ("pospischil-rs", {}, (1.0, 2.0)),
    ("pospischil-lts", {}, (0.5, 1.0)),
    ("connor-stevens", {}, (9.0, 20.0)),
    ("pospischil-ib", {}, (0.5, 1.0)),
    ("pospischil-ib", {"CaL": 0.66}, (0.5, 1.0)),
    ("pospischil-ib", LARGER, (0.7, 1.0, 1.2)),
)
POTENTIALS = (-60.0, -55.0, -52.0, -50.0, -48.0, -45.0, -40.0)
STEPS = (0.1, 0.05)  # ms, against a reference of 0.0125


def members(neuron, larger: dict[str, float], num: int) -> np.ndarray:
    box = {name: 3 * g for name, g in neuron.defaults} | larger
    recipe = dj.Recipe({}, box, (0.0, 1.0), (0.0, 1.0), ())
    boxed = dataclasses.replace(neuron, recipe=recipe)
    return np.asarray(dj.sample(jax.random.key(0), boxed, num), np.float32)


def fire(neuron, g, current: float, dt: float = 0.1):
    stimulus = dj.Step(current)
    return dj.simulate(neuron, g, DURATION, discard=DISCARD, dt=dt, stimulus=stimulus)


def in_units_of_default_leak(neuron, g, V: float) -> np.ndarray:
    """(g_s, g_u) divided by a constant, whatever the model divides them by."""
    divided_by = neuron.normaliser
    if isinstance(divided_by, str):
        divided_by = g[:, list(neuron.channel_names).index(divided_by)]
    dics = np.asarray(dj.dynamic_input_conductances(neuron, g, V))[:, 1:]
    return (dics.T * divided_by / dict(neuron.defaults)["leak"]).T


def informative(neuron, g, features, potentials) -> None:
    """Prints ranges of (g_s, g_u) and how well features predict them."""
    leak = g[:, -1:] / dict(neuron.defaults)["leak"]
    for label, V in itertools.product(COLUMNS, potentials):
        of = np.asarray(features.label) == dj.LABELS.index(label)
        if of.sum() < 100:
            continue
        names = COLUMNS[label]
        x = np.stack([np.asarray(getattr(features, name))[of] for name in names], 1)
        dics = in_units_of_default_leak(neuron, g[of], V)
        row = f"  {label:8} {of.sum():5} {V:4.0f} mV"
        for name, y in (("constant", dics), ("leak", dics / leak[of])):
            low, high = np.quantile(y, (0.01, 0.99), axis=0)
            with np.errstate(invalid="ignore"):  # nothing may be ultraslow
                r2 = predicted_share(np.log(x), np.clip(y, low, high))
            row += f"   {name}: " + ", ".join(
                f"{dic} {low[i]:.2f} to {high[i]:.2f}, R2 {r2[i]:.2f}"
                for i, dic in enumerate(("g_s", "g_u"))
            )
        print(row, flush=True)


def candidates() -> None:
    """Prints how often each candidate fires how."""
    for name, larger, currents in CANDIDATES:
        neuron = dj.MODELS[name]()
        g = members(neuron, larger, 2048)
        for current in currents:
            run = fire(neuron, g, current)
            features = dj.spike_features(run.spike_times)
            share = np.bincount(np.asarray(features.label), minlength=4) / len(g)
            fires = np.asarray(run.num_spikes)[np.asarray(features.label) > 0]
            print(
                f"{name} {larger or ''} at {current} µA/cm²:",
                *(f"{s:.1%} {k}," for s, k in zip(share, dj.LABELS, strict=True)),
                f"median {np.median(fires) / (DURATION - DISCARD) * 1e3:.0f} Hz",
            )
            informative(neuron, g, features, (float(neuron.V_ref),))


def pairs(neuron, g, features) -> None:
    """Prints how well two conductances can be solved for random targets."""
    rng = np.random.default_rng(0)
    fires = np.flatnonzero(np.asarray(features.label) > 0)
    start, other = (g[rng.choice(fires, 2048)] for _ in range(2))
    own = np.asarray(dj.dynamic_input_conductances(neuron, other, neuron.V_ref))[:, 1:]
    low, high = np.transpose((neuron.required_recipe.g_s, neuron.required_recipe.g_u))
    drawn = rng.uniform(low, high, own.shape)
    one = lambda g: dj.sensitivity(neuron, g, neuron.V_ref)
    by_channel = np.asarray(jax.vmap(one)(jnp.asarray(start)))[:, 1:]
    for pair in itertools.combinations(neuron.channel_names, 2):
        free = list(neuron.index(*pair))
        matrix = by_channel[:, :, free] * neuron.box[free] / (high - low)[:, None]
        condition = np.median(np.linalg.cond(matrix))
        if not condition < 1e4:
            continue
        recipe = dataclasses.replace(neuron.required_recipe, pairs=(("always", pair),))
        solver = dataclasses.replace(neuron, recipe=recipe)
        imposed = [dj.impose(solver, start, target) for target in (own, drawn)]
        made = dj.compensate(jax.random.key(1), solver, drawn)
        run = fire(solver, made.g[made.status == OK], neuron.required_recipe.current)
        label = np.asarray(dj.spike_features(run.spike_times).label)
        share = np.bincount(label, minlength=4) / max(len(label), 1)
        print(
            f"{'-'.join(pair):8} condition {condition:7.1f}  feasible: imposed "
            f"{imposed[0].num_ok / 2048:.2f} of members' DICs, "
            f"{imposed[1].num_ok / 2048:.2f} of drawn ones; compensated "
            f"{made.num_ok / 2048:.2f}, then",
            *(f"{s:.0%} {k}" for s, k in zip(share, dj.LABELS, strict=True)),
            flush=True,
        )


def steps(neuron, g) -> None:
    """Prints how far mean ISIs at several steps are from those of a short one."""
    isi = {}
    for dt in (*STEPS, 0.0125):
        run = fire(neuron, g, neuron.required_recipe.current, dt)
        isi[dt] = np.asarray(dj.spike_features(run.spike_times).mean_isi)
    for dt in STEPS:
        error = np.abs(isi[dt] / isi[0.0125] - 1)
        median, high = np.nanquantile(error, (0.5, 0.9))
        print(f"step {dt} ms: mean ISI off by {median:.3%} (median), {high:.2%} (90 %)")


def main() -> None:
    candidates()
    neuron = dj.MODELS["pospischil-ib"]()
    g = members(neuron, LARGER, 12_288)
    run = fire(neuron, g, neuron.required_recipe.current)
    features = dj.spike_features(run.spike_times)
    print("pospischil-ib, more potentials")
    informative(neuron, g, features, POTENTIALS)
    pairs(neuron, g, features)
    steps(neuron, g[:512])


if __name__ == "__main__":
    main()
