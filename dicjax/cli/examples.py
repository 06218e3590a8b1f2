"""The command that hands out the recording that dicjax ships."""

import dataclasses
import pathlib
from typing import Annotated

from tyro.conf import arg

from dicjax._core import replacing, shipped_path
from dicjax.cli.common import Command


RECORDING = "slow_burster.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Command):
    """Print the path of a recording to try commands on, or copy it.

    For example: dicjax example --out recording.csv
    """

    out: Annotated[pathlib.Path | None, arg(metavar="PLACE")] = None
    """File or folder to copy the recording to; its path is printed if not given."""

    def run(self) -> int:
        source = shipped_path("examples", RECORDING)
        if source is None:
            raise ValueError(f"This installation lacks {RECORDING}: install it again.")
        if self.out is None:
            print(source)
            return 0
        path = self.out / RECORDING if self.out.is_dir() else self.out
        if path.exists():
            raise ValueError(f"{path} exists already: name another file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(source.read_bytes())
        print(path)
        return 0
