"""Labels of kinds of neuron and of remedies, for people who do not program."""

from dicjax._core import in_words, Remedy
from dicjax.inference import shipped_models


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


def model_options() -> dict[str, str]:
    """Labels of the kinds to choose from, by the names that the pipeline knows."""
    return {x: MODELS.get(x, (x, ""))[0] for x in ("auto", *shipped_models())}


def model_note(name: str) -> str:
    return MODELS.get(name, (name, ""))[1]


def button_for(remedy: Remedy) -> str:
    if remedy.setting == "model":
        return f"Use: {model_name(remedy.value)}"
    if remedy.setting == "out_of_range":
        return "Try all the same"
    return f"Use {in_words(remedy)}"


def model_name(name: str) -> str:
    if name == "auto":
        return "kind chosen for you"
    return f"{MODELS[name][0]} ({name})" if name in MODELS else name
