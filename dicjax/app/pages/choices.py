"""The settings of a run: the model, the number of members, the tolerance."""

from nicegui import ui

from dicjax.app.labels import model_note, model_options
from dicjax.app.pages.parts import card, Notice, text
from dicjax.app.recordings import Recording
from dicjax.app.runs import job_for, Order
from dicjax.app.server_state import ServerState
from dicjax.generation import GenerateConfig


MAX_MEMBERS = 10_000


class Choices:
    """The form beside a recording, and its button."""

    def __init__(self, state: ServerState, recording: Recording):
        self.state, self.recording = state, recording
        usual = GenerateConfig()
        with card("What to make"):
            self.model = ui.select(
                model_options(), value="auto", label="Model neuron"
            ).props("outlined dense")
            self.model.props('data-testid="model"')
            note = text(model_note("auto"), "note")
            self.model.on_value_change(
                lambda event: note.set_content(model_note(event.value))
            )
            self.members = _number("How many members", 100, 1, MAX_MEMBERS)
            self.members.props('data-testid="members"')
            self.tolerance = _number("Each feature within (%)", 10, 1, 50)
            self.tolerance.props('data-testid="tolerance"')
            with (
                ui.expansion("More choices")
                .props("dense dense-toggle")
                .props('data-testid="more"')
            ):
                self.seed = _number("Seed (same seed, same members)", 0, 0, 2**31)
                self.budget = _number(
                    "Candidates at most", usual.budget, 512, 10**6
                ).props('data-testid="budget"')
                self.spread = _number(
                    "Variety of candidates (0.05 to 2)", usual.spread, 0.05, 2
                )
                self.out_of_range = ui.checkbox(
                    "Try all the same if no model fires remotely like it"
                )
                self.robustness = ui.checkbox(
                    "Also try members with other conductances, currents, noise and "
                    "warmth (slower)"
                )
            self.notice = Notice()
            self.button = ui.button("Generate", icon="play_arrow", on_click=self._go)
            self.button.props("size=lg unelevated").classes("generate").props(
                'data-testid="generate"'
            )

    def allow(self, is_allowed: bool) -> None:
        """Enables or disables the button."""
        self.button.set_enabled(is_allowed)

    def _order(self) -> Order:
        config = GenerateConfig(
            budget=int(_value(self.budget)),
            spread=_value(self.spread),
            out_of_range="try" if self.out_of_range.value else "refuse",
            robustness=bool(self.robustness.value),
        )
        return Order(
            self.recording.train,
            self.recording.upload.sha256,
            self.recording.window,
            model=str(self.model.value),
            members=int(_value(self.members)),
            tolerance=_value(self.tolerance) / 100,
            seed=int(_value(self.seed)),
            config=config,
        )

    async def _go(self) -> None:
        try:
            order = self._order()
        except ValueError as error:
            self.notice.say(str(error))
            return
        job = job_for(order, self.state.folder, self.state.jobs.known)
        self.state.jobs.submit(job)
        ui.navigate.to(f"/run/{job.name}")


def _number(label: str, value: float, low: float, high: float) -> ui.number:
    number = ui.number(label, value=value, min=low, max=high)
    number.props("outlined dense")
    return number


def _value(field: ui.number) -> float:
    low, high, value = field.min, field.max, field.value
    if value is None or not low <= value <= high:
        label = field.props["label"]
        raise ValueError(f"“{label}” must be a number from {low:g} to {high:g}.")
    return float(value)
