"""How training scales with devices."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator

from scripts.bench.processes import devices_of_jax, environment
from scripts.bench.results import Benchmark, Measurement, row


BATCH = 256  # of both trainings, unless scaled; devices have to share it evenly
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Benchmark):
    """Optimiser steps per second of the encoder and the operator on 1, 2, ... devices.

    Each number of devices is a process of its own, with a batch that stays the same and
    with one that grows with the devices. On a CPU,
    XLA_FLAGS=--xla_force_host_platform_device_count=2 shows that two devices work, and
    nothing about GPUs.
    """

    scale: int = 1
    """How many times as large the batches are as by default."""
    steps: int = 160
    """Steps of each training; the first 3/8 compile and are not counted."""

    def measure(self) -> Iterator[Measurement]:
        """Measures each number of devices that divides the batch."""
        total = len(devices_of_jax())
        alone: dict[str, float] = {}
        for num in range(1, total + 1):
            if self.scale * BATCH % num:
                continue
            same = self.speeds(num, self.scale)
            alone = alone or same
            batches = {"same": (same, 1)}
            if num > 1:
                batches["grows"] = self.speeds(num, num * self.scale), num
            for batch, (speeds, size) in batches.items():
                columns = {}
                for model, steps in speeds.items():
                    columns[model, "steps/s"] = steps
                    columns[f"{model}, trains/s over one device's", ""] = (
                        steps * size / alone[model]
                    )
                case = {"devices": num, "batch": batch}
                yield from row("training", case, columns)

    def speeds(self, num: int, scale: int) -> dict[str, float]:
        """Steps per second of each model, on the first `num` devices."""
        flag = f" --xla_force_host_platform_device_count={num}"  # only CPUs heed it
        changes = {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + flag}
        for name in VISIBLE:
            visible = os.environ.get(name, ",".join(map(str, range(num)))).split(",")
            changes[name] = ",".join(visible[:num])
        module = [sys.executable, "-m", "scripts.bench.devices.training_worker"]
        done = subprocess.run(
            [*module, str(scale), str(self.steps)],
            env=environment(changes),
            check=True,
            stdout=subprocess.PIPE,
        )
        return json.loads(done.stdout.splitlines()[-1])
