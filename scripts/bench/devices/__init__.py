"""Simulation and training on the devices of this machine."""
