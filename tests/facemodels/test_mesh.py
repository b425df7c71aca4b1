"""Meshes in files: read again by trimesh and, where it is text, by hand."""

import json
import struct
import warnings

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch.testing import assert_close

from facemodels.errors import InputError
from facemodels.mesh import Mesh

CORNERS = torch.tensor([[0.0, 0.0, 0.0], [20.0, 0.0, 5.0], [20.0, 30.0, 0.0], [0.0, 30.0, -5.0]])
TRIANGLES = torch.tensor([[0, 1, 2], [0, 2, 3]])
COLOURS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.2, 0.4, 0.6]])


@pytest.fixture
def plain():
    return Mesh(CORNERS, TRIANGLES, COLOURS)


@pytest.fixture
def textured():
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    texture = torch.zeros(3, 8, 8)
    texture[0, :4], texture[2, 4:] = 1, 1  # red on top, blue below
    return Mesh(CORNERS, TRIANGLES, COLOURS, uv, texture)


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # trimesh leaves the material open
        return trimesh.load(path, process=False, force="mesh")


@pytest.mark.parametrize(("ending", "unit"), [("ply", 1.0), ("obj", 1.0), ("glb", 0.001)])
@pytest.mark.parametrize("kind", ["plain", "textured"])
def test_files_hold_the_mesh(tmp_path, request, kind, ending, unit):
    mesh = request.getfixturevalue(kind)
    files = mesh.save(tmp_path / f"face.{ending}")
    assert files[-1] == tmp_path / f"face.{ending}" and all(file.is_file() for file in files)
    assert sorted(tmp_path.iterdir()) == sorted(files)  # nothing half-written is left
    again = read(files[-1])
    assert_close(torch.tensor(again.vertices).float(), unit * CORNERS, atol=1e-6, rtol=0)
    assert (again.faces == TRIANGLES.numpy()).all()


def test_colours_of_vertices(tmp_path, plain, textured):
    for mesh, name in ((plain, "plain.ply"), (textured, "textured.ply"), (plain, "plain.glb"), (plain, "plain.obj")):
        mesh.save(tmp_path / name)
        colours = np.asarray(read(tmp_path / name).visual.vertex_colors)[:, :3]
        assert_close(torch.tensor(colours).float() / 255, COLOURS, atol=1 / 255, rtol=0)


def test_obj_by_hand(tmp_path, textured):
    files = textured.save(tmp_path / "face.obj")
    assert [file.name for file in files] == ["face.png", "face.mtl", "face.obj"]
    lines = (tmp_path / "face.obj").read_text().splitlines()
    assert "mtllib face.mtl" in lines and "f 1/1/1 2/2/2 3/3/3" in lines
    assert [line.split()[1:] for line in lines if line.startswith("vt ")][2] == ["1.00000000", "1.00000000"]
    assert "map_Kd face.png" in (tmp_path / "face.mtl").read_text()
    assert np.asarray(Image.open(tmp_path / "face.png"))[0, 0].tolist() == [255, 0, 0]  # the first row is on top


def test_glb_by_hand(tmp_path, textured):
    """glTF 2 counts v down and metres, and a texture that shows as it is needs a dull white material."""
    textured.save(tmp_path / "face.glb")
    content = (tmp_path / "face.glb").read_bytes()
    assert content[:4] == b"glTF" and struct.unpack("<I", content[4:8])[0] == 2
    length = struct.unpack("<I", content[12:16])[0]
    tree = json.loads(content[20 : 20 + length])
    primitive = tree["meshes"][0]["primitives"][0]
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= set(primitive["attributes"])
    material = tree["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert material["metallicFactor"] == 0 and "baseColorTexture" in material
    accessor = tree["accessors"][primitive["attributes"]["TEXCOORD_0"]]
    view = tree["bufferViews"][accessor["bufferView"]]
    start = 20 + length + 8 + view.get("byteOffset", 0)
    uv = np.frombuffer(content[start : start + 32], np.float32).reshape(4, 2)
    assert uv.tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]
    assert tree["accessors"][primitive["attributes"]["POSITION"]]["max"] == pytest.approx([0.02, 0.03, 0.005])


def test_a_seam_does_not_show(tmp_path):
    """Two vertices at one place share their normal."""
    split = Mesh(
        torch.cat([CORNERS, CORNERS[[0, 2]]]), torch.tensor([[0, 1, 2], [4, 5, 3]]), torch.cat([COLOURS, COLOURS[:2]])
    )
    split.save(tmp_path / "split.obj")
    normals = read(tmp_path / "split.obj").vertex_normals
    assert np.allclose(normals[0], normals[4], atol=1e-6) and np.allclose(normals[2], normals[5], atol=1e-6)


def test_refusals(tmp_path, plain, textured):
    with pytest.raises(InputError, match=r"face.stl is no name for a mesh; end it in .ply, .obj or .glb"):
        plain.save("face.stl")
    with pytest.raises(InputError, match="does not exist; make it first"):
        plain.save(tmp_path / "nowhere" / "face.ply")
    with pytest.raises(ValueError, match=r"colours must have shape \(4, 3\), got \(3, 3\)"):
        Mesh(CORNERS, TRIANGLES, COLOURS[:3])
    with pytest.raises(ValueError, match="uv and texture belong together"):
        Mesh(CORNERS, TRIANGLES, COLOURS, uv=textured.uv)


def test_a_full_disk_leaves_nothing(tmp_path, textured, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(InputError, match="is full"):
        textured.save(tmp_path / "face.obj")
    assert not list(tmp_path.iterdir())
