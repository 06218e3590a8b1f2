"""What other rooms may use, once: for type checkers, and for `__init__.py` to load."""

from .advice import (
    Advice as Advice,
    advice_of as advice_of,
    as_argument as as_argument,
    as_option as as_option,
    CLEANING as CLEANING,
    in_words as in_words,
    Remedy as Remedy,
)
from .arrays import (
    AnyArray as AnyArray,
    cast_floats as cast_floats,
    in_float32 as in_float32,
    in_one_row as in_one_row,
    leading_axes as leading_axes,
    leading_shape as leading_shape,
    of_cells as of_cells,
    optional as optional,
    OrNone as OrNone,
    Scalar as Scalar,
    strong as strong,
    strong_pair as strong_pair,
    varying_with as varying_with,
)
from .batching import (
    batches as batches,
    compiled_size as compiled_size,
    in_batches as in_batches,
    padded as padded,
    stacked as stacked,
    widened as widened,
)
from .checkpoint_format import (
    check_files as check_files,
    described_by_header as described_by_header,
    filled as filled,
    is_checkpoint as is_checkpoint,
    leaves as leaves,
    read_header as read_header,
    shipped as shipped,
    write_checkpoint as write_checkpoint,
)
from .checks import (
    check_concrete as check_concrete,
    check_dt as check_dt,
    check_numbers as check_numbers,
    check_resolved as check_resolved,
    check_simulation as check_simulation,
    check_start as check_start,
    check_stimulus as check_stimulus,
    check_targets as check_targets,
    check_times as check_times,
    check_tolerance as check_tolerance,
    conductances_of as conductances_of,
    Count as Count,
    Current as Current,
    FINEST_DT as FINEST_DT,
    HasConductances as HasConductances,
    is_traced as is_traced,
    jax_conductances_of as jax_conductances_of,
    LONGEST as LONGEST,
    members_of as members_of,
    Milliseconds as Milliseconds,
    Noise as Noise,
    on_host as on_host,
    Positive as Positive,
    Potential as Potential,
    Seed as Seed,
    SomeShare as SomeShare,
    Tolerance as Tolerance,
    untraced as untraced,
    Within as Within,
)
from .deprecation import (
    option_of as option_of,
    renamed_argument as renamed_argument,
    replaced_argument as replaced_argument,
)
from .devices import (
    constrain as constrain,
    fetch as fetch,
    Placement as Placement,
    placement as placement,
    put as put,
)
from .files import (
    beside as beside,
    check_destination as check_destination,
    deliver as deliver,
    digest as digest,
    KEPT as KEPT,
    optional_library as optional_library,
    reason_of as reason_of,
    replacing as replacing,
    replacing_folder as replacing_folder,
    Rescued as Rescued,
    sha256 as sha256,
    shipped_path as shipped_path,
    versions as versions,
)
from .fit import (
    begin_fit as begin_fit,
    clipped as clipped,
    decay_of as decay_of,
    descend as descend,
    finite_adam as finite_adam,
    fit_network as fit_network,
    improve as improve,
    keep_state as keep_state,
    Kept as Kept,
    kept_state as kept_state,
    train as train,
)
from .guarded import (
    apart as apart,
    Forbidden as Forbidden,
    in_this_process as in_this_process,
    Limits as Limits,
    limits_of as limits_of,
    Overrun as Overrun,
)
from .linear_algebra import (
    condition_number as condition_number,
    least_change as least_change,
    least_squares as least_squares,
    orthonormal as orthonormal,
    solve as solve,
)
from .processes import (
    from_first as from_first,
    handed_out as handed_out,
    Held as Held,
    holding_interrupts as holding_interrupts,
    is_first as is_first,
    only_first as only_first,
    reports as reports,
)
from .progress import (
    as_progress as as_progress,
    duration as duration,
    FIRST_RUN as FIRST_RUN,
    is_first_run as is_first_run,
    Pace as Pace,
    Progress as Progress,
    renamed as renamed,
    Stage as Stage,
    stage_words as stage_words,
)
from .store import Busy as Busy, Row as Row, Store as Store, Swept as Swept
from .words import (
    counted as counted,
    described as described,
    listed as listed,
    outcome as outcome,
    short as short,
    spread as spread,
)
