"""What to change so that something works, said to each reader in their own words.

Those who call functions, type commands and click are given the same advice: words, and
in between [`dicjax.Remedy`][]s, which say themselves in one of three ways.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple


# What the stamps of a file can be cleaned of, as it is said to those who click.
CLEANING = {
    "order": "Sort the stamps",
    "doubles": "Drop doubles",
    "negative": "Drop negative stamps",
    "overflow": "Count on after the overflow",
    "pauses": "Leave pauses out",
}


def tidy(name: str) -> str:
    """A name on one line, without control characters."""
    shown = "".join(c if c.isprintable() else " " for c in name)
    return " ".join(shown.split())


class Remedy(NamedTuple):
    """A setting to change, and the value to give it; none where the user chooses.

    Settings are arguments of functions: "unit", "unit_id", "window" (ms, or "auto"),
    "clean", "model", "out_of_range" and "budget".
    """

    setting: str
    value: Any = None


class Advice(str):
    """A sentence that holds remedies. As a string, it names arguments of functions.

    **Arguments:**

    - `pieces`: what it is made of: words, remedies and other advice.
    """

    pieces: tuple[str | Remedy, ...]

    def __new__(cls, *pieces: "str | Remedy | Advice") -> "Advice":
        flat: list[str | Remedy] = []
        for piece in pieces:
            flat += piece.pieces if isinstance(piece, Advice) else (piece,)
        self = super().__new__(cls, _joined(flat, as_argument))
        self.pieces = tuple(flat)
        return self

    def __getnewargs__(self) -> tuple[str | Remedy, ...]:
        return self.pieces

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What it proposes."""
        return tuple(x for x in self.pieces if isinstance(x, Remedy))

    def said(self, way: Callable[[Remedy], str]) -> str:
        """The sentence, with its remedies said in a way of those below."""
        return _joined(self.pieces, way)


def advice_of(message: object) -> Advice:
    """What an exception, a warning or a string advises, if no more than words."""
    if isinstance(message, BaseException) and len(message.args) == 1:
        message = message.args[0]
    return message if isinstance(message, Advice) else Advice(str(message))


def as_argument(remedy: Remedy) -> str:
    """As those who call functions would write it."""
    setting, value = remedy
    if setting == "window" and value != "auto":
        start, stop = _whole(value)
        return f"window({start}, {stop})"
    if value is None:
        return f"`{setting}`"
    return f'{setting}="{value}"' if isinstance(value, str) else f"{setting}={value}"


def as_option(remedy: Remedy) -> str:
    """As it is typed on the command line."""
    setting, value = remedy
    option = f"--{setting.replace('_', '-')}"
    if setting == "window" and value != "auto":
        return " ".join(map(str, (option, *_whole(value))))
    return option if value is None else f"{option} {value}"


def in_words(remedy: Remedy) -> str:
    """As it is said to those who neither program nor type."""
    setting, value = remedy
    match setting:
        case "window" if value == "auto":
            return "its steady stretch"
        case "window":
            start, stop = _whole(value)
            return f"the window {start / 1e3:g} to {stop / 1e3:g} s"
        case "unit":
            return f"“{value}”"
        case "clean":
            return f"“{CLEANING[value]}”"
        case "unit_id":
            return "a file of its own"
        case "out_of_range":
            return "“Try all the same”"
        case "budget":
            return f"{value:,} candidates at most"
    return f"the {setting} {value}"


def _joined(pieces, way: Callable[[Remedy], str]) -> str:
    return "".join(way(x) if isinstance(x, Remedy) else str(x) for x in pieces)


def _whole(window: tuple[float, float]) -> tuple[int, int]:
    """The window in whole ms, within itself."""
    return math.ceil(window[0]), math.floor(window[1])
