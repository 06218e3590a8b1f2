"""Tables, the report, figures, and exports to other programs."""

from dicjax.output.exporters import (
    export_brian2 as export_brian2,
    export_csv as export_csv,
    export_jaxley as export_jaxley,
    export_neuron as export_neuron,
    export_nwb as export_nwb,
    export_xlsx as export_xlsx,
)
from dicjax.output.glossary import glossary as glossary
from dicjax.output.plots import (
    most_different as most_different,
    plot_comparison as plot_comparison,
    plot_responses as plot_responses,
    plot_training as plot_training,
    style as style,
)
from dicjax.output.plots.activity import (
    compared as compared,
    intervals_of as intervals_of,
    log_bins as log_bins,
    rhythm as rhythm,
    shares_of as shares_of,
)
from dicjax.output.plots.layouts import (
    correlation_words as correlation_words,
    fold_names as fold_names,
    folds_of as folds_of,
    jitter_of as jitter_of,
    raster_of as raster_of,
    ratio_axis as ratio_axis,
    round_ticks as round_ticks,
    spike_path as spike_path,
    traces_of as traces_of,
)
from dicjax.output.plots.population import (
    correlations_of as correlations_of,
    density_of as density_of,
)
from dicjax.output.plots.style import short as short
from dicjax.output.population_files import (
    check_folder as check_folder,
    file_name as file_name,
    FORMAT as FORMAT,
    read_manifest as read_manifest,
    read_models as read_models,
    run_columns as run_columns,
    VERSION as VERSION,
    write_folder as write_folder,
    write_population as write_population,
    write_simulation as write_simulation,
)
from dicjax.output.report import (
    feature_rows as feature_rows,
    potentials as potentials,
    shown as shown,
    write_report as write_report,
)
from dicjax.output.saved_population import (
    read_population as read_population,
    StoredPopulation as StoredPopulation,
)
