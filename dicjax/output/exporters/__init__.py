"""Exports of models to other simulators, and of populations to other programs."""

from dicjax.output.exporters.nwb import export_nwb as export_nwb
from dicjax.output.exporters.scripts import (
    export_brian2 as export_brian2,
    export_jaxley as export_jaxley,
    export_neuroml as export_neuroml,
    export_neuron as export_neuron,
)
from dicjax.output.exporters.spreadsheets import (
    export_csv as export_csv,
    export_xlsx as export_xlsx,
)
