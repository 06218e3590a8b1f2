"""Measures `generate`: `bench_generate.py synthetic [MEMBERS]`, or `recordings FOLDER`.

`synthetic`: 24 targets drawn from the published STG recipe, 12 tonic and 12 bursting.
`recordings FOLDER`: every stg*.csv in it, with both models. Of two calls in one process
the second is warm.
"""

import pathlib
import sys
import time

import jax
import numpy as np

import dicjax as dj
from dicjax.pipeline import describe, features_of


NUM_TARGETS = 12
SEED = 20


def synthetic_targets(label: str) -> list[np.ndarray]:
    """Spike trains of STG members with (g_s, g_u) uniform over the published range."""
    neuron = dj.stg()
    key = jax.random.key(SEED)
    unit = np.asarray(jax.random.uniform(key, (64, 2)))
    dics = np.array([-20.0, 0.0]) + unit * np.array([40.0, 20.0])
    population = dj.compensate(key, neuron, dics)
    run = dj.simulate(neuron, population.g, 6000, discard=3000, dt=0.05)
    features = dj.spike_features(run.spike_times)
    of = np.flatnonzero(np.asarray(features.label) == dj.LABELS.index(label))
    of = of[np.asarray(features.num_spikes)[of] >= 10][:NUM_TARGETS]
    return [run.spike_times[i, : run.num_spikes[i]].astype(float) for i in of]


def synthetic(members: int) -> None:
    for label in ("tonic", "bursting"):
        rows = []
        for number, times in enumerate(synthetic_targets(label)):
            start = time.time()
            result = dj.generate(
                jax.random.key(number), times, model="stg", num=members
            )
            first = result.rounds[0]
            rows.append(
                (
                    first.num_label / first.num,
                    first.num_valid / first.num,
                    result.participation_ratio,
                    result.num_accepted,
                    time.time() - start,
                )
            )
            print(
                f"{label} {number:2}: {describe(result.target)}; label "
                f"{rows[-1][0]:.3f}, valid {rows[-1][1]:.3f}, participation ratio "
                f"{rows[-1][2]:.2f}, {rows[-1][3]} of {members}, {rows[-1][4]:.1f} s",
                flush=True,
            )
        mean, low = np.mean(rows, axis=0), np.min(rows, axis=0)
        print(
            f"{label}: mean over {len(rows)} targets (least): label match "
            f"{mean[0]:.3f} ({low[0]:.3f}), valid before selection {mean[1]:.3f} "
            f"({low[1]:.3f}), participation ratio {mean[2]:.2f} ({low[2]:.2f})"
        )


def recordings(folder: pathlib.Path) -> None:
    paths = sorted(folder.glob("stg*.csv"))
    for model in ("stg", "stg-prinz"):
        for path in paths:
            (train,) = dj.read_spike_trains(path)
            posterior = dj.infer([train], model)
            interval = np.asarray(posterior.interval(0.9))[0]
            print(
                f"{path.stem} with {model}: {describe(features_of(train))}; g_s "
                f"{float(posterior.mean[0, 0]):.2f} [{interval[0, 0]:.2f}, "
                f"{interval[0, 1]:.2f}], g_u {float(posterior.mean[0, 1]):.2f} "
                f"[{interval[1, 0]:.2f}, {interval[1, 1]:.2f}]"
            )
            for number in range(2):  # the second is warm
                start = time.time()
                try:
                    result = dj.generate(
                        jax.random.key(number), train, model=model, num=100
                    )
                except dj.OutOfRange as e:
                    print(f"  {e}", flush=True)
                    break
                later = result.rounds[1:]
                num = sum(round.num for round in later)
                valid = sum(round.num_valid for round in later)
                first = result.rounds[0]
                print(
                    f"  seed {number}: {result.num_accepted} of 100 validated; before "
                    f"correction {first.num_valid} of {first.num} (right pattern "
                    f"{first.num_label}), after {valid} of {num}; participation ratio "
                    f"{result.participation_ratio:.2f}; {time.time() - start:.1f} s"
                    + (
                        ""
                        if result.num_accepted >= 100
                        else f"; {result.main_failures()}"
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1] == "synthetic":
        synthetic(int(sys.argv[2]) if len(sys.argv) > 2 else 200)
    else:
        recordings(pathlib.Path(sys.argv[2]))
