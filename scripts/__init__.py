"""Benchmarks, where shipped files come from, and other tools of developers."""
