"""Tables, the report, figures, and exports to other programs."""

from dicjax.output.driven import (
    distances_in_words as distances_in_words,
    DRIVE_COLUMNS as DRIVE_COLUMNS,
    drive_columns as drive_columns,
    drive_rows as drive_rows,
    within_words as within_words,
)
from dicjax.output.exporters import (
    export_brian2 as export_brian2,
    export_csv as export_csv,
    export_jaxley as export_jaxley,
    export_neuroml as export_neuroml,
    export_neuron as export_neuron,
    export_nwb as export_nwb,
    export_xlsx as export_xlsx,
)
from dicjax.output.files import check_suffix as check_suffix
from dicjax.output.folders import (
    check_folder as check_folder,
    FORMAT as FORMAT,
    read_manifest as read_manifest,
    VERSION as VERSION,
    write_folder as write_folder,
    write_manifest as write_manifest,
)
from dicjax.output.frames import (
    to_dataframe as to_dataframe,
    to_inference_data as to_inference_data,
    to_xarray as to_xarray,
)
from dicjax.output.glossary import glossary as glossary
from dicjax.output.plots import layouts as layouts, style as style
from dicjax.output.population_files import (
    file_name as file_name,
    read_models as read_models,
    run_columns as run_columns,
    write_population as write_population,
    write_simulation as write_simulation,
)
from dicjax.output.report import (
    feature_rows as feature_rows,
    NONE as NONE,
    potentials as potentials,
    shown as shown,
    Traces as Traces,
    write_report as write_report,
)
from dicjax.output.saved_population import (
    read_population as read_population,
    StoredPopulation as StoredPopulation,
)
