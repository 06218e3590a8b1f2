"""One adapter per simulator, and what they share.

Only `with_dicjax` needs dicjax, so a peer can live in an environment of its own.
"""
