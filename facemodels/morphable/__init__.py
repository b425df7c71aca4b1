"""Morphable models: the built-in one made by code, and those of others from files that the user has."""

from facemodels.morphable.model import MorphableModel as MorphableModel
