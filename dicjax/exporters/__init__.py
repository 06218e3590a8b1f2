"""Models for other simulators."""

from dicjax.exporters.neuron import export_neuron as export_neuron
