"""Common functions of exports to one file."""

import importlib
import pathlib
from typing import Any


def check_suffix(path: pathlib.Path | str, suffix: str) -> pathlib.Path:
    """The path, or a `ValueError` if it has another suffix."""
    path = pathlib.Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path} must end in {suffix}: name the file so.")
    return path


def load(library: str, extra: str) -> Any:
    """An optional library; raises `ValueError` if it is not installed."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ValueError(
            f"{library} is not installed, which writes this file: "
            f'pip install "dicjax[{extra}]".'
        ) from error
