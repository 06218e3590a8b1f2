"""One word, one meaning: what holds for the arguments of every public function."""

import functools
import inspect
import re
import warnings

import jax
import numpy as np
import pytest

import dicjax as dj
from dicjax._core import option_of, renamed_argument, replaced_argument


PUBLIC = {
    name: getattr(dj, name)
    for name in dir(dj)
    if callable(getattr(dj, name)) and not inspect.ismodule(getattr(dj, name))
}
FUNCTIONS = {
    name: value for name, value in PUBLIC.items() if not inspect.isclass(value)
}
UNITS = {
    "V": "mV",
    "V0": "mV",
    "Ca0": "µM",
    "g": "mS/cm²",
    "dt": "ms",
    "duration": "ms",
    "discard": "ms",
    "save_every": "ms",
    "warming": "°C",
}
KINDS = {"differences": dj.Differences, "autodiff": dj.Autodiff}
VAGUE = {"at", "x", "y", "data", "info", "args", "kwargs", "options", "where"}
AS_ELSEWHERE = {
    "feature_slopes": {"where"},
    "refine": {"where"},
}  # as in `equinox.tree_at`
COUNTED = re.compile(r"(at most )?how many\b|(the )?number of\b(?! the first)")


def parameters_of(function) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def arguments_in(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    docstring = inspect.cleandoc(docstring)
    section = re.search(
        r"\*\*Arguments:\*\*\n\n(.*?)(?=\n\n\*\*|\n\n\?\?\?|\Z)", docstring, re.S
    )
    entries = {}
    if section:
        # One line may describe several: "`duration`: ..., in ms; `discard`: ...".
        heads = list(re.finditer(r"(?:^- |[;,] )((?:`\w+`,? ?)+):", section[1], re.M))
        ends = [head.start() for head in heads[1:]] + [len(section[1])]
        for head, end in zip(heads, ends, strict=True):
            text = " ".join(section[1][head.end() : end].split())
            entries |= dict.fromkeys(re.findall(r"`(\w+)`", head[1]), text)
    return entries


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_have_the_names_that_they_have_elsewhere(name):
    parameters = parameters_of(FUNCTIONS[name])
    assert not VAGUE & set(parameters) - AS_ELSEWHERE.get(name, set())
    for argument in parameters:
        # Symbols are as in papers, all else is in small words.
        assert re.fullmatch(r"(V|Ca|I)(_\w+|0)?|[a-z][a-z0-9_]*", argument), argument


@pytest.mark.parametrize("name", FUNCTIONS)
def test_keys_come_first_and_progress_comes_by_name(name):
    parameters = parameters_of(FUNCTIONS[name])
    positional = [x for x, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    if "key" in positional:
        assert positional[0] == "key"
    assert "on_progress" not in positional


@pytest.mark.parametrize("name", FUNCTIONS)
def test_counts_and_potentials_are_named_as_such(name):
    for argument, text in arguments_in(FUNCTIONS[name].__doc__).items():
        if COUNTED.match(text) and argument != "first":
            assert argument.startswith(("num", "max_")), argument
        if re.match(r"(the )?potentials?\b", text):
            assert argument in ("V", "V0", "Ca0"), argument


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_says_what_it_is(name):
    assert PUBLIC[name].__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described_with_its_unit(name):
    parameters, docstring = parameters_of(FUNCTIONS[name]), FUNCTIONS[name].__doc__
    described = arguments_in(docstring)
    if len(parameters) > 1 or described:
        assert set(parameters) <= set(re.findall(r"`(\w+)`", docstring))
    for argument, text in described.items():
        if argument in UNITS and "as [`dicjax." not in text and "as in [`" not in text:
            assert UNITS[argument] in text, (argument, text)


def test_old_names_of_arguments_still_work_and_name_the_new_ones():
    @renamed_argument("at", "V")
    def double(V: float = 1.0) -> float:
        return 2 * V

    with pytest.warns(DeprecationWarning, match="`at` of `double` is now called `V`"):
        assert double(at=3.0) == 6.0  # pyright: ignore[reportCallIssue]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (double(), double(2.0), double(V=4.0)) == (2.0, 4.0, 8.0)
    with pytest.raises(TypeError, match="give `V` alone"):
        double(at=1.0, V=2.0)  # pyright: ignore[reportCallIssue]


def test_arguments_that_went_become_those_that_took_their_place():
    @replaced_argument("save", "every", {"spikes": None, "traces": 0.1})
    def kept(every: float | None = None) -> float | None:
        return every

    for given, every in (
        ({"save": "traces"}, 0.1),
        ({"save": "traces", "every": 2.0}, 2.0),
        ({"save": "spikes", "every": 2.0}, None),
    ):
        with pytest.warns(DeprecationWarning, match=f"`every={every!r}`"):
            assert kept(**given) == every  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (kept(), kept(3.0), kept(every=4.0)) == (None, 3.0, 4.0)
    with pytest.raises(ValueError, match="'spikes', 'traces'.* 'gates'"):
        kept(save="gates")  # pyright: ignore[reportCallIssue]


def test_options_were_once_named_with_their_settings_beside_them():
    fine = functools.partial(option_of, "how", kinds=KINDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fine(dj.Differences(0.3), step=None) == dj.Differences(0.3)
    for given, step, option in (
        ("differences", None, dj.Differences()),
        ("differences", 0.3, dj.Differences(0.3)),
        (dj.Differences(), 0.3, dj.Differences(0.3)),
        ("autodiff", 0.3, dj.Autodiff()),
    ):
        with pytest.warns(
            DeprecationWarning, match=re.escape(f"`how=dicjax.{option}`")
        ):
            assert fine(given, step=step) == option
    for given in ("guess", 3, None):
        with pytest.raises(ValueError, match=f"`how`.* {given!r}"):
            fine(given)


@pytest.mark.parametrize("function", (dj.compensate, dj.impose, dj.path))
def test_potentials_were_once_called_at(function):
    arguments = parameters_of(function)
    required = {
        name: dj.stg() if name == "neuron" else np.ones((1, 8))
        for name, p in arguments.items()
        if p.default is p.empty
    }
    required |= {"targets": np.array([(-3.0, 4.0)])}
    required |= {"key": jax.random.key(0)} if "key" in arguments else {}
    with (
        pytest.warns(DeprecationWarning, match=f"`{function.__name__}`"),
        pytest.raises(ValueError, match="`V` must be 'V_ref', 'V_th' or potentials"),
    ):
        function(**required, at="elsewhere")


# Members


STG = dj.stg()


@pytest.fixture(scope="module")
def population() -> dj.Population:
    """Four members, the second of which is not ok."""
    g = np.asarray(STG.default_g) * np.geomspace(0.9, 1.1, 4)[:, None]
    targets, status = np.full((4, 2), (5.0, 4.0)), np.array([0, 1, 0, 0], np.int32)
    return dj.Population(g, targets, status, np.zeros(4), np.ones(4, np.int32))


TAKES_MEMBERS = {
    "dynamic_input_conductances": lambda g: dj.dynamic_input_conductances(
        STG, g, -50.0
    ),
    "threshold": lambda g: dj.threshold(STG, g),
    "simulate": lambda g: dj.simulate(STG, g, 500.0, max_spikes=64),
    "attribute": lambda g: dj.attribute(STG, g).shares,
    "impose": lambda g: dj.impose(STG, g, np.full((3, 2), (-3.0, 4.0))),
    "coverage": lambda g: dj.coverage(g, g),
    "participation_ratio": dj.participation_ratio,
    "entropy_dimension": dj.entropy_dimension,
    "feature_slopes": lambda g: dj.feature_slopes(
        STG, g, duration=1500.0, discard=500.0
    ),
}


@pytest.mark.parametrize("name", TAKES_MEMBERS)
def test_members_may_be_a_population_or_an_array(name, population):
    use = TAKES_MEMBERS[name]
    of_population = jax.tree.leaves(use(population))
    of_array = jax.tree.leaves(use(population.g[[0, 2, 3]]))
    for ours, theirs in zip(of_population, of_array, strict=True):
        np.testing.assert_array_equal(ours, theirs)
