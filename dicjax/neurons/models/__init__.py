"""The models that ship with dicjax."""

import functools
from collections.abc import Callable

from dicjax.neurons.models.connor_stevens import connor_stevens as connor_stevens
from dicjax.neurons.models.cortical import cortical as cortical
from dicjax.neurons.models.da import da as da
from dicjax.neurons.models.hodgkin_huxley import hodgkin_huxley as hodgkin_huxley
from dicjax.neurons.models.pospischil import pospischil as pospischil
from dicjax.neurons.models.stg import stg as stg
from dicjax.neurons.models.stg_prinz import stg_prinz as stg_prinz
from dicjax.neurons.neuron import Neuron


MODELS: dict[str, Callable[[], Neuron]] = {
    "stg": stg,
    "stg-prinz": stg_prinz,
    "da": da,
    "cortical": cortical,
    "hodgkin-huxley": hodgkin_huxley,
    "connor-stevens": connor_stevens,
    "pospischil-rs": functools.partial(pospischil, "RS"),
    "pospischil-fs": functools.partial(pospischil, "FS"),
    "pospischil-ib": functools.partial(pospischil, "IB"),
    "pospischil-lts": functools.partial(pospischil, "LTS"),
}
"""Functions that make the models that ship, by name in commands and files."""
