import numpy as np
import pytest
import torch

from facemodels.figures import grid, normals_as_colours, on_paper, to_bytes
from facemodels.sheets import edit_sheet, interpolation_sheet, mesh_pictures, parts_sheet


def test_bytes():
    picture = torch.tensor([0.0, 0.5, 1.0, 2.0]).reshape(1, 1, 4)
    assert to_bytes(picture)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_grid_puts_pictures_in_their_places():
    red, blue = torch.zeros(2, 3, 8, 8)
    red[0], blue[2] = 1, 1
    sheet = np.asarray(grid([[red, None], [None, blue]], zoom=3))
    assert sheet.shape == (2 * 28, 2 * 28, 3)
    assert sheet[10, 10].tolist() == [255, 0, 0] and sheet[40, 40].tolist() == [0, 0, 255]
    assert sheet[10, 40].tolist() == [255, 255, 255]


def test_labels_take_room():
    plain = grid([[torch.zeros(3, 8, 8)]])
    labelled = grid([[torch.zeros(3, 8, 8)]], columns=["source"], row_labels=["expression"])
    assert labelled.width > plain.width and labelled.height > plain.height
    assert (np.asarray(labelled)[:15] < 128).any()  # ink above the picture


def test_grid_of_nothing():
    with pytest.raises(ValueError, match="there is no picture to show"):
        grid([[None]])


def test_paper_and_normals():
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0] = 1
    assert on_paper(torch.zeros(1, 3, 2, 2), mask)[0, 0].tolist() == [[0, 1], [0, 1]]
    normals = torch.zeros(1, 3, 2, 2)
    normals[:, 2] = 1
    assert normals_as_colours(normals, mask)[0, :, 0, 0].tolist() == [0.5, 0.5, 1.0]


def test_sheets(model):
    source, target = torch.rand(2, 2, 3, 64, 64)
    wide = edit_sheet(model, source, target, ["expression", "identity"], together=True, zoom=1)
    narrow = edit_sheet(model, source, target, ["expression"], zoom=1)
    assert wide.width - narrow.width == 2 * 68
    assert parts_sheet(model, source, zoom=1).width == 11 * 68
    assert interpolation_sheet(model, source[:1], target[:1], ["light"], steps=3, zoom=1).height > 64


def test_mesh_pictures_show_the_mesh(morphable):
    pictures = mesh_pictures(morphable.vertices(torch.randn(2, 5), torch.randn(2, 3)), morphable)
    assert pictures.shape == (2, 3, 64, 64)
    assert (pictures < 0.99).any()
