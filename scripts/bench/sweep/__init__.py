"""Sweeps beside the engine that they drive."""
