"""How hard a population is searched for."""

import dataclasses
from typing import Annotated, Literal

from dicjax._core import Count, Within


FEWEST_CANDIDATES = 16  # in a round, from which corrections can learn


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """How hard a population is searched for."""

    budget: Count = 20_000
    """Candidates simulated at most."""
    candidates_per_round: Annotated[int, Within(FEWEST_CANDIDATES, 10**6)] = 512
    """Candidates simulated side by side, from which the next round learns."""
    spread: Annotated[float, Within(0, 100, is_open=True)] = 2.0
    """How far corrected candidates stray at first, in standard deviations of the
    conductances of those that fire most alike."""
    out_of_range: Literal["refuse", "try"] = "refuse"
    """What to do with a recording unlike anything that the model does."""
    drive: Literal["auto", "always", "never"] = "auto"
    """Whether members have an input current that fluctuates and are judged by how much
    the recording varies: "auto" does so for recordings that are irregular."""
    robustness: bool = False
    """Also try every delivered member with each conductance a fifth lower and higher,
    with other currents, with noise and 10 °C warmer."""
