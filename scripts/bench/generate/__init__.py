"""Populations for targets that nobody tuned to."""
