"""Benchmarks: `python -m scripts.bench --help`, from the root of the repository.

Every command measures something beside what else could be used, prints a table, and
with `--out FILE` appends each measurement to a file as a line of JSON (`results.py`).
"""
