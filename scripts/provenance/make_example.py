"""Makes examples/slow_burster.csv: a noisy slow burster, simulated by dicjax itself."""

import pathlib

import jax
import numpy as np

import dicjax as dj


# Na, Kd, CaT, CaS, KCa, A, H, leak, in mS/cm².
CONDUCTANCES = [421.0, 123.0, 1.88, 4.38, 10.0, 20.5, 0.01, 0.024]
DURATION, DISCARD = 64_000.0, 4_000.0  # ms
SIGMA = 0.3  # µA/cm²


def main() -> None:
    out = pathlib.Path(__file__).parents[2] / "examples" / "slow_burster.csv"
    g = np.array(CONDUCTANCES, np.float32)[None]
    noise = dj.NoisyCurrent(jax.random.key(1), SIGMA)
    run = dj.simulate(
        dj.stg_prinz(), g, DURATION, discard=DISCARD, dt=0.05, stimulus=noise
    )
    times = run.spike_times[0, : run.num_spikes[0]] - DISCARD
    out.parent.mkdir(exist_ok=True)
    np.savetxt(out, times, fmt="%.3f", header="spike_time_ms", comments="")
    print(f"{len(times)} spikes -> {out}")


if __name__ == "__main__":
    main()
