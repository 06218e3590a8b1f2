"""Errors and coverage that checkpoints hold about themselves."""

import dataclasses
import pathlib
from collections.abc import Iterator

import tyro

from dicjax.inference import load_checkpoint, shipped_checkpoint, shipped_models
from scripts.bench.results import Benchmark, Measurement, row


COLUMNS = {
    "num": ("trains", ""),
    "mae_g_s": ("error of g_s", ""),
    "mae_g_u": ("error of g_u", ""),
    "label": ("label found", ""),
    "coverage_50": ("50 % regions hold", ""),
    "coverage_80": ("80 %", ""),
    "coverage_90": ("90 %", ""),
    "coverage_95": ("95 %", ""),
    "width_90_g_s": ("90 % width of g_s", ""),
    "width_90_g_u": ("90 % width of g_u", ""),
    "flagged": ("flagged", ""),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tests(Benchmark):
    """Errors and coverage of the encoders that ship, from their checkpoints.

    They were computed after training, on members that the training did not see.
    """

    def measure(self) -> Iterator[Measurement]:
        """Reads the header of every checkpoint."""
        for model in shipped_models():
            yield from tables(model, [shipped_checkpoint(model)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeds(Benchmark):
    """The same for encoders that were trained from several seeds, the shipped one too.

    `python -m scripts.provenance.train_encoder MODEL --seed N` trains another one.
    """

    model: tyro.conf.Positional[str]
    """Model of all encoders."""
    folders: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Checkpoints of other seeds."""

    def measure(self) -> Iterator[Measurement]:
        """Reads the header of every checkpoint."""
        yield from tables(self.model, [shipped_checkpoint(self.model), *self.folders])


def tables(model: str, paths: list[pathlib.Path]) -> Iterator[Measurement]:
    """All tests of encoders of one model."""
    found = [load_checkpoint(path, model).header["tests"] for path in paths]
    for test, table in found[0].items():
        for label in table:
            case = {"model": model, "members": test, "pattern": label}
            rows = [x[test][label] for x in found]
            columns = {c: [x[key] for x in rows] for key, c in COLUMNS.items()}
            yield from row(f"encoders, {len(paths)} of each model", case, columns)
