"""What exports to one file share."""

import importlib
import pathlib
from typing import Any


def check_suffix(path: pathlib.Path | str, suffix: str) -> pathlib.Path:
    """The path, or a `ValueError` if programs would not know it by its name."""
    path = pathlib.Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path} must end in {suffix}: name the file so.")
    return path


def load(library: str, extra: str) -> Any:
    """A library that few need, or a `ValueError` that says how to install it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ValueError(
            f"{library} is not installed, which writes this file: "
            f'pip install "dicjax[{extra}]".'
        ) from error
