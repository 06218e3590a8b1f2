"""The errand that uses every room below: a recording in, a validated population out."""

from dicjax.generation.config import (
    FEWEST_CANDIDATES as FEWEST_CANDIDATES,
    GenerateConfig as GenerateConfig,
)
from dicjax.generation.generate import (
    AUTO as AUTO,
    generate as generate,
    infer as infer,
    OutOfRange as OutOfRange,
    suit as suit,
    UNKNOWN as UNKNOWN,
    UNLIKE as UNLIKE,
)
from dicjax.generation.result import (
    failures_of as failures_of,
    Generated as Generated,
    grouped as grouped,
    main_failures as main_failures,
    Round as Round,
)
from dicjax.generation.search import Cancelled as Cancelled
