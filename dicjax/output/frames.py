"""Results as other libraries of data analysis hold them: tables, arrays, posteriors."""

from typing import Any, TYPE_CHECKING

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Key

from dicjax._core import on_host
from dicjax.dics import Column, feature_columns, Population
from dicjax.generation import Generated
from dicjax.inference import Posterior
from dicjax.output.files import load
from dicjax.output.saved_population import stored, StoredPopulation, unit_and_meaning
from dicjax.spikes import Features


if TYPE_CHECKING:
    import pandas

NUM_DRAWS = 4000
MEMBER_COLUMNS = {
    "residual": "largest absolute difference between input conductances and targets",
    "num_draws": "free draws until the member was feasible",
    "condition": "condition number of the equations",
}
VARIABLES = {
    "g_s": ("1", "slow input conductance, divided by the model's normaliser"),
    "g_u": ("1", "ultraslow input conductance, divided by the model's normaliser"),
    "g_f": ("1", "fast input conductance, divided by the model's normaliser"),
    "V_th": ("mV", "the neuron's own threshold"),
}


@on_host()
def to_dataframe(
    of: Generated | StoredPopulation | Population | Features,
) -> "pandas.DataFrame":
    """A result as a DataFrame of pandas, with a row per neuron.

    The index holds the numbers of members. `attrs["units"]` and `attrs["meanings"]` say
    what columns hold. Undefined values are nan. Needs pandas:
    `pip install "dicjax[pandas]"`.

    **Arguments:**

    - `of`: a population that `generate` returned or [`dicjax.read_population`][] read
        (columns as in `models.parquet`: conductances in mS/cm², input conductances,
        features, `accepted`); members of [`dicjax.compensate`][] or
        [`dicjax.impose`][]; or what [`dicjax.spike_features`][] measured.

    **Raises:**

    - `ValueError`: if pandas is not installed.
    - `TypeError`: if JAX traces an argument, since this runs on the host, or if `of` is
        none of these.
    """
    pandas = load("pandas", "pandas")
    if isinstance(of, Generated | StoredPopulation):
        table = stored(of).models
        said = {name: unit_and_meaning(table, name) for name in table.column_names}
        frame = table.to_pandas()
    else:
        columns = _columns(of)
        said = {name: about for name, (_, *about) in columns.items()}
        frame = pandas.DataFrame({name: x for name, (x, *_) in columns.items()})
    frame.attrs["units"] = {name: unit for name, (unit, _) in said.items()}
    frame.attrs["meanings"] = {name: meaning for name, (_, meaning) in said.items()}
    return frame.set_index("member") if "member" in frame else frame


@on_host()
def to_xarray(
    posterior: Posterior, *, key: Key[Array, ""] | None = None, num: int = NUM_DRAWS
) -> Any:
    """Draws from posteriors, as a `Dataset` of xarray.

    Its variables are `g_s` and `g_u` and, where the model defines them, `g_f` (all
    without unit) and `V_th` (mV), with the dimensions `chain` (of length 1), `draw` and
    `train`. Draws of (g_s, g_u) go together, and so do those of (g_f, V_th); the
    encoder says nothing about how the two pairs depend on each other, so that they are
    drawn independently. Needs xarray: `pip install "dicjax[arviz]"`.

    **Arguments:**

    - `posterior`: what [`dicjax.infer`][] returned, or `posterior` of a generated
        population.
    - `key`: for the draws; the same ones by default.
    - `num`: number of draws for each train.

    **Raises:**

    - `ValueError`: if xarray is not installed or `num` is no positive number.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    xarray = load("xarray", "arviz")
    if num < 1:
        raise ValueError(f"`num` must be at least 1 draw, got {num}.")
    first, second = jr.split(jr.key(0) if key is None else key)
    draws = dict(zip(("g_s", "g_u"), _draws(posterior, first, num), strict=True))
    if isinstance(posterior.fast, Posterior):
        pair = _draws(posterior.fast, second, num)
        draws |= dict(zip(("g_f", "V_th"), pair, strict=True))
    dims = ("chain", "draw", "train")
    variables = {}
    for name, x in draws.items():
        unit, meaning = VARIABLES[name]
        variables[name] = (dims, x, {"units": unit, "long_name": meaning})
    sizes = (1, num, len(posterior.weights))
    numbers = {dim: np.arange(size) for dim, size in zip(dims, sizes, strict=True)}
    inside = {"in_distribution": ("train", posterior.in_distribution)}
    about = {"inference_library": "dicjax"}
    return xarray.Dataset(variables, {**numbers, **inside}, about)


@on_host()
def to_inference_data(
    posterior: Posterior, *, key: Key[Array, ""] | None = None, num: int = NUM_DRAWS
) -> Any:
    """Draws from posteriors, as ArviZ plots and summarises them.

    Returns an `InferenceData` up to ArviZ 0.x and, from 1.0, a `DataTree` of xarray,
    which took its place. Its group `posterior` is what [`dicjax.to_xarray`][] returns.
    Draws are independent, so that diagnostics of chains say nothing about them. Needs
    ArviZ: `pip install "dicjax[arviz]"`.

    **Arguments:**

    - `posterior`, `key`, `num`: as in [`dicjax.to_xarray`][].

    **Raises:**

    - `ValueError`: if ArviZ is not installed or `num` is no positive number.
    - `TypeError`: if JAX traces an argument, since this runs on the host.
    """
    arviz = load("arviz", "arviz")
    draws = to_xarray(posterior, key=key, num=num)
    if int(arviz.__version__.partition(".")[0]) < 1:
        return arviz.InferenceData(posterior=draws)
    return load("xarray", "arviz").DataTree.from_dict({"posterior": draws})


def _columns(of: Population | Features) -> dict[str, Column]:
    if isinstance(of, Features):
        host = jax.tree.map(np.asarray, of)
        counts = {
            name: (np.atleast_1d(getattr(host, name)), "1", f"number of {what}")
            for name, what in (("num_spikes", "spikes"), ("num_bursts", "bursts"))
        }
        return counts | feature_columns(host)
    if not isinstance(of, Population):
        raise TypeError(
            "to_dataframe takes a generated or saved population, members of "
            f"`compensate` or `impose`, or features, got {type(of).__name__}."
        )
    g = np.asarray(of.g)
    channels = of.channels or tuple(map(str, range(g.shape[1])))
    columns: dict[str, Column] = {
        "member": (np.arange(len(g)), "", "number of the member"),
        **{
            f"g_{name}": (x, "mS/cm2", f"maximal conductance of {name}")
            for name, x in zip(channels, g.T, strict=True)
        },
    }
    status = np.array(of.names)[np.asarray(of.status)]
    columns["status"] = status, "", f"what became of it: {', '.join(of.names)}"
    for name, meaning in MEMBER_COLUMNS.items():
        if (values := getattr(of, name)) is not None:
            columns[name] = np.asarray(values), "1", meaning
    return columns


def _draws(posterior: Posterior, key: Key[Array, ""], num: int) -> np.ndarray:
    """Of both numbers, each with the axes `chain`, `draw` and `train`."""
    return np.asarray(posterior.sample(key, num)).transpose(2, 1, 0)[:, None]
