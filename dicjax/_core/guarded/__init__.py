"""Work on files of strangers, in a process with limits of time and memory.

A few damaged or hostile bytes can make a library loop for ever, fill the memory, crash
Python, follow links to other files, or load something from a network. The process of
[`apart`][dicjax._core.guarded.process.apart] does none of that.
"""

from dicjax._core.guarded.process import (
    apart as apart,
    in_this_process as in_this_process,
    Limits as Limits,
    limits_of as limits_of,
    Overrun as Overrun,
)
from dicjax._core.guarded.refusals import Forbidden as Forbidden
