"""Makes the checkpoints that dicjax ships: `python scripts/train_encoder.py MODEL`.

Simulated data are kept under data/, so that training can be repeated without them
being made again.
"""

import os
import pathlib
import sys


os.environ.setdefault("EQX_ON_ERROR", "nan")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")

import json  # noqa: E402
import time  # noqa: E402

from dicjax.config import TrainingConfig  # noqa: E402
from dicjax.fitting import fit_encoder  # noqa: E402
from dicjax.models import MODELS  # noqa: E402


ROOT = pathlib.Path(__file__).parents[1]
NUM_MEMBERS = 125_000


def main() -> None:
    model = sys.argv[1]
    num_steps = int(sys.argv[2]) if len(sys.argv) > 2 else TrainingConfig().num_steps
    start = time.time()
    said = [0.0]

    def report(stage: str, done: int, total: int) -> None:
        if time.time() - said[0] > 30:
            said[0] = time.time()
            print(f"{said[0] - start:6.0f} s  {stage}: {done} of {total}", flush=True)

    metrics = fit_encoder(
        MODELS[model](),
        ROOT / "checkpoints" / model,
        num_members=NUM_MEMBERS,
        training=TrainingConfig(num_steps=num_steps, seed=1),
        data=ROOT / "data",
        on_progress=report,
    )
    print(json.dumps(metrics, indent=2))
    print(f"{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
