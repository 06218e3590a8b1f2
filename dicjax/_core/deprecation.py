"""Arguments that are spelled otherwise now: the old ones still work, and say so."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar


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


def replaced_argument(
    old: str, new: str, values: Mapping[Any, Any]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function take the keyword `old` as well, with a `DeprecationWarning`.

    `values` maps what was given for `old` to what `new` is then; a value of `new` that
    is given too is kept, unless `values` says None. Another value of `old` raises a
    `ValueError`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def replaced(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                given = kwargs.pop(old)
                if given not in values:
                    raise ValueError(
                        f"`{old}` must be one of {', '.join(map(repr, values))}, got "
                        f"{given!r}; better, write `{new}` alone."
                    )
                value = values[given]
                kwargs[new] = value if value is None else kwargs.get(new, value)
                warnings.warn(
                    f"`{old}` of `{function.__name__}` will go: write "
                    f"`{new}={kwargs[new]!r}` alone.",
                    DeprecationWarning,
                    stacklevel=2,
                )
            return function(*args, **kwargs)

        return replaced

    return decorate


def option_of(argument: str, given: Any, kinds: Mapping[str, type], **beside) -> Any:
    """An option, which was once the name of its kind with settings `beside` it.

    Options are data classes. The old spelling raises a `DeprecationWarning`, and a
    `ValueError` if there is no kind of that name.
    """
    settings = {name: value for name, value in beside.items() if value is not None}
    is_old = isinstance(given, str) and given in kinds
    if not is_old and not isinstance(given, tuple(kinds.values())):
        raise ValueError(
            f"`{argument}` must be one of {', '.join(kinds)}, got {given!r}."
        )
    if not is_old and not settings:
        return given
    given = kinds[given]() if is_old else given
    fields = {field.name for field in dataclasses.fields(given)}
    own = {name: x for name, x in settings.items() if name in fields}
    option = dataclasses.replace(given, **own)
    warnings.warn(
        f"`{argument}` is an option now, and the old spelling will go: write "
        f"`{argument}=dicjax.{option!r}`.",
        DeprecationWarning,
        stacklevel=4,
    )
    return option
