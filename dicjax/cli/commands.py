"""The commands, and how one of them is run."""

import warnings

import tyro

from dicjax._core import advice_of, as_option
from dicjax.cli import configure_jax
from dicjax.cli.certifying import Certify
from dicjax.cli.common import note, WORDS
from dicjax.cli.examples import Example
from dicjax.cli.explaining import Explain
from dicjax.cli.exporting import Export
from dicjax.cli.learning import Adapt, Train
from dicjax.cli.operating import Operator
from dicjax.cli.populating import Dic, Features, Generate, Infer, Simulate
from dicjax.cli.serving import App
from dicjax.cli.sweeping import Sweep


# Each class gives its command its name.
Populations = Generate | Infer | Features | Simulate | Dic | Certify | Explain | Export
Commands = App | Populations | Train | Adapt | Operator | Sweep | Example


def run(args: list[str] | None) -> int:
    """Runs the command that the arguments name, and returns its exit status."""
    command = tyro.cli(
        Commands,
        args=args,
        prog="dicjax",
        description="Spike times in, validated populations of neuron models out. "
        "`dicjax --version` prints the version.",
        registry=WORDS,
    )
    configure_jax()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        status = command.execute()
    for warning in caught:
        if warning.category is UserWarning:
            note(advice_of(warning.message).said(as_option))
    return status
