"""Spike times in, validated population out: what the command line and the app call."""

import dataclasses
import functools
import pathlib
import time

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from dicjax._core import (
    Advice,
    check_numbers,
    holding_interrupts,
    is_checkpoint,
    on_host,
    Progress,
    Remedy,
    short,
    Stage,
    versions,
)
from dicjax.generation.choice import choose
from dicjax.generation.config import GenerateConfig
from dicjax.generation.delivery import (
    certificate_of,
    delivered,
    most_diverse,
    stopped,
    tried_anew,
    untested,
)
from dicjax.generation.result import Generated
from dicjax.generation.search import INTERRUPTIONS, search
from dicjax.generation.state import Problem
from dicjax.inference import (
    Checkpoint,
    checkpoint_folder,
    load_checkpoint,
    Posterior,
    posterior_of,
    PRIORS,
    read_trains,
    shipped_checkpoint,
    shipped_models,
)
from dicjax.neurons import MODELS
from dicjax.populations import window_for
from dicjax.recordings import examine
from dicjax.spikes import (
    AnyTrains,
    as_target,
    as_train,
    as_trains,
    Features,
    features_of,
    IRREGULAR,
    pattern_of,
    spike_features,
    SpikeTrain,
    Target,
)


AUTO = ("stg", "stg-prinz")  # what "auto" chooses from
MAX_DISTANCE = 1.6  # factor by which the nearest members may miss a recording
MOST_SILENT = 0.5  # of a recording, which one interval takes
FEW_SPIKES = 40  # below which a user is warned
UNLIKE = (
    "is unlike anything the encoder knows: merged cells, or intervals more random than "
    "the model's. Do not rely on the dynamic input conductances read from it"
)
UNKNOWN = f"The recording {UNLIKE}. Models are still judged by simulation."


class OutOfRange(ValueError):
    """A recording that a model cannot fire like; the message says why."""


@on_host()
def infer(
    trains: AnyTrains,
    model: str = "stg",
    *,
    prior: str = "any",
    checkpoint: pathlib.Path | None = None,
) -> Posterior:
    """Infers the dynamic input conductances (g_s, g_u) of neurons from their spikes.

    **Arguments:**

    - `trains`: spike times, in ms, of one neuron each: a sequence of arrays or of
        [`dicjax.SpikeTrain`][]s, one array with a row per train, padded with infinity,
        or what holds such an array, as a [`dicjax.Run`][] or a
        [`dicjax.Trajectory`][].
    - `model`: the model of these neurons.
    - `prior`: which neurons the posterior is over: "recipe", draws of the model's
        recipe, uniform in (g_s, g_u) for most models; "box", neurons with uniform
        conductances; "any", both and more of what is rare among them.
    - `checkpoint`: a trained encoder; the shipped one by default.

    **Returns:**

    A [`dicjax.Posterior`][] with a row per train. Its `in_distribution` shows which
    trains resemble those that the encoder was trained on.

    **Raises:**

    - `ValueError`: if there is no such model, checkpoint or prior, or a train is
        unsorted, negative, not finite or shorter than five spikes.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    checked = as_trains(trains)
    if not len(checked):
        raise ValueError("There are no spike trains to infer anything from.")
    if prior not in PRIORS:
        raise ValueError(f"There is no prior {prior!r}; choose one of {PRIORS}.")
    return _read(checkpoint_for(model, checkpoint), checked, prior)[0]


def _read(loaded: Checkpoint, trains, prior: str = "any"):
    """A posterior with a row per train, and the encoder's summary of each."""
    if prior == "recipe" and loaded.neuron.required_recipe.bounded:
        prior = "box"  # which is what the recipe draws from
    reading = read_trains(loaded.encoder, trains, prior)
    targets = jax.tree.map(np.asarray, spike_features(trains))
    ranks = loaded.calibration.ranks_of(prior, targets.label)
    posterior = dataclasses.replace(
        posterior_of(loaded.encoder, reading, ranks),
        distance=loaded.library.distances(targets),
        max_distance=MAX_DISTANCE,
        max_anomaly=float(loaded.calibration.max_anomaly[PRIORS.index(prior)]),
    )
    return posterior, np.asarray(reading.latent)


def suit(train: Float[np.ndarray, " spikes"] | SpikeTrain) -> str:
    """The stomatogastric model whose simulated members fire most like a train."""
    return _load("auto", None, features_of(as_train(train)))[2][0]


@on_host()
def generate(
    key: Key[Array, ""],
    train: Float[np.ndarray, " spikes"] | SpikeTrain,
    *,
    model: str = "auto",
    num: int = 1000,
    tolerance: float = 0.10,
    config: GenerateConfig = GenerateConfig(),
    checkpoint: pathlib.Path | None = None,
    on_progress: Progress | None = None,
) -> Generated:
    """Generates a population that provably fires like a recording.

    It infers the recording's DICs, builds and simulates members with those DICs, and
    compares each with the recording. Members that miss teach the next round how
    conductances move features, until `num` are valid or the budget is spent. A valid
    member counts only if it is still valid at half the time step. Delivered members
    are also tried from another start and, with `config.robustness`, under changes of
    their conductances and surroundings. If it is interrupted (by Ctrl-C, or by
    [`dicjax.Cancelled`][] from `on_progress`), it returns what earlier rounds found.

    **Arguments:**

    - `key`: everything random follows from it.
    - `train`: spike times, in ms.
    - `model`: a model's name, the folder of a checkpoint, or "auto" for the
        stomatogastric model of which most members fire like the train in a first round,
        and do so from another start. For a checkpoint of a
        neuron that a Python file declares, that file, such as "folder/neuron.py", which
        is run.
    - `num`: how many valid members are wanted.
    - `tolerance`: how far each feature may be off, as a share.
    - `config`: the budget and other choices.
    - `checkpoint`: a trained encoder; the shipped one by default.
    - `on_progress`: called with (stage, valid members, `num`), often.

    **Raises:**

    - `ValueError`: if the train is bad or silent, the model unknown, or a number too
        small.
    - [`dicjax.OutOfRange`][]: if no member of the model fires remotely like
        the recording, unless `config.out_of_range` is "try".
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    started = time.time()
    report = on_progress or (lambda stage, done, total: None)
    if num < 1:
        raise ValueError(f"`num` must be at least 1, got {num}.")
    check_numbers(config)
    train = as_train(train)
    target = as_target(train, tolerance)
    report(Stage("reading_the_encoder"), 0, num)
    every, distances, asked = _load(model, checkpoint, target.features)
    is_driven = varies(train, target, config)
    tried = asked
    if not is_driven and config.out_of_range == "refuse":
        tried = [name for name in asked if distances[name] <= MAX_DISTANCE]
    if not tried:
        raise OutOfRange(
            _out_of_range(train, target.features, every[asked[0]], distances)
        )
    problems = [_problem(every[x], target, num, config, is_driven) for x in tried]
    problem, state = choose(key, problems, report)
    state, is_interrupted, failure = search(key, problem, report, state)
    loaded, posterior = problem.checkpoint, problem.posterior
    # From here on there is something to lose.
    with holding_interrupts() as held:
        members, certificate, anew = most_diverse(problem, state), None, None
        warned = warnings_about(train, posterior)
        warned += [] if failure is None else [stopped(failure)]
        try:
            with held.released():
                if not (is_interrupted or held.interrupted):
                    certificate = certificate_of(key, problem, members, report)
                    anew = tried_anew(key, problem, members, report)
        except INTERRUPTIONS:
            is_interrupted = True
        except Exception as error:
            warned.append(untested(error))
        identity = ("config_hash", "encoder_hash", "date")
        settings = {
            "model_asked": model,
            "config": dataclasses.asdict(config),
            "distance_to_simulated_members": distances,
            "encoder": {name: loaded.header.get(name) for name in identity},
            "interrupted": is_interrupted or held.interrupted,
            # Of the spikes that are delivered.
            "dt_ms": loaded.neuron.required_recipe.dt / 2,
            "warnings": warned,
            "versions": versions("diffrax"),
        }
        seconds = time.time() - started
        tried_again = certificate, anew
        return delivered(problem, state, members, tried_again, seconds, settings)


def varies(train: SpikeTrain, target: Target, config: GenerateConfig) -> bool:
    """Whether members have a drive, and are judged by how much the recording varies.

    A recording that is silent for most of the time does not say how much it varies.
    """
    if config.drive != "auto":
        return config.drive == "always"
    intervals = train.intervals
    intervals = intervals[np.isfinite(intervals)]
    is_silent = intervals.max() > MOST_SILENT * intervals.sum()
    return target.label == IRREGULAR and not is_silent


def warnings_about(train: SpikeTrain, posterior: Posterior) -> list[str]:
    """What a user should know about a recording before trusting what follows."""
    warnings = [] if posterior.in_distribution[0] else [UNKNOWN]
    warnings += [finding.message for finding in examine(train)]
    if train.num_spikes < FEW_SPIKES:
        warnings.append(
            f"{train.num_spikes} spikes are few for a firing pattern: short random "
            f"trains can pass for bursts; {FEW_SPIKES} would do."
        )
    return warnings


def checkpoint_for(model: str, checkpoint: pathlib.Path | None = None) -> Checkpoint:
    """The checkpoint of a model, by its name or by its own folder."""
    if checkpoint is not None:
        return load_checkpoint(checkpoint, model)
    if model not in MODELS:
        if is_checkpoint(checkpoint_folder(model)):
            return load_checkpoint(model)
        raise ValueError(
            f"There is no model {model!r}; choose one of {', '.join(shipped_models())}"
            ", or the folder of a checkpoint that `dicjax adapt` made."
        )
    folder = shipped_checkpoint(model)
    return _kept(folder, model, (folder / "header.json").stat().st_mtime_ns)


@functools.cache
def _kept(folder: pathlib.Path, model: str, written: int) -> Checkpoint:
    # Read once per process, unless it is written anew.
    del written
    return load_checkpoint(folder, model)


def _load(
    model, checkpoint, target
) -> tuple[dict[str, Checkpoint], dict[str, float], list[str]]:
    """Checkpoints and how far each is from a target, and the models asked for, nearest
    first."""
    if model == "auto" and checkpoint is not None:
        raise ValueError("Name the model that the checkpoint is for.")
    every, asked = {}, list(AUTO)
    if model != "auto":
        named = checkpoint_for(model, checkpoint)
        every, asked = {named.model: named}, [named.model]
    # The others are looked at to say which model is nearer to a recording.
    for name in shipped_models() if checkpoint is None else ():
        every.setdefault(name, checkpoint_for(name))
    distances = {name: x.library.distance(target) for name, x in every.items()}
    return every, distances, sorted(asked, key=lambda name: distances[name])


def _problem(checkpoint, target: Target, num, config, is_driven: bool) -> Problem:
    """What to search for with a model; where members are driven, they vary as the
    recording does."""
    assert target.train is not None
    posterior, latent = _read(checkpoint, [target.train])
    if is_driven:
        duration, discard = window_for(checkpoint.neuron, target)
        target = target.for_span(duration - discard)
    return Problem(checkpoint, target, posterior, latent[0], num, config)


def _out_of_range(train, target: Features, loaded, distances) -> Advice:
    others = [name for name, x in distances.items() if x <= MAX_DISTANCE]
    if others:
        remedy = "try ", Remedy("model", others[0]), ", which comes nearer"
    else:
        anyway = Remedy("out_of_range", "try")
        remedy = "no model that ships can; to search all the same, use ", anyway
    miss = loaded.library.miss(target)
    name, compared, _ = pattern_of(target)
    values = [(x.words, short(float(x.read(target))), x.unit) for x in compared]
    activity = ", ".join(" ".join(value).rstrip() for value in values)
    return Advice(
        f"The recording lies outside what {loaded.model} can do: it is {name} "
        f"({activity}), while {loaded.library.span(target)}"
        f"{miss and f', and {miss}'}; ",
        *remedy,
        ".",
        # A pause or a drift may be why.
        *(Advice(" ", finding.message) for finding in examine(train)),
    )
