"""One adapter per simulator for `bench_simulation.py`, and what they share.

Nothing here but `with_dicjax` needs dicjax, so that a peer can live in an environment
of its own.
"""
