"""Recipes: the numbers by which populations of a model are drawn and compensated."""

import dataclasses
from typing import Literal


Rule = Literal["g_u < 0", "g_s >= 0", "g_s < 0", "always"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of a model that `compensate` uses; conductances in mS/cm².

    - `ranges`: ranges of the conductances that are drawn uniformly; the others start
        from zero and are solved for.
    - `box`: upper bounds of every conductance, for Monte-Carlo sampling.
    - `g_s`, `g_u`: ranges of the targets that the model's encoder is trained on.
    - `pairs`: the two channels that are solved for the target, by the target's signs;
        the first rule that holds is used.
    - `solved`: the two channels that are solved for when a learned density draws the
        others; they should be well conditioned. By default those of the last rule.
    - `scaled_by_leak`: whether the leak is gamma-distributed, with mean and variance of
        its range, and the other draws are multiplied by `leak / mean leak`.
    - `seed_targets`, `seed_channels`: compensation starts from a regularly spiking
        neuron, in which these channels are solved for these (g_f, g_s, g_u).
    - `bounded`: whether models outside of `box` count as infeasible.
    - `noise`: standard deviations, in µA/cm², of the noisy part of training data.
    - `current`: a constant current that is applied to every model, in µA/cm².
    - `duration`, `discard`, `dt`: default duration, discarded time and time step of
        simulations, in ms.
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
        """The channels that are solved for when a learned density draws the others."""
        return self.solved or self.pairs[-1][1]

    def check_names(self, model: str, known: tuple[str, ...]) -> None:
        """Raises `ValueError` unless every channel it names is one of the model's.

        One of these must be called leak.
        """
        named = {
            "ranges": self.ranges,
            "box": self.box,
            "pairs": [name for _, pair in self.pairs for name in pair],
            "solved": self.solved or (),
            "seed_channels": self.seed_channels,
        }
        for field, names in named.items():
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"`{field}` in the recipe of {model} names {name!r}, which is "
                        f"no channel of it; choose from {known}."
                    )
        if "leak" not in known:
            raise ValueError(
                f"{model} has a recipe, but no channel called 'leak', only {known}; "
                "call its leak so, since recipes do."
            )

    def __hash__(self) -> int:
        return hash((self.g_s, self.g_u, self.pairs, self.seed_channels))
