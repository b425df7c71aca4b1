"""Cameras read from normals, against those that drew them."""

import pytest
import torch
from torch.testing import assert_close

from facemodels.fitting.framing import frame
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix, render_surface

FACES = 4


@pytest.fixture(scope="module")
def seen():
    generator = torch.Generator().manual_seed(3)
    model = MorphableModel.procedural()
    draw = torch.randn(FACES, model.n_identity, generator=generator), torch.randn(FACES, 28, generator=generator)
    vertices = model.vertices(draw[0], draw[1] * 0.5)
    rotation = euler_to_matrix(
        torch.tensor([0.0, 0.5, -0.4, 0.2]), torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([0.0, 0.1, 0.0, -0.2])
    )
    scale, shift = torch.tensor([0.3, 0.25, 0.33, 0.4]), torch.tensor([[32.0, 30], [35, 28], [30, 36], [20, 30]])
    return model, vertices, rotation, scale, shift


def read(seen, normals, mask):
    model, vertices, rotation, *_ = seen
    return frame(vertices, model.triangles, model.face, rotation, normals, mask)


def drawn(seen, size=64):
    model, vertices, rotation, scale, shift = seen
    zoom = size / 64
    return render_surface(vertices, model.triangles, model.face, rotation, zoom * scale, zoom * shift, size)


def test_finds_the_camera(seen):
    surface = drawn(seen)
    scale, shift = read(seen, surface.normals, surface.mask)
    assert_close(scale, seen[3], rtol=0.005, atol=0)
    assert_close(shift, seen[4], rtol=0, atol=0.1)


def test_a_hidden_part_moves_nothing(seen):
    """Hair over the brow and a hand before the mouth: the mask leaves out what they hide."""
    surface = drawn(seen)
    mask = surface.mask.clone()
    mask[:, :, :24] = 0
    mask[:, :, 44:, 30:] = 0
    scale, shift = read(seen, surface.normals, mask)
    assert_close(scale, seen[3], rtol=0.02, atol=0)
    assert_close(shift, seen[4], rtol=0, atol=0.5)


@pytest.mark.parametrize("largest", [0.33, 0.42])
@pytest.mark.parametrize("hidden", ["brow", "mouth"])
def test_a_hidden_third_moves_nothing(hidden, largest):
    """As by a mask or a cap: the guess by the area of the face is far off then."""
    generator, model, n = torch.Generator().manual_seed(3), MorphableModel.procedural(), 6
    draw = torch.randn(n, model.n_identity, generator=generator), torch.randn(n, 28, generator=generator)
    vertices = model.vertices(draw[0], draw[1] * 0.5)
    angles = torch.tensor([[0.6], [0.3], [0.2]]) * (2 * torch.rand(3, n, generator=generator) - 1)
    scale = largest - 0.08 * torch.rand(n, generator=generator)
    shift = 30 + 4 * torch.rand(n, 2, generator=generator)
    everything = model, vertices, euler_to_matrix(*angles), scale, shift
    surface = drawn(everything)
    mask = surface.mask.clone()
    mask[:, :, slice(42, None) if hidden == "mouth" else slice(24)] = 0
    found = read(everything, surface.normals, mask)
    assert_close(found[0], scale, rtol=0.02, atol=0)
    assert_close(found[1], shift, rtol=0, atol=0.5)


def test_blurred_and_noisy_normals_do(seen):
    surface = drawn(seen)
    soft = torch.nn.functional.avg_pool2d(surface.normals, 5, 1, 2) + 0.1 * torch.randn(surface.normals.shape)
    scale, shift = read(seen, soft, surface.mask)
    assert_close(scale, seen[3], rtol=0.03, atol=0)
    assert_close(shift, seen[4], rtol=0, atol=0.6)


def test_an_empty_mask_gives_numbers(seen):
    scale, shift = read(seen, torch.zeros(FACES, 3, 64, 64), torch.zeros(FACES, 1, 64, 64))
    assert scale.isfinite().all() and shift.isfinite().all() and (scale > 0).all()
