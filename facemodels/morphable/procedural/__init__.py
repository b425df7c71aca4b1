"""The built-in morphable model: a head written in formulas, with nothing to download."""

from facemodels.morphable.procedural.albedo import AlbedoModel as AlbedoModel
from facemodels.morphable.procedural.albedo import Complexion as Complexion
from facemodels.morphable.procedural.albedo import hair_colour as hair_colour
from facemodels.morphable.procedural.albedo import sample_complexion as sample_complexion
from facemodels.morphable.procedural.builder import albedo_model as albedo_model
from facemodels.morphable.procedural.builder import build_model as build_model
from facemodels.morphable.procedural.builder import masculinity as masculinity
from facemodels.morphable.procedural.builder import mean_head as mean_head
from facemodels.morphable.procedural.emotions import EMOTIONS as EMOTIONS
from facemodels.morphable.procedural.emotions import emotion_coefficients as emotion_coefficients
from facemodels.morphable.procedural.emotions import limit_expression as limit_expression
from facemodels.morphable.procedural.expression import EXPRESSIONS as EXPRESSIONS
from facemodels.morphable.procedural.hair import hair_shell as hair_shell
from facemodels.morphable.procedural.hair import hair_triangles as hair_triangles
