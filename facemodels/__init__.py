"""Faces taken apart and put together again: identity, expression, pose and illumination as separate codes."""
