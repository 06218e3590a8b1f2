"""Common parts of pages."""

import contextlib
import html
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from nicegui import run, ui

from dicjax._core import advice_of, in_words
from dicjax.app.server_state import ServerState
from dicjax.app.theme import css, ICON, Look
from dicjax.output import glossary


LOG = logging.getLogger("dicjax.app")


@contextlib.contextmanager
def page(state: ServerState, title: str) -> Iterator[Look]:
    """The frame of a page, with the header of every page."""
    ui.page_title(f"{title} · dicjax" if title else "dicjax")
    ui.add_css(css())
    look = Look()
    with ui.element("header").classes("top"):
        with (
            ui.element("a").props('href="/" aria-label="dicjax, start"').classes("home")
        ):
            ui.html(ICON, sanitize=False)
            ui.html("dicjax", sanitize=False)
        text("Nothing leaves this computer.", "note")
        ui.link("Glossary", "/glossary").classes("note")
        text(f"Results are kept in {state.folder}", "place").props(
            'data-testid="folder"'
        )
        button = ui.button(icon="contrast", on_click=look.toggle)
        button.props('flat round dense aria-label="Dark or light"').props(
            'data-testid="dark"'
        )
    with ui.element("main").classes("main"):
        yield look


def text(words: str, classes: str = "", tag: str = "p") -> ui.html:
    """A paragraph, or another element, of plain text."""
    return ui.html(html.escape(words), tag=tag, sanitize=False).classes(classes)


@contextlib.contextmanager
def card(
    title: str = "", note: str = "", terms: Sequence[str] = ()
) -> Iterator[ui.element]:
    """A box with a title, and links to explanations of terms."""
    with ui.element("section").classes("card") as box:
        if title:
            text(title, tag="h2")
        if note:
            text(note, "note")
        if linked := [_link(anchor) for anchor in terms if anchor in glossary()]:
            ui.html(f"What is: {', '.join(linked)}?", tag="p", sanitize=False).classes(
                "note"
            )
        yield box


def _link(anchor: str) -> str:
    """A link to a term, with its meaning as a tooltip."""
    name, meaning = glossary()[anchor]
    return (
        f'<a href="/glossary#{anchor}" title="{html.escape(meaning)}">'
        f"{html.escape(name.lower())}</a>"
    )


def numbers(pairs: Iterable[tuple[str, str]], classes: str = "") -> ui.html:
    """A list of values with their labels."""
    rows = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in pairs
    )
    return ui.html(rows, tag="dl", sanitize=False).classes(f"numbers {classes}")


def table(header: Sequence[str], rows: Iterable[str], kind: str = "numeric") -> ui.html:
    """A table of HTML rows; `kind` is "numeric" or "words"."""
    head = "".join(f'<th scope="col">{html.escape(x)}</th>' for x in header)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    inner = f'<table class="plain {kind}">{body}</table>'
    return ui.html(inner, sanitize=False).classes("scroll")


def cells(values: Iterable[str], classes: str = "") -> str:
    """A row of a table, of plain text."""
    return (
        f'<tr class="{classes}">'
        + "".join(f"<td>{html.escape(x)}</td>" for x in values)
        + "</tr>"
    )


class Notice:
    """A place for one message."""

    def __init__(self):
        self._box = (
            ui.element("div").props('role="alert"').props('data-testid="notice"')
        )
        self._box.set_visibility(False)

    def say(self, words: str, kind: str = "bad") -> None:
        """Shows a message in place of the previous one."""
        self._box.clear()
        with self._box:
            text(words, f"alert {kind}")
        self._box.set_visibility(True)

    def clear(self) -> None:
        """Hides the message."""
        self._box.set_visibility(False)

    async def attempt(self, work: Callable[..., Any], *args: Any) -> Any:
        """Runs `work` in a thread and returns its result.

        If it fails, shows the reason here and returns None.
        """
        self.clear()
        try:
            return await run.io_bound(work, *args)
        except (ValueError, OSError) as error:
            self.say(advice_of(error).said(in_words))
        except Exception as error:
            LOG.exception("%s failed", getattr(work, "__name__", work))
            self.say(bug(error))
        return None


def bug(error: BaseException) -> str:
    """A sentence about an error of dicjax."""
    return (
        f"This is a fault of dicjax, not of your file ({error!r:.160}). What happened "
        "is written in dicjax-app.log, in the folder of results; the app goes on."
    )
