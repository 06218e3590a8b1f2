"""The settings of a run: the kind of neuron, how many, the tolerance."""

from typing import NamedTuple

from nicegui import ui

from dicjax._core import short
from dicjax.app.labels import model_note, model_options
from dicjax.app.pages.parts import card, Notice, text
from dicjax.app.recordings import Recording
from dicjax.app.runs import Order
from dicjax.app.server_state import ServerState
from dicjax.generation import GenerateConfig


class Number(NamedTuple):
    name: str
    label: str
    usual: float
    low: float
    high: float

    def field(self) -> ui.number:
        made = ui.number(self.label, value=self.usual, min=self.low, max=self.high)
        return made.props(f'outlined dense data-testid="{self.name}"')

    def value(self, field: ui.number) -> float:
        """The number in the field, or a `ValueError` if it is outside the limits."""
        if field.value is None or not self.low <= field.value <= self.high:
            limits = f"{short(self.low)} to {short(self.high)}"
            raise ValueError(f"“{self.label}” must be a number from {limits}.")
        return float(field.value)


USUAL = GenerateConfig()
MAIN = (
    Number("members", "How many model neurons", 100, 1, 10_000),
    Number("tolerance", "Each feature within (%)", 10, 1, 50),
)
MORE = (
    Number("seed", "Seed (same seed, same model neurons)", 0, 0, 2**31),
    Number("budget", "Candidates at most", USUAL.budget, 512, 10**6),
    Number("spread", "Variety of candidates (0.05 to 2)", USUAL.spread, 0.05, 2),
)


class Choices:
    """The form beside a recording, and its button."""

    def __init__(self, state: ServerState, recording: Recording):
        self.state, self.recording = state, recording
        with card("What to make"):
            options = model_options()
            self.model = ui.select(options, value="auto", label="Kind of neuron")
            self.model.props('outlined dense data-testid="model"')
            note = text(model_note("auto"), "note")
            explain = lambda event: note.set_content(model_note(event.value))
            self.model.on_value_change(explain)
            self.fields = {number: number.field() for number in MAIN}
            more = ui.expansion("More choices")
            with more.props('dense dense-toggle data-testid="more"'):
                self.fields |= {number: number.field() for number in MORE}
                self.out_of_range = ui.checkbox(
                    "Try all the same if no kind of neuron can fire like the recording"
                )
                self.robustness = ui.checkbox(
                    "Also test model neurons under other conductances, currents, noise "
                    "and temperature (slower)"
                )
            self.notice = Notice()
            self.button = ui.button("Generate", icon="play_arrow", on_click=self._go)
            self.button.props('size=lg unelevated data-testid="generate"')

    def _order(self) -> Order:
        value = {x.name: x.value(field) for x, field in self.fields.items()}
        config = GenerateConfig(
            budget=int(value["budget"]),
            spread=value["spread"],
            out_of_range="try" if self.out_of_range.value else "refuse",
            robustness=bool(self.robustness.value),
        )
        return Order(
            self.recording.train,
            self.recording.upload.sha256,
            self.recording.window,
            model=str(self.model.value),
            members=int(value["members"]),
            tolerance=value["tolerance"] / 100,
            seed=int(value["seed"]),
            config=config,
            clean=self.recording.clean,
        )

    async def _go(self) -> None:
        try:
            order = self._order()
        except ValueError as error:
            self.notice.say(str(error))
        else:
            ui.navigate.to(self.state.start(order).address)
