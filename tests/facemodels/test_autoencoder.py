import dataclasses
import importlib
import re

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder, shape_factor
from facemodels.config import preset
from facemodels.networks import Context
from multilinear.optim import factor_gradients


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64)


def test_decodes_everything(model, images, morphable):
    with torch.no_grad():
        parts = model.decode(model.encode(images))
    shapes = {name: tuple(value.shape[1:]) for name, value in vars(parts).items()}
    picture, plane = (3, 64, 64), (1, 64, 64)
    assert shapes == {
        "image": picture,
        "face": picture,
        "albedo": picture,
        "normals": picture,
        "shading": plane,
        "mask": plane,
        "face_mask": plane,
        "background": picture,
        "frontal": picture,
        "frontal_normals": picture,
        "shape": (morphable.n_vertices, 3),
    }
    assert_close(parts.image, (parts.mask * parts.face + (1 - parts.mask) * parts.background).clamp(0, 1))
    assert parts.normals.norm(dim=1).max() <= 1 + 1e-4


def test_parameter_counts_of_the_paper():
    """Appendix A: 96, 48 and 24 filters of 5 x 5, 24 x 8 x 8 = 1536 numbers behind them, 128 in the middle."""
    with torch.device("meta"):
        model = NeuroTensorialAutoencoder(preset("paper")[0])
    count = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}

    def decoder(code, outputs):
        return 1536 * (code + 1) + (24 * 48 * 25 + 48) + (48 * 96 * 25 + 96) + (96 * outputs * 25 + outputs)

    assert count == {
        "encoder": (96 * 75 + 96) + (48 * 96 * 25 + 48) + (24 * 48 * 25 + 24) + (1536 * 128 + 128),
        "heads": 129 * (128 + 128 + 9 + 9 + 80 + 15),
        "expression_coefficients": 16 * 28,
        "identity_coefficients": 81 * 157,
        "shape_core": 28125 * 1200,
        "frontal_core": 12288 * 10800,
        "normals": decoder(1200, 3),
        "albedo": decoder(1200, 3),
        "mask": decoder(128, 1),
        "background": decoder(128, 3),
    }
    assert sum(count.values()) == 171_555_616
    assert not list(model.buffers())


def test_memory_of_the_paper_in_training():
    """Weights and two moments of AdamW in float32; the cores' gradients, in factors, add nothing of their size."""
    network, training = preset("paper")
    with torch.device("meta"):
        model = NeuroTensorialAutoencoder(network)
    assert factor_gradients(model) == ["shape_core.weight", "frontal_core.weight"]
    count = sum(p.numel() for p in model.parameters())
    cores = 28125 * 1200 + 12288 * 10800
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert 4 * count == 686_222_464 and 4 * 3 * count == 2_058_667_392  # 0.69 and 2.06 GB
    assert 4 * (count - cores) == 20_380_864  # of dense gradients: 20 MB, without factors 0.69 GB
    samples = 2 * training.batch  # of either core, used twice in a step
    assert 4 * samples * (28125 + 15 + 80 + 12288 + 9 + 15 + 80) < 12e6


def test_parameter_counts_of_our_additions():
    """Coordinates instead of vertices: 0.2 instead of 34 million; a Tucker core: 2.2 instead of 133 million."""
    with torch.device("meta"):
        model = NeuroTensorialAutoencoder(preset("default")[0])
    assert model.shape_core.weight.shape == (185, 15, 80) and model.shape_core.weight.numel() == 222_000
    assert sum(p.numel() for p in model.frontal_core.parameters()) == 12288 * 96 + 96 * 10800 == 2_216_448
    assert model.normals.bias.shape == (4,)


def test_rotation_acts_on_the_product_of_codes(model):
    """Section 3.4: the product, as a 3 x n matrix, is multiplied by the rotation from the left."""
    expression, identity, light = torch.randn(1, 6), torch.randn(1, 9), torch.randn(1, 9)
    seen = []
    handle = model.albedo.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rotation, _ = torch.linalg.qr(torch.randn(3, 3))
    model.paint(rotation.reshape(1, 9), expression, identity, light)
    model.paint(torch.eye(3).reshape(1, 9), expression, identity, light)
    handle.remove()
    product = torch.kron(expression[0], identity[0]).reshape(3, -1)
    assert_close(seen[0].reshape(3, -1), rotation @ product)
    assert_close(seen[1].reshape(3, -1), product)


def test_frontal_normals_are_the_texture_under_the_constant_light(model):
    """Equations 2 and 5: the same core, light replaced by 1/9."""
    expression, identity = torch.randn(2, 6), torch.randn(2, 9)
    _, normals = model.frontal(torch.randn(2, 9), expression, identity)
    texture, _ = model.frontal(torch.full((2, 9), 1 / 9), expression, identity)
    assert_close(texture, normals)


def test_coordinates_measure_vertices(morphable):
    factor = shape_factor(morphable)
    first, second = torch.randn(2, 6, 8)
    distance = (first - second) @ factor.T
    moved = morphable.vertices(first[:, :5], first[:, 5:]) - morphable.vertices(second[:, :5], second[:, 5:])
    ratio = moved.flatten(1).norm(dim=1) / distance.norm(dim=1)
    assert_close(ratio, ratio[:1].expand(6), rtol=1e-4, atol=0)


def test_the_shape_of_known_coefficients_comes_back(model, morphable):
    identity, expression = torch.randn(2, 5), torch.randn(2, 3)
    target = model.shape_target(identity, expression)
    model.shape = lambda *codes: target
    codes = model.encode(torch.rand(2, 3, 64, 64))
    assert_close(model.vertices(codes), morphable.vertices(identity, expression), rtol=1e-3, atol=1e-2)


def test_shape_space_of_vertices(network_config, morphable):
    config = dataclasses.replace(network_config, shape_space="vertices")
    model = NeuroTensorialAutoencoder(config, morphable)
    target = model.shape_target(torch.zeros(1, 5), torch.zeros(1, 3))
    assert_close(target.reshape(-1, 3) * 100, morphable.mean)
    assert model.decode(model.encode(torch.rand(1, 3, 64, 64))).shape.shape == (1, morphable.n_vertices, 3)


def test_the_background_never_sees_the_face(model, network_config, morphable, images):
    """Pictures that differ in the face alone have the same background, in the network that fills the face in."""
    mask = torch.zeros(3, 1, 64, 64)
    mask[:, :, 16:48, 16:48] = 1
    other = images + mask * torch.rand_like(images)
    with torch.no_grad():
        first, second = (
            model.surround(model.look_behind(pictures, model.perceive(pictures), mask))[1]
            for pictures in (images, other)
        )
        assert_close(first, second)
        paper = NeuroTensorialAutoencoder(dataclasses.replace(network_config, cut_background=False), morphable)
        first, second = (paper.surround(paper.encode(pictures))[1] for pictures in (images, other))
    assert (first - second).abs().max() > 1e-3


def test_without_skips_only_the_places_are_used(network_config, morphable, images):
    model = NeuroTensorialAutoencoder(dataclasses.replace(network_config, skips="none"), morphable)
    codes = model.encode(images)
    louder = Context(codes.context.indices, tuple(skip * 3 for skip in codes.context.skips))
    assert_close(model.mask(codes.mask, codes.context), model.mask(codes.mask, louder))


def test_pose_as_the_nearest_rotation(network_config, morphable):
    model = NeuroTensorialAutoencoder(dataclasses.replace(network_config, rotation="rotation"), morphable)
    expression, identity, light = torch.randn(2, 6), torch.randn(2, 9), torch.randn(2, 9)
    rotation = torch.linalg.qr(torch.randn(2, 3, 3)).Q
    stretched = rotation @ torch.diag_embed(torch.rand(2, 3) + 0.5)
    left, _, right = torch.linalg.svd(stretched)
    first = model.paint(stretched.flatten(1), expression, identity, light)
    second = model.paint((left @ right).flatten(1), expression, identity, light)
    assert_close(first.normals, second.normals, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_residual_stages_add_to_the_vector_of_all_codes(network_config, morphable, images):
    model = NeuroTensorialAutoencoder(dataclasses.replace(network_config, residual=(5, 4)), morphable).double()
    images = images.double()
    plain = NeuroTensorialAutoencoder(network_config, morphable).double()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if ".residual." not in name})
    first, same = model.encode(images), plain.encode(images)
    assert_close(first.identity, same.identity)  # at first they say nothing
    stages = model.encoder.residual
    for weight in stages.parameters():
        weight.normal_(std=0.3)
    activation = first.context.skips[0]

    def normalised(picture, layers, stride=1):
        convolution, scale = layers
        pictures = F.conv2d(picture, convolution.weight, convolution.bias, stride=stride, padding=1)
        groups = pictures.unflatten(1, (scale.num_groups, -1))
        deviation, mean = torch.std_mean(groups, (2, 3, 4), correction=0, keepdim=True)
        groups = (groups - mean) / (deviation.square() + 1e-5).sqrt()
        return groups.flatten(1, 2) * scale.weight[:, None, None] + scale.bias[:, None, None]

    for stage in (stages[0], stages[1]):
        halved = normalised(activation, stage.halve, stride=2)
        inner = normalised(halved.relu(), stage.first).relu()
        activation = (halved + F.conv2d(inner, stage.second.weight, stage.second.bias, padding=1)).relu()
    assert activation.shape == (3, 4, 8, 8)
    vector, context = plain.encoder(images)
    expected = (torch.atanh(vector) + stages[-1](activation.flatten(1))).tanh()
    features, beside = model.encoder(images)
    assert_close(features, expected)
    assert all(torch.equal(*pair) for pair in zip(beside.skips, context.skips, strict=True))
    assert not torch.allclose(model.encode(images).expression, same.expression)


def test_a_light_per_colour(network_config, morphable, images):
    model = NeuroTensorialAutoencoder(dataclasses.replace(network_config, light_channels=3), morphable)
    codes = model.encode(images)
    assert codes.light.shape == (3, 27)
    parts = model.decode(codes)
    assert parts.shading.shape == (3, 3, 64, 64)
    assert_close(parts.face, (parts.albedo * parts.shading).clamp(0, 1))
    red = codes.light.clone()
    red[:, :9] *= 2
    redder = model.decode(codes.replace(light=red))
    assert_close(redder.shading[:, 0], 2 * parts.shading[:, 0])
    assert_close(redder.shading[:, 1:], parts.shading[:, 1:])
    assert_close(redder.frontal_normals, parts.frontal_normals)
    _, normals = model.frontal(red, codes.expression, codes.identity)
    texture, _ = model.frontal(torch.full((3, 27), 1 / 27), codes.expression, codes.identity)
    assert_close(texture, normals)


def test_other_sizes(network_config, morphable):
    config = dataclasses.replace(network_config, size=32, channels=(6, 4))
    model = NeuroTensorialAutoencoder(config, morphable)
    parts = model.decode(model.encode(torch.rand(2, 3, 32, 32)))
    assert parts.image.shape == parts.frontal.shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"\(n, 3, 32, 32\), got \(2, 3, 64, 64\)"):
        model.encode(torch.rand(2, 3, 64, 64))


def test_refuses_other_images(model):
    with pytest.raises(ValueError, match=r"must have shape \(n, 3, 64, 64\), got \(1, 64, 64, 3\)") as refused:
        model.encode(torch.rand(1, 64, 64, 3))
    room, _, function = re.search(r"align photos with ([\w.]+)", str(refused.value))[1].rpartition(".")
    assert callable(getattr(importlib.import_module(room), function))
    with pytest.raises(ValueError, match=r"must be floating point in \[0, 1\], got torch.uint8"):
        model.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_refuses_another_morphable_model(network_config, morphable):
    config = dataclasses.replace(network_config, vertices=13)
    with pytest.raises(ValueError, match=r"= \(5, 3, 13\), 'tiny' has \(5, 3, 12\)"):
        NeuroTensorialAutoencoder(config, morphable)
