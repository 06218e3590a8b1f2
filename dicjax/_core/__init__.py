"""Arrays, files and processes: what knows no neuron and no spike.

Names are listed in `__init__.pyi`, and loaded when they are first used: a process that
reads a file needs no JAX, which takes seconds to load.
"""

import lazy_loader as _lazy


__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
