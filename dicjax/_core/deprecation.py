"""Arguments that have another name now: the old one still works, and says so."""

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar


P = ParamSpec("P")
R = TypeVar("R")


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function take the keyword `old` as well, with a `DeprecationWarning`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(
                        f"`{old}` is the old name of `{new}`: give `{new}` alone."
                    )
                warnings.warn(
                    f"`{old}` of `{function.__name__}` is now called `{new}`, and the "
                    f"old name will go: write `{new}=`.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return renamed

    return decorate
