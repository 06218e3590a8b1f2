"""Where files that ship come from: each module makes some of them anew.

`python -m scripts.provenance.NAME`, from the root of the repository.
"""
