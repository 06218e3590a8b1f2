"""`generate` on recordings."""

import dataclasses
import pathlib
import time
from collections.abc import Iterator

import jax
import tyro

import dicjax as dj
from scripts.bench.results import Benchmark, Measurement, row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recordings(Benchmark):
    """Members found for each recording of stomatogastric neurons in a folder.

    "Before" is the first round, whose candidates no simulation of this recording has
    changed; "after" is all later ones. The first call in a process is cold.
    """

    folder: tyro.conf.Positional[pathlib.Path]
    """Folder with the spike times of one neuron in each stg*.csv."""
    model: str = "stg-prinz"
    """Model of the members."""
    members: int = 1000
    """Valid members to find for each recording."""
    seeds: int = 2
    """Populations of each recording."""

    def measure(self) -> Iterator[Measurement]:
        """Generates populations of every recording."""
        for path in sorted(self.folder.glob("stg*.csv")):
            (train,) = dj.read_spike_trains(path)
            for seed in range(self.seeds):
                case = {"recording": path.stem, "seed": seed}
                began = time.perf_counter()
                try:
                    result = dj.generate(
                        jax.random.key(seed), train, model=self.model, num=self.members
                    )
                except dj.OutOfRange as e:
                    yield Measurement(self.model, case, note=str(e))
                    break
                seconds = time.perf_counter() - began
                yield from row(self.model, case, columns_of(result, seconds))
                if result.num_accepted < self.members:
                    yield Measurement(self.model, case, note=result.main_failures())


def columns_of(result: dj.Generated, seconds: float) -> dict[tuple[str, str], float]:
    """What a population is measured by."""
    first, *later = result.rounds
    columns = {
        ("members", ""): result.num_accepted,
        ("valid before", ""): first.num_valid,
        ("of", ""): first.num,
        ("valid after", ""): sum(round.num_valid for round in later),
        ("of these", ""): sum(round.num for round in later),
        ("participation ratio", ""): result.participation_ratio,
        ("time", "s"): seconds,
    }
    if result.certificate is not None:
        share = float(result.certificate.valid[:, 0].mean())
        columns["valid from another start", ""] = share
    return columns
