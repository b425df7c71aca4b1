"""Cameras, rasterization and shading, in plain torch, on any device."""

from facemodels.rendering.camera import euler_to_matrix as euler_to_matrix
from facemodels.rendering.camera import matrix_to_euler as matrix_to_euler
from facemodels.rendering.camera import project_perspective as project_perspective
from facemodels.rendering.camera import project_weak_perspective as project_weak_perspective
from facemodels.rendering.geometry import Surface as Surface
from facemodels.rendering.geometry import close_holes as close_holes
from facemodels.rendering.geometry import fill_holes as fill_holes
from facemodels.rendering.geometry import render_geometry as render_geometry
from facemodels.rendering.geometry import render_surface as render_surface
from facemodels.rendering.rasterizer import Fragments as Fragments
from facemodels.rendering.rasterizer import interpolate as interpolate
from facemodels.rendering.rasterizer import rasterize as rasterize
from facemodels.rendering.rasterizer import vertex_normals as vertex_normals
from facemodels.rendering.shading import from_sfsnet as from_sfsnet
from facemodels.rendering.shading import irradiance_basis as irradiance_basis
from facemodels.rendering.shading import light_from_direction as light_from_direction
from facemodels.rendering.shading import shade as shade
from facemodels.rendering.shading import to_sfsnet as to_sfsnet
