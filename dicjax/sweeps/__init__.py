"""Sweeps over many machines: seeded, resumable, run by existing schedulers."""

from dicjax._core import Swept as Swept
from dicjax.sweeps.config import Config as Config, read_config as read_config
from dicjax.sweeps.executors import (
    Dask as Dask,
    Executor as Executor,
    Here as Here,
    Processes as Processes,
    Submitit as Submitit,
)
from dicjax.sweeps.learned import (
    swept_dataset as swept_dataset,
    swept_library as swept_library,
)
from dicjax.sweeps.run import (
    read_sweep as read_sweep,
    run_sweep as run_sweep,
    Standing as Standing,
    standing as standing,
)
