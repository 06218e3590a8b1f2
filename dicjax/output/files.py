"""Templates filled in, files that are whole or absent, and libraries they need."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2

from dicjax._core import optional_library, replacing


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this package with values in it, which pages of HTML escape."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dicjax.output", "."),
        autoescape=jinja2.select_autoescape(("html.jinja",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write a file to, which then takes the place of `path`.

    Parents of `path` are made. If anything goes wrong before, `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        yield partial


def write_text(path: pathlib.Path, text: str) -> None:
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_suffix(path: pathlib.Path | str, suffix: str) -> pathlib.Path:
    """The path, or a `ValueError` if it has another suffix."""
    path = pathlib.Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path} must end in {suffix}: name the file so.")
    return path


def load(library: str, extra: str) -> Any:
    """An optional library; raises `ValueError` if it is not installed."""
    return optional_library(library, extra, "this needs")
