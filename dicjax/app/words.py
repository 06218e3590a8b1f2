"""What the app calls things, for people who do not program."""

import re

from dicjax.checkpoint import shipped_models


MODELS = {
    "auto": (
        "Choose for me",
        "tries both crab neurons and takes the one that fires most like the recording",
    ),
    "stg": (
        "Crab stomatogastric neuron, fast",
        "bursts every 0.08 to 0.5 s (Liu et al. 1998)",
    ),
    "stg-prinz": (
        "Crab stomatogastric neuron, slow",
        "bursts every 0.3 to 6 s, as in real pyloric rhythms (Prinz et al. 2003)",
    ),
    "da": ("Midbrain dopamine neuron", "fires slowly or in bursts (Qian et al. 2014)"),
    "pospischil-ib": (
        "Bursting cortical cell",
        "under a constant current (Pospischil et al. 2008)",
    ),
}
STAGES = {
    "reading the encoder": "Reading the recording",
    "simulating the posterior": "Simulating the first candidates",
    "correcting": "Correcting those that missed",
    "widening": "Looking for more different ones",
    "halving the time step": "Checking them at half the time step",
    "certifying": "Trying them under other conditions",
    "writing": "Writing tables, figures and the report",
}
# What messages say to users of the command line, and what that is here.
_WINDOW = re.compile(r"--window (\d+) (\d+)")  # ms, where pages have seconds
_OPTIONS = (
    (r"`?--out-of-range try`? searches", "“Try all the same” below searches"),
    (r"try --model (\S+), which", r"choose the model \1, which"),
    (r"larger `--budget`", "larger number of candidates at most"),
    (r'unit="([^"]*)" \(--unit \S+ on the command line\)', r"\1"),
    (r"read one unit alone, by unit_id \(--unit-id on the command line\)", "split it"),
)


def model_options() -> dict[str, str]:
    """The models that can be chosen, by the names that the pipeline knows."""
    names = ("auto", *shipped_models())
    return {name: MODELS.get(name, (name, ""))[0] for name in names}


def model_note(name: str) -> str:
    """What a model does, in half a sentence."""
    return MODELS.get(name, (name, ""))[1]


def model_name(name: str) -> str:
    """A model as a reader knows it."""
    return f"{MODELS[name][0]} ({name})" if name in MODELS else name


def stage(said: str) -> str:
    """A stage of the pipeline, in words."""
    name, _, which = said.partition(", ")
    words = STAGES.get(name, name.capitalize())
    return f"{words} ({which})" if which else words


def plain(message: str) -> str:
    """A message without the options of the command line."""
    in_seconds = lambda x: f"the window {int(x[1]) / 1e3:g} to {int(x[2]) / 1e3:g} s"
    message = _WINDOW.sub(in_seconds, message)
    for option, words in _OPTIONS:
        message = re.sub(option, words, message)
    return message


def duration(seconds: int | float) -> str:
    """A time span as people say it."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
