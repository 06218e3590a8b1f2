"""Common parts of pages."""

import contextlib
import html
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from nicegui import run, ui

from dicjax._core import advice_of, in_words
from dicjax.app.jobs import fault_words, LOG
from dicjax.app.server_state import ServerState
from dicjax.app.theme import css, ICON, Look
from dicjax.output import glossary


@contextlib.contextmanager
def page(state: ServerState, title: str) -> Iterator[Look]:
    """The frame of a page, with the header of every page."""
    ui.page_title(f"{title} · dicjax" if title else "dicjax")
    ui.add_css(css())
    look = Look()
    with ui.element("header").classes("top"):
        start = ui.element("a").props('href="/" aria-label="dicjax, start"')
        with start.classes("home"):
            ui.html(ICON, sanitize=False)
            text("dicjax", tag="span")
        text("Nothing leaves this computer.", "note")
        ui.link("Glossary", "/glossary").classes("note")
        text(f"Results are kept in {state.folder}", "place")
        button = ui.button(icon="contrast", on_click=look.toggle)
        button.props('flat round dense aria-label="Dark or light" data-testid="dark"')
    with ui.element("main").classes("main"):
        yield look


def missing(title: str, why: str) -> None:
    """What a page shows instead of something that is not there."""
    text(title, tag="h1")
    text(why)
    ui.link("Back to the start", "/")


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
            what = ui.html(f"What is: {', '.join(linked)}?", tag="p", sanitize=False)
            what.classes("note")
        yield box


def _link(anchor: str) -> str:
    name, meaning = map(html.escape, glossary()[anchor])
    return f'<a href="/glossary#{anchor}" title="{meaning}">{name.lower()}</a>'


def numbers(pairs: Iterable[tuple[str, str]], classes: str = "") -> ui.html:
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


def cells(values: Iterable[str], classes: str = "", link: str = "") -> str:
    """A row of a table, of plain text; its first cell may be a link."""
    first, *others = map(html.escape, values)
    if link:
        first = f'<a href="{html.escape(link)}">{first}</a>'
    row = "".join(f"<td>{x}</td>" for x in (first, *others))
    return f'<tr class="{classes}">{row}</tr>'


class Notice:
    """A place for one message."""

    def __init__(self):
        self._box = ui.element("div").props('role="alert" data-testid="notice"')
        self._box.set_visibility(False)
        self._kind = ""

    def say(self, words: str, kind: str = "bad") -> None:
        self._kind = kind
        self._box.clear()
        with self._box:
            text(words, f"alert {kind}")
        self._box.set_visibility(True)

    async def attempt(
        self,
        work: Callable[..., Any],
        *args: Any,
        within: Callable[..., Awaitable[Any]] = run.io_bound,
    ) -> Any:
        """Runs `work` in a thread and returns the result, without a message left here.

        `within` calls it in a thread. An old error is hidden first. If `work` fails,
        shows the reason here and returns None.
        """
        if self._kind == "bad":
            self._box.set_visibility(False)
        try:
            result = await within(work, *args)
            self._box.set_visibility(False)
            return result
        except (ValueError, OSError) as error:
            self.say(advice_of(error).said(in_words))
        except Exception as error:
            LOG.exception("%s failed", getattr(work, "__name__", work))
            self.say(fault_words(error))
        return None
