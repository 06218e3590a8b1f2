"""Dynamic input conductances, and conductances that have given ones."""

from dicjax.dics.attainable import Reach as Reach, reach as reach
from dicjax.dics.conductances import (
    dics_of_one_cell as dics_of_one_cell,
    dynamic_input_conductances as dynamic_input_conductances,
    normaliser as normaliser,
    sensitivity as sensitivity,
    Threshold as Threshold,
    threshold as threshold,
)
from dicjax.dics.polytope import sample_polytope as sample_polytope
from dicjax.dics.sampling import (
    compensate as compensate,
    impose as impose,
    OK as OK,
    Population as Population,
    Potentials as Potentials,
    sample as sample,
)
from dicjax.dics.table_columns import (
    Column as Column,
    column_lines as column_lines,
    conductance_columns as conductance_columns,
    dic_columns as dic_columns,
    DICS as DICS,
    feature_columns as feature_columns,
    spike_lists as spike_lists,
    table_of as table_of,
)
