"""How a model's populations are drawn and compensated: numbers, no algorithm."""

import dataclasses
from typing import Literal


Rule = Literal["g_u < 0", "g_s >= 0", "g_s < 0", "always"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What `compensate` needs to know about a model; conductances in mS/cm².

    - `ranges`: uniform ranges of the conductances drawn freely; one drawn nowhere
        starts from zero and is solved for.
    - `box`: upper bounds of every conductance, for Monte-Carlo sampling.
    - `g_s`, `g_u`: the targets that the model's encoder is trained on.
    - `pairs`: which two channels are solved for the target, by its signs; the first
        rule that holds wins.
    - `solved`: the pair that a learned density of conductances leaves to be solved for,
        if not that of the last rule; a well-conditioned one.
    - `scaled_by_leak`: the leak is then gamma-distributed with the mean and variance of
        its range, and the other draws are multiplied by `leak / mean leak`.
    - `seed_targets`, `seed_channels`: (g_f, g_s, g_u) imposed first, through these
        channels, so that compensation starts from a regularly spiking neuron.
    - `bounded`: members that leave `box` count as infeasible.
    - `noise`: standard deviations, in µA/cm², of the noisy part of training data.
    - `current`: applied throughout to every member, in µA/cm².
    - `duration`, `discard`, `dt`: how long its members are simulated by default, and
        how finely, in ms.
    """

    ranges: dict[str, tuple[float, float]]
    box: dict[str, float]
    g_s: tuple[float, float]
    g_u: tuple[float, float]
    pairs: tuple[tuple[Rule, tuple[str, str]], ...]
    solved: tuple[str, str] | None = None
    scaled_by_leak: bool = False
    seed_targets: tuple[float, float, float] | None = None
    seed_channels: tuple[str, ...] = ()
    bounded: bool = False
    noise: tuple[float, ...] = (3.0, 5.0)
    current: float = 0.0
    duration: float = 6000.0
    discard: float = 3000.0
    dt: float = 0.05

    @property
    def solved_pair(self) -> tuple[str, str]:
        """The two channels that a learned density leaves to be solved for."""
        return self.solved or self.pairs[-1][1]

    def __hash__(self) -> int:
        return hash((self.g_s, self.g_u, self.pairs, self.seed_channels))
