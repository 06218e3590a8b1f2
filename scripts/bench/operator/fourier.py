"""Operators beside a Fourier operator that is trained from the same simulator."""

import dataclasses
from collections.abc import Iterator

from dicjax.operator.scores import EVERY
from scripts.bench.operator.common import answers_of, OperatorBenchmark, score_rows
from scripts.bench.operator.fourier_operator import (
    FourierConfig,
    FourierTraining,
    predict_fourier,
    refined,
    train_fourier,
)
from scripts.bench.results import Measurement, row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fourier(OperatorBenchmark):
    """Scores of a Fourier operator, after NOBLE, beside those of operators.

    It learns from the same simulator, for so many minutes. The last row is how much the
    distance between its samples costs.
    """

    minutes: float = 20.0
    """Length of each training, with simulation and without compilation."""
    seeds: int = 1
    """Trainings."""

    def measure(self) -> Iterator[Measurement]:
        """Trains, and scores both trials."""
        family, library = self.library()
        operators = self.loaded()
        config = FourierConfig()
        runs = [
            train_fourier(seed, family, library.seen, self.minutes, config, _show)
            for seed in range(self.seeds)
        ]
        columns = {
            ("parameters", ""): [x.num_parameters for x in runs],
            ("steps", ""): [x.steps for x in runs],
            ("traces", ""): [x.traces for x in runs],
            ("time", "min"): [x.minutes for x in runs],
            ("loss", ""): [x.loss for x in runs],
        }
        yield from row("training of the Fourier operator", {}, columns)
        for kind, trial in self.trials(family, library).items():
            sampled = trial.V[:, :: config.stride][:, : config.num_samples]
            answers = {
                f"Fourier operator, {self.minutes:g} min": [
                    predict_fourier(run.model, trial) for run in runs
                ],
                "operator": answers_of(operators, trial, kind).values(),
                f"truth, every {config.stride * EVERY:g} ms": [
                    refined(sampled, trial, config)
                ],
            }
            yield from score_rows(f"{kind} members", trial, answers)


def _show(run: FourierTraining) -> None:
    if run.steps % 800 == 0:
        print(f"  {run.minutes:.1f} min, {run.steps} steps, loss {run.loss:.3f}")
