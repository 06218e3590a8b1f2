"""Figures of a recording and of a population that fires like it.

Every function returns a `matplotlib.figure.Figure` and leaves matplotlib's own state
alone. Orange is what was recorded or follows from it, blue is what was simulated.
"""

from dicjax.output.plots import layouts as layouts, style as style
from dicjax.output.plots.activity import (
    plot_features as plot_features,
    plot_isis as plot_isis,
    plot_raster as plot_raster,
    plot_traces as plot_traces,
)
from dicjax.output.plots.explanation import (
    plot_attribution as plot_attribution,
    plot_identifiability as plot_identifiability,
    plot_reachability as plot_reachability,
)
from dicjax.output.plots.layouts import most_different as most_different
from dicjax.output.plots.networks import (
    plot_comparison as plot_comparison,
    plot_responses as plot_responses,
    plot_training as plot_training,
)
from dicjax.output.plots.population import (
    plot_conductances as plot_conductances,
    plot_correlations as plot_correlations,
    plot_drive as plot_drive,
    plot_posterior as plot_posterior,
    plot_yield as plot_yield,
)
