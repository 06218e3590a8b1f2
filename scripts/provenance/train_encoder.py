"""Makes the checkpoints that dicjax ships.

`python -m scripts.provenance.train_encoder MODEL [--seed N]`: `stg` and `stg-prinz` are
trained from nothing, `da` and `pospischil-ib` adapted to the encoder of `stg`.
Simulated data and the state of training are kept under data/, so that the same command
goes on where it was stopped. `--seed N` trains another encoder on the same members into
data/, for comparison, and hardly trains its density and emulator.
"""

import os
import pathlib
import sys


os.environ.setdefault("EQX_ON_ERROR", "nan")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")

import dataclasses  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402

from dicjax.inference import (  # noqa: E402
    AdapterConfig,
    DensityConfig,
    EmulatorConfig,
    fit_adapter,
    fit_encoder,
    TrainingConfig,
)
from dicjax.neurons import MODELS  # noqa: E402


ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT / "data"
MEMBERS = {"stg": 300_000, "stg-prinz": 300_000}
STEPS = {"stg": 40_000, "stg-prinz": 28_000}
ADAPTED = {"da": 100_000, "pospischil-ib": 40_000}
ADAPTER_STEPS = {"da": 10_000, "pospischil-ib": 6_000}
SEED = 1


def main() -> None:
    model = sys.argv[1]
    seed = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else SEED
    out = ROOT / "checkpoints" / model
    if seed != SEED:
        out = DATA / model / f"seed-{seed}"
    start = time.time()
    last_report = [0.0]

    def report(stage: str, done: int, total: int) -> None:
        if time.time() - last_report[0] > 30:
            last_report[0] = time.time()
            print(
                f"{last_report[0] - start:6.0f} s  {stage}: {done} of {total}",
                flush=True,
            )

    neuron = MODELS[model]()
    density, emulator = DensityConfig(), EmulatorConfig()
    if seed != SEED:
        density = dataclasses.replace(density, num_steps=100)
        emulator = dataclasses.replace(emulator, num_steps=100)
    if model in ADAPTED:
        training = TrainingConfig(num_steps=ADAPTER_STEPS[model], seed=seed)
        adapting = AdapterConfig(members=ADAPTED[model], training=training)
        fitted = fit_adapter(
            neuron,
            out,
            adapting=adapting,
            density=density,
            emulator=emulator,
            data=DATA,
            on_progress=report,
        )
    else:
        fitted = fit_encoder(
            neuron,
            out,
            num_members=MEMBERS[model],
            training=TrainingConfig(num_steps=STEPS[model], seed=seed),
            density=density,
            emulator=emulator,
            data=DATA,
            on_progress=report,
        )
    print(json.dumps(fitted.tests, indent=2))
    print(f"{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
