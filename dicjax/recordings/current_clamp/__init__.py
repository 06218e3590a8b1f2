"""Recorded responses to injected current: their files, their step, their membrane."""
