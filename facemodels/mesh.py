"""A coloured triangle mesh, and its files: PLY, OBJ and GLB."""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from facemodels.errors import InputError
from facemodels.files import check_place, whole_files

FORMATS = (".ply", ".obj", ".glb")
"""Endings of the files that a mesh can be written to."""

_METRES = 1e-3  # of a millimetre: glTF has metres


@dataclass(frozen=True)
class Mesh:
    """A coloured triangle mesh.

    Attributes:
        vertices: In mm; x to the viewer's right (the subject's left), y up, z to the viewer. Shape `(vertices, 3)`.
        triangles: Vertex numbers, anticlockwise seen from outside, shape `(triangles, 3)`.
        colours: Of the vertices, in [0, 1], shape `(vertices, 3)`.
        uv: Texture coordinates, v up, shape `(vertices, 2)`, or None.
        texture: In [0, 1], first row on top, shape `(3, height, width)`, or None.

    Raises:
        ValueError: The shapes do not fit together, or a texture comes without coordinates.
    """

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    colours: Float[Tensor, "vertices 3"]
    uv: Float[Tensor, "vertices 2"] | None = None
    texture: Float[Tensor, "3 height width"] | None = None

    def __post_init__(self) -> None:
        count = len(self.vertices)
        for name, value, width in (("colours", self.colours, 3), ("uv", self.uv, 2)):
            if value is not None and tuple(value.shape) != (count, width):
                raise ValueError(f"Mesh: {name} must have shape {(count, width)}, got {tuple(value.shape)}")
        if (self.uv is None) != (self.texture is None):
            raise ValueError("Mesh: uv and texture belong together; give both or neither")

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the mesh in the format that the name ends in, whole or not at all.

        | ending | unit | colours | |
        | --- | --- | --- | --- |
        | .ply | mm | of the vertices | binary |
        | .obj | mm | a texture, as `NAME.mtl` and `NAME.png` beside it; of the vertices without one | text |
        | .glb | m | a texture inside; of the vertices without one | binary glTF 2, which web pages show |

        Args:
            path: File to write; one that exists is replaced.

        Returns:
            The files that were written, `path` last.

        Raises:
            InputError: The name ends otherwise, there is no such folder, the disk is full, or trimesh is not installed.

        Example:
            >>> import tempfile, torch
            >>> corners = torch.tensor([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0], [0.0, 20.0, 0.0]])
            >>> mesh = Mesh(corners, torch.tensor([[0, 1, 2]]), torch.full((3, 3), 0.5))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     files = mesh.save(f"{folder}/triangle.glb")
            >>> [file.name for file in files]
            ['triangle.glb']
        """
        path = Path(path)
        check_name(path)
        contents = self._contents(path)
        files = [path.with_name(name) for name in contents]
        with whole_files(*files) as places:
            for place, content in zip(places, contents.values(), strict=True):
                place.write_bytes(content)
        return files

    def _contents(self, path: Path) -> dict[str, bytes]:
        """What to write, by the files' names; the mesh itself last."""
        ending = path.suffix.lower()
        mesh = self._as_trimesh(ending)
        if ending == ".glb":
            return {path.name: mesh.export(file_type="glb", include_normals=True)}
        if ending == ".ply" or self.texture is None:
            return {path.name: _bytes(mesh.export(file_type=ending[1:]))}
        picture, material = f"{path.stem}.png", f"{path.stem}.mtl"
        text, extra = _trimesh().exchange.obj.export_obj(
            mesh, include_normals=True, return_texture=True, mtl_name=material
        )
        name = next(name for name in extra if name != material)
        described = extra[material].decode().replace(name, picture)
        return {picture: extra[name], material: described.encode(), path.name: _bytes(text)}

    def _as_trimesh(self, ending: str) -> Any:
        trimesh = _trimesh()
        vertices = (_METRES if ending == ".glb" else 1.0) * self.vertices.double().numpy()
        triangles = self.triangles.numpy()
        # Where a texture has a seam there are two vertices, which must not show: they share their normal.
        merged, same = np.unique(vertices, axis=0, return_inverse=True)
        normals = trimesh.Trimesh(merged, same[triangles], process=False).vertex_normals[same]
        mesh = trimesh.Trimesh(vertices, triangles, vertex_normals=normals, process=False)
        if ending != ".ply" and self.uv is not None and self.texture is not None:
            material = _material(trimesh, _pixels(self.texture.permute(1, 2, 0)), ending)
            mesh.visual = trimesh.visual.TextureVisuals(uv=self.uv.numpy(), material=material)
        else:
            mesh.visual.vertex_colors = _pixels(self.colours)
        return mesh


def _material(trimesh: Any, picture: np.ndarray, ending: str) -> Any:
    """A dull material that shows a texture as it is."""
    image = Image.fromarray(picture)
    materials = trimesh.visual.material
    if ending == ".glb":
        return materials.PBRMaterial(baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0, name="face")
    white, black = [255, 255, 255, 255], [0, 0, 0, 255]
    material = materials.SimpleMaterial(image=image, diffuse=white, ambient=white, specular=black)
    material.name = "face"
    return material


def _pixels(colours: Tensor) -> UInt8[np.ndarray, "*pixels 3"]:
    """Colours in [0, 1] as bytes."""
    return np.ascontiguousarray((colours.clamp(0, 1) * 255).round().byte().numpy())


def check_name(path: Path) -> None:
    """Refuse names that no mesh can be written to.

    Raises:
        InputError: The name has another ending, or nothing can be written there.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} is no name for a mesh; end it in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    check_place(path)


def _trimesh() -> Any:
    try:
        return importlib.import_module("trimesh")
    except ModuleNotFoundError as error:
        raise InputError("meshes are written by trimesh; pip install 'multilinear-faces[faces]'") from error


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
