"""The models that ship with dicjax, by the name that files and doors use."""

from collections.abc import Callable

from dicjax.models.stg import stg as stg
from dicjax.models.stg_prinz import stg_prinz as stg_prinz
from dicjax.neuron import Neuron


MODELS: dict[str, Callable[[], Neuron]] = {"stg": stg, "stg-prinz": stg_prinz}
