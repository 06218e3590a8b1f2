"""Recorded responses to injected current: their files, their step, their membrane."""

from dicjax.recordings.current_clamp.files import read_sweeps as read_sweeps
from dicjax.recordings.current_clamp.steps import (
    find_steps as find_steps,
    passive_membrane as passive_membrane,
    PassiveMembrane as PassiveMembrane,
    Steps as Steps,
)
from dicjax.recordings.current_clamp.sweeps import Sweeps as Sweeps
