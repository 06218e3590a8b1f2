"""How pages look, on light and on dark screens."""

import functools
import importlib.resources
from collections.abc import Callable
from typing import Any

from nicegui import ui

from dicjax.app.canvas import DARK, LIGHT, Palette, Plot, SIDES
from dicjax.output import style


ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    f'<rect width="32" height="32" rx="7" fill="{LIGHT.members}"/>'
    '<path d="M6 21h4l2-12 3 17 3-11 2 6h6" fill="none" stroke="#fff" '
    'stroke-width="2.4" stroke-linejoin="round" stroke-linecap="round"/></svg>'
)
_IS_DARK_SCRIPT = """
(() => {
  const kept = localStorage.getItem("dicjax-dark");
  if (kept !== null) return kept === "true";
  return matchMedia("(prefers-color-scheme: dark)").matches;
})()
"""


def css() -> str:
    """The style of all pages, in the colours of the figures."""
    pairs = style.VARIABLES.items()
    light, dark = (" ".join(f"--{x}: {of[i]};" for x, of in pairs) for i in (0, 1))
    sides = " ".join(f"--{side}: {pixels}px;" for side, pixels in SIDES.items())
    rules = (importlib.resources.files("dicjax.app") / "theme.css").read_text("utf-8")
    return f":root {{{light} {sides}}}\nbody.body--dark {{{dark}}}\n{rules}"


class Look:
    """The figures of a page, drawn again when the screen turns dark or light."""

    def __init__(self):
        self.mode = ui.dark_mode(None)
        self._drawn: dict[ui.plotly, Callable[[Palette], Plot]] = {}

    @property
    def colors(self) -> Palette:
        return DARK if self.mode.value else LIGHT

    async def settle(self) -> None:
        """Waits for the browser and reads whether its user wants a dark page."""
        await ui.context.client.connected()
        is_dark = await ui.run_javascript(_IS_DARK_SCRIPT, timeout=20)
        self.mode.set_value(bool(is_dark))

    def toggle(self) -> None:
        """Switches between dark and light, now and for later visits."""
        self.mode.set_value(not self.mode.value)
        kept = "true" if self.mode.value else "false"
        ui.run_javascript(f'localStorage.setItem("dicjax-dark", "{kept}")')
        for plot, build in self._drawn.items():
            if not plot.is_deleted:
                plot.update_figure(build(self.colors))

    def draw(self, label: str, figure: Callable[..., Plot], *shown: Any) -> ui.plotly:
        """Shows a figure, a function of what it shows and of the colours.

        `label` describes it for screen readers.
        """
        plot = ui.plotly({}).props(f'role="img" aria-label="{label}"')
        self.redraw(plot, figure, *shown)
        return plot

    def redraw(self, plot: ui.plotly, figure: Callable[..., Plot], *shown: Any) -> None:
        build = self._drawn[plot] = functools.partial(figure, *shown)
        plot.update_figure(build(self.colors))
