"""How pages look, on light and on dark screens."""

import functools
from collections.abc import Callable
from typing import Any

from nicegui import ui

from dicjax.app.canvas import DARK, LIGHT, Palette, Plot


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
_SURFACES = {
    LIGHT: {"page": "#f5f6f8", "line": "#dfe3e8", "warn": "#fdf1e3", "edge": "#e0903c"},
    DARK: {"page": "#0f1317", "line": "#2b333c", "warn": "#2b2117", "edge": "#c47a2c"},
}
_CSS = """
body { --q-primary: var(--members) !important; background: var(--page) !important;
  color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; font-variant-numeric: tabular-nums; }
.nicegui-content { padding: 0; gap: 0; align-items: stretch; }
.top { display: flex; align-items: center; gap: .9rem; padding: .6rem 1.6rem;
  background: var(--paper); border-bottom: 1px solid var(--line); width: 100%; }
.top a.home { display: flex; align-items: center; gap: .6rem; font-weight: 700;
  font-size: 1.1rem; color: var(--ink); text-decoration: none; letter-spacing: -.01em; }
.top svg { width: 26px; height: 26px; display: block; }
.top .place { color: var(--muted); font-size: .84rem; margin-left: auto; }
.main { max-width: 1240px; width: 100%; margin: 0 auto; padding: 1.3rem 1.6rem 3rem;
  display: flex; flex-direction: column; gap: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; font-weight: 680; letter-spacing: -.015em;
  margin: 0; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 1.04rem; line-height: 1.35; font-weight: 650; margin: 0; }
h1 + p, .lead { color: var(--muted); margin: .25rem 0 0; max-width: 50rem; }
p { margin: 0; }
.note { color: var(--muted); font-size: .87rem; line-height: 1.45; }
.over { color: var(--members); font-weight: 600; font-size: .9rem; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: .75rem;
  padding: 1rem 1.15rem; display: flex; flex-direction: column; gap: .6rem;
  min-width: 0; }
.split { display: grid; grid-template-columns: minmax(0, 1fr) 21.5rem; gap: 1rem;
  align-items: start; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem;
  align-items: stretch; }
.pair.uneven { grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); }
.stack { display: flex; flex-direction: column; gap: 1rem; min-width: 0; }
.line { display: flex; flex-wrap: wrap; gap: .5rem .9rem; align-items: center; }
.alert { background: var(--warn); border-left: 4px solid var(--edge);
  border-radius: .35rem; padding: .6rem .85rem; font-size: .92rem; }
.alert.bad { border-left-color: var(--recording); }
.alert.good { background: var(--page); border-left-color: var(--highlight-1); }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr));
  gap: .8rem; margin: 0; }
.numbers.boxed > div { background: var(--paper); border: 1px solid var(--line);
  border-radius: .75rem; padding: .7rem .95rem; }
.numbers dt { color: var(--muted); font-size: .8rem; line-height: 1.3; }
.numbers dd { margin: 0; font-size: 1.35rem; font-weight: 650; line-height: 1.25; }
.numbers > div { display: flex; flex-direction: column-reverse;
  justify-content: flex-end; }
.small dd { font-size: 1.02rem; }
table.plain { border-collapse: collapse; font-size: .9rem; width: 100%; }
table.plain th, table.plain td { text-align: right; padding: .36rem .55rem;
  border-bottom: 1px solid var(--line); vertical-align: top; }
table.plain th:first-child, table.plain td:first-child { text-align: left;
  padding-left: 0; }
table.plain th { color: var(--muted); font-weight: 600; font-size: .82rem; }
table.words th, table.words td { text-align: left; }
table.numeric td:not(:first-child) { white-space: nowrap; }
table.plain td a { color: var(--members); font-weight: 600; }
table.plain tr.decides td:first-child { font-weight: 600; }
.scroll { overflow-x: auto; }
.q-uploader { width: 100%; max-height: none; border-radius: .75rem; color: var(--ink);
  background: var(--paper); border: 2px dashed var(--other); box-shadow: none; }
.q-uploader__header { background: none; color: var(--ink); }
.q-uploader__list { display: none; }
.q-uploader__dnd { outline: none; background: var(--members); opacity: .18; }
.drop { display: flex; flex-direction: column; align-items: center; gap: .55rem;
  padding: 2.3rem 1rem; text-align: center; }
.drop .q-icon { color: var(--members); }
.drop strong { font-size: 1.15rem; font-weight: 650; }
ol.steps { margin: 0; padding-left: 1.15rem; display: flex; flex-direction: column;
  gap: .45rem; }
.window { padding: 0 16px 0 76px; }
.q-btn { text-transform: none; font-weight: 600; border-radius: .5rem;
  letter-spacing: 0; }
.body--dark .q-btn.bg-primary, .body--dark .q-btn.bg-primary .q-btn__content {
  color: var(--page) !important; }
.narrow { max-width: 46rem; }
.q-field__label, .q-field__native, .q-field__input { font-size: .94rem; }
.body--dark .q-card, .body--dark .q-menu { background: var(--paper); }
.q-expansion-item__content, .nicegui-expansion .nicegui-expansion-content {
  display: flex; flex-direction: column; gap: .55rem; padding: .5rem 0 0; }
.q-expansion-item__content > *, .nicegui-expansion-content > * { width: 100%; }
.q-expansion-item .q-item { padding: 0 .2rem; }
.main a { color: var(--members); }
.downloads { display: grid; gap: .45rem; }
.downloads .q-btn { justify-content: flex-start; }
.downloads .q-btn__content { justify-content: space-between; width: 100%; gap: .8rem; }
.downloads small { color: var(--muted); font-weight: 400; font-size: .8rem; }
.units .q-radio { padding: .12rem 0; }
:focus-visible { outline: 2px solid var(--members); outline-offset: 2px; }
.js-plotly-plot { width: 100%; }
.js-plotly-plot .nsewdrag { cursor: default; }
.draggable .nsewdrag { cursor: grab !important; }
@media (max-width: 1000px) {
  .split, .pair, .pair.uneven { grid-template-columns: minmax(0, 1fr); }
}
"""


def css() -> str:
    """The style of all pages, in the colours of the figures."""
    light, dark = (_variables(colors) for colors in (LIGHT, DARK))
    return f":root {{{light}}}\nbody.body--dark {{{dark}}}\n{_CSS}"


def _variables(colors: Palette) -> str:
    named = colors._asdict()
    highlights = enumerate(named.pop("highlights"))
    named |= {f"highlight-{i}": x for i, x in highlights} | _SURFACES[colors]
    return " ".join(f"--{name}: {x};" for name, x in named.items())


class Look:
    """The figures of a page, drawn again when the screen turns dark or light."""

    def __init__(self):
        self.mode = ui.dark_mode(None)
        self.is_dark = False
        self._drawn: dict[ui.plotly, Callable[[Palette], Plot]] = {}

    @property
    def colors(self) -> Palette:
        return DARK if self.is_dark else LIGHT

    async def settle(self) -> None:
        """Waits for the browser and reads whether its user wants a dark page."""
        await ui.context.client.connected()
        self._set(bool(await ui.run_javascript(_IS_DARK_SCRIPT, timeout=20)))

    def toggle(self) -> None:
        """Switches between dark and light, now and for later visits."""
        self._set(not self.is_dark)
        kept = "true" if self.is_dark else "false"
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
        """Shows another figure in the same place."""
        build = self._drawn[plot] = functools.partial(figure, *shown)
        plot.update_figure(build(self.colors))

    def _set(self, is_dark: bool) -> None:
        self.is_dark = is_dark
        self.mode.set_value(is_dark)
