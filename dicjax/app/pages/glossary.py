"""The page that explains terms."""

from nicegui import ui

from dicjax.app.pages.parts import page, text
from dicjax.app.server_state import ServerState
from dicjax.output import glossary


def glossary_page(state: ServerState) -> None:
    with page(state, "Glossary"):
        text("What terms mean", tag="h1")
        for anchor, (name, meaning) in glossary().items():
            with ui.element("section").classes("card").props(f'id="{anchor}"'):
                text(name, tag="h2")
                text(meaning)
