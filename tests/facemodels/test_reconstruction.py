"""Meshes of codes and photos: their shapes, and colours against those of the rendered faces they come from."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facemodels.autoencoder import Face, NeuroTensorialAutoencoder
from facemodels.config import SIZE, NetworkConfig
from facemodels.data.alignment import AlignedPhoto
from facemodels.data.factors import sample_factors
from facemodels.data.portrait import build_heads, draw_heads
from facemodels.data.synthetic import aligned_camera
from facemodels.errors import InputError
from facemodels.fitting import Fit
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.landmarks import Landmarks
from facemodels.fitting.texture import spread
from facemodels.mesh import Mesh
from facemodels.morphable import MorphableModel
from facemodels.reconstruction import SHAPES, coloured, face_mesh, fitted_mesh, reconstruct, shapes
from facemodels.rendering import project_weak_perspective
from facemodels.rendering.picture import picture_of
from facemodels.sheets import reconstruction_sheet, turntable, write_turntable

ZOOM = 3  # of the pictures against crops of 64


@pytest.fixture(scope="module")
def morphable():
    return MorphableModel.procedural()


@pytest.fixture
def network(morphable):
    config = NetworkConfig(channels=(4, 4, 4), intermediate=8, background=4, mask=4, identity=6, expression=3)
    config = dataclasses.replace(config, shape_space="coordinates", face_mask=True, frontal_rank=2)
    return NeuroTensorialAutoencoder(config, morphable).eval()


@pytest.fixture(scope="module")
def portrait(morphable):
    """A rendered face of even light: factors, heads, fit in pixels of 64, picture and mask."""
    one = sample_factors(5, 2, images_per_person=1)
    identity, expression = (torch.from_numpy(getattr(one, name))[None].float() for name in ("identity", "expression"))
    heads = build_heads(identity, expression, [dataclasses.replace(one.complexion, bald=1.0)])
    camera = aligned_camera(heads.vertices, torch.tensor([[0.3, 0.05, 0.0]]), torch.zeros(1, 3))
    light = torch.zeros(1, 9)
    light[0, 0] = 1 / 0.886227
    size = ZOOM * SIZE
    picture, _, mask = draw_heads(
        heads, camera[0], ZOOM * camera[1], ZOOM * camera[2], light, torch.full((1, 3, size, size), 0.5)
    )
    fit = Fit(*camera, identity, expression, torch.zeros(1))
    return one, heads, fit, picture[0], mask[0], light


def face_vertices(morphable):
    return morphable.triangles[morphable.face].unique()


class TestShapes:
    def test_are_those_of_the_two_sources(self, network, morphable):
        codes = network.encode(torch.rand(2, 3, 64, 64))
        with torch.no_grad():
            assert_close(shapes(network, codes, "stream"), network.vertices(codes))
            regressed = (
                network.identity_coefficients(codes.identity),
                network.expression_coefficients(codes.expression),
            )
            assert_close(shapes(network, codes, "coefficients"), morphable.vertices(*regressed))
        assert_close(shapes(network, codes), shapes(network, codes, "stream"))

    def test_without_cores_the_coefficients_stand_in(self, network, morphable):
        bare = NeuroTensorialAutoencoder(dataclasses.replace(network.config, cores=False), morphable).eval()
        codes = bare.encode(torch.rand(1, 3, 64, 64))
        assert_close(shapes(bare, codes), shapes(bare, codes, "coefficients"))
        with pytest.raises(InputError, match="exported without its cores, so it has no shape stream"):
            face_mesh(bare, codes, source="stream")

    def test_needs_a_morphable_model(self, network):
        codes = network.encode(torch.rand(1, 3, 64, 64))
        network.morphable = None
        with pytest.raises(InputError, match="this network carries no morphable model"):
            face_mesh(network, codes)


class TestFaceMesh:
    def test_begins_with_the_vertices_of_the_model(self, network, morphable):
        codes = network.encode(torch.rand(1, 3, 64, 64))
        mesh = face_mesh(network, codes, detail=64)
        assert_close(mesh.vertices[: morphable.n_vertices], shapes(network, codes)[0])
        assert mesh.texture.shape == (3, 64, 64) and len(mesh.triangles) == len(morphable.triangles)
        assert face_mesh(network, codes, detail=None).uv is None
        assert mesh.vertices[mesh.triangles].isfinite().all() and mesh.colours.isfinite().all()

    def test_networks_without_a_face_mask_have_one_view(self, network, morphable):
        config = dataclasses.replace(network.config, face_mask=False)
        plain = NeuroTensorialAutoencoder(config, morphable).eval()
        assert face_mesh(plain, plain.encode(torch.rand(1, 3, 64, 64)), detail=None).colours.isfinite().all()

    def test_takes_one_face(self, network):
        codes = network.encode(torch.rand(2, 3, 64, 64))
        with pytest.raises(ValueError, match="takes the codes of one face, got 2"):
            face_mesh(network, codes)
        with pytest.raises(ValueError, match=r"picture must have shape \(3, size, size\), got \(1, 3, 64, 64\)"):
            face_mesh(network, codes[:1], picture=torch.rand(1, 3, 64, 64))


class TestColours:
    def test_of_a_picture_lie_where_they_belong(self, portrait, morphable):
        """The even light shows the albedo itself, so every vertex that is seen must have its own."""
        _, heads, fit, picture, *_ = portrait
        mesh = fitted_mesh(fit, morphable, picture, detail=None)
        truth = heads.albedo[0, : morphable.n_vertices]
        seen = face_vertices(morphable)
        error = (mesh.colours - truth).abs().mean(1)[seen]
        assert error.median() < 0.02 and error.quantile(0.8) < 0.06
        unlike = (truth[seen] - truth[seen].mean(0)).abs().mean(1).median()
        assert error.median() < 0.5 * unlike

    def test_of_the_hidden_side_come_from_the_other(self, portrait, morphable):
        """Turned to the right of the picture, the face hides the cheek at that side."""
        _, heads, fit, *_ = portrait
        camera = aligned_camera(heads.vertices, torch.tensor([[0.9, 0.0, 0.0]]), torch.zeros(1, 3))
        turned = dataclasses.replace(fit, rotation=camera[0], scale=camera[1], shift=camera[2])
        light, size = portrait[5], ZOOM * SIZE
        image, _, _ = draw_heads(
            heads, camera[0], ZOOM * camera[1], ZOOM * camera[2], light, torch.zeros(1, 3, size, size)
        )
        mesh = fitted_mesh(turned, morphable, image[0], detail=None)
        jaw = morphable.landmarks[[11, 12, 13]]  # of the subject's left, which is not seen
        assert (mesh.colours[jaw] - heads.albedo[0, jaw]).abs().max() < 0.12

    def test_of_codes_come_from_all_views(self, network, portrait, morphable, monkeypatch):
        """A network that paints the true albedo in any pose gives it back to the vertices of both sides."""
        _, heads, fit, *_, light = portrait
        vertices = morphable.vertices(fit.identity, fit.expression)

        def paint(pose, expression, identity, _light):
            rotation = pose.unflatten(1, (3, 3))
            count = len(rotation)
            many = heads.repeat(count)
            scale, shift = fit.scale.expand(count), fit.shift.expand(count, 2)
            image, normals, mask = draw_heads(
                many, rotation, scale, shift, light.expand(count, 9), torch.zeros(count, 3, 64, 64)
            )
            return Face(image, image, normals, torch.ones(count, 1, 64, 64), 20 * mask - 10)

        monkeypatch.setattr(network, "paint", paint)
        codes = network.encode(torch.rand(1, 3, 64, 64))
        codes = codes.replace(pose=fit.rotation.flatten(1))
        mesh = coloured(network, codes, vertices[0], detail=256)
        truth = heads.albedo[0, : morphable.n_vertices]
        seen = face_vertices(morphable)
        error = (mesh.colours[: morphable.n_vertices] - truth).abs().mean(1)[seen]
        assert error.median() < 0.03
        ahead = picture_of([mesh], size=64, extent=120)[0]
        again = picture_of([dataclasses.replace(mesh, uv=None, texture=None)], size=64, extent=120)[0]
        assert (ahead - again).abs().mean() < 0.01

    def test_extent_is_from_the_middle_to_the_edge(self):
        corners = torch.tensor([[-50.0, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]])
        square = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.zeros(4, 3))
        dark = picture_of([square], size=100, extent=100)[0, 0] < 0.5
        assert dark.sum(0).max() == dark.sum(1).max() == 50 and dark.sum() == 2500

    def test_spread_keeps_what_is_known(self, morphable):
        known = torch.zeros(morphable.n_vertices)
        known[::7] = 1
        colours = (morphable.mean - morphable.mean.amin(0)) / 300
        result = spread(colours * known[:, None], known, morphable)
        assert (result - colours)[known > 0].abs().max() < 0.1
        assert (result - colours).abs().median() < 0.01
        bare = spread(torch.zeros_like(colours), torch.zeros_like(known), morphable)
        assert_close(bare, morphable.albedo)

    def test_a_fit_is_of_one_face(self, portrait, morphable):
        fit = portrait[2]
        with pytest.raises(ValueError, match="takes the fit of one face, got 2"):
            fitted_mesh(Fit.concatenate([fit, fit]), morphable, portrait[3])


@pytest.fixture
def photo(portrait, morphable):
    """A photo whose landmarks are exact, with a picture of more pixels than its crop."""
    _, _, fit, picture, _, _ = portrait
    match = mediapipe_correspondence(morphable)
    shape = morphable.vertices(fit.identity, fit.expression)[:, match.vertices]
    points = torch.zeros(478, 3)
    points[match.points] = project_weak_perspective(shape, fit.rotation, fit.scale, fit.shift)[0]
    points[match.points, 2] *= fit.scale[0]
    whole = (255 * picture).round().byte().permute(1, 2, 0).numpy()
    transform = np.array([[1 / ZOOM, 0, 0], [0, 1 / ZOOM, 0]])
    small = AlignedPhoto("photo", whole, whole, transform, Landmarks.from_points(points.numpy()))
    return dataclasses.replace(small, crop=small.enlarged(64))


class TestReconstruct:
    def test_photo(self, network, morphable, photo, portrait):
        result = reconstruct(network, photo, detail=128)
        assert list(result.meshes) == list(SHAPES)
        truth = morphable.vertices(portrait[2].identity, portrait[2].expression)[0]
        fitted = result.meshes["fit"].vertices[: morphable.n_vertices]
        seen = face_vertices(morphable)
        centred = (fitted - fitted[seen].mean(0)) - (truth - truth[seen].mean(0))
        assert centred[seen].norm(dim=1).mean() < 6
        sheet = reconstruction_sheet([result, result], morphable, size=48)
        assert sheet.width > 10 * 48 and sheet.height > 2 * 48

    def test_some_shapes(self, network, morphable, photo):
        assert list(reconstruct(network, photo, wanted=["fit"], detail=None).meshes) == ["fit"]
        bare = NeuroTensorialAutoencoder(dataclasses.replace(network.config, cores=False), morphable).eval()
        assert list(reconstruct(bare, photo, detail=None).meshes) == ["coefficients", "fit"]
        with pytest.raises(InputError, match="without its cores"):
            reconstruct(bare, photo, wanted=["stream"])
        with pytest.raises(ValueError, match="there is no shape 'cube'; choose one of stream, coefficients, fit"):
            reconstruct(network, photo, wanted=["cube"])

    def test_enlarged_crops_show_the_same(self, photo):
        large = photo.enlarged(128)
        assert large.shape == (128, 128, 3)
        shrunk = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(shrunk - photo.crop).mean() < 2

    def test_turntable_is_a_round(self, network, photo):
        mesh = face_mesh(network, network.encode(torch.rand(1, 3, 64, 64)), detail=None)
        frames = turntable(mesh, frames=4, size=32)
        assert len(frames) == 4 and all(frame.shape == (32, 32, 3) for frame in frames)
        first, right, ahead, left = (frame.astype(int) for frame in frames)
        assert (first == ahead).all() and np.abs(right - left).mean() > 1

    def test_turntable_as_a_strip(self, network, tmp_path):
        mesh = face_mesh(network, network.encode(torch.rand(1, 3, 64, 64)), detail=None)
        with Image.open(write_turntable(mesh, tmp_path / "strip.png")) as strip:
            assert strip.width > 6 * strip.height
        with pytest.raises(InputError, match="is no name for a picture"):
            write_turntable(mesh, tmp_path / "strip.txt")
