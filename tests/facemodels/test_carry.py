"""A photo carried to another pose: against itself, against true renders, and where nothing is known."""

import math

import pytest
import torch
from torch.testing import assert_close

from facemodels.data.factors import sample_factors
from facemodels.data.portrait import build_heads, draw_heads
from facemodels.data.synthetic import aligned_camera
from facemodels.fitting.carry import MIRRORED_WEIGHT, carry, mirrored_vertices
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix, light_from_direction, render_surface, shade

FACES = 12


def even_light(count):
    return light_from_direction(torch.ones(3), strength=torch.tensor(0.0), ambient=torch.tensor(0.8)).expand(count, 9)


@pytest.fixture(scope="module")
def model():
    return MorphableModel.procedural()


@pytest.fixture(scope="module")
def heads():
    """Synthetic heads, their factors, and for each vertex (those of the hair, too) the one on the other side."""
    factors = [sample_factors(11, number, images_per_person=1) for number in range(FACES)]

    def stack(name):
        return torch.stack([torch.from_numpy(getattr(one, name)) for one in factors]).float()

    made = build_heads(stack("identity"), stack("expression"), [one.complexion for one in factors])
    other = mirrored_vertices(MorphableModel.procedural())
    mirrored = torch.cat([other, torch.arange(len(other), made.vertices.shape[1])])
    return made, stack("light"), stack("background").permute(0, 3, 1, 2), stack("framing"), mirrored


@pytest.fixture(scope="module")
def view(heads):
    """A function from yaw and pitch to the true image, the surface and the rotation of all heads."""
    made, light, background, framing, _ = heads

    def seen(yaw, pitch=0.0):
        angles = torch.tensor([yaw, pitch, 0.0]).expand(FACES, 3)
        camera = aligned_camera(made.vertices, angles, framing)
        image, _, _ = draw_heads(made, *camera, light, background)
        return image, render_surface(made.vertices, made.triangles, made.face, *camera, close=7), camera[0]

    return seen


@pytest.fixture(scope="module")
def carried(heads, view):
    """A function that carries all heads from one pose to another: what is carried, its weight, truth and photo."""
    made, light, _, _, mirrored = heads

    def move(start, end):
        photo, own, rotation = view(*start)
        truth, turned, turned_rotation = view(*end)
        result = carry(photo, own, turned, rotation, turned_rotation, light, made.triangles, mirrored, reach=3)
        return *result, truth, photo

    return move


def psnr(image, truth, weight):
    """In dB, over the pixels of a weight above a half, in each image."""
    seen = (weight > 0.5).float()
    error = ((image - truth).square() * seen).mean((1, 2, 3)) / seen.mean((1, 2, 3))
    return -10 * error.log10()


class TestMirroredVertices:
    def test_of_a_symmetric_face_are_exact_and_go_back(self, model):
        other = mirrored_vertices(model)
        assert_close(model.mean[other] * torch.tensor([-1.0, 1.0, 1.0]), model.mean, atol=1e-4, rtol=0)
        assert (other[other] == torch.arange(len(other))).all()
        assert (other[model.landmarks[[36, 45, 48, 30]]] == model.landmarks[[45, 36, 54, 30]]).all()


class TestCarry:
    def test_to_the_own_pose_is_the_photo(self, carried):
        image, weight, truth, _ = carried((0.3, 0.1), (0.3, 0.1))
        seen = (weight == 1).expand_as(image)
        assert (weight == 1).float().mean() > 0.25
        # Where the photo is darker than a quarter of full light its shading is not believed.
        assert ((image - truth).abs()[seen] < 1e-3).float().mean() > 0.97
        assert psnr(image, truth, weight).min() > 35

    @pytest.mark.parametrize("end", [(0.35, 0.0), (-0.35, 0.0), (0.0, 0.25), (0.6, 0.0)], ids=str)
    def test_agrees_with_the_true_view(self, carried, end):
        image, weight, truth, photo = carried((0.0, 0.0), end)
        carried_far, left_alone = psnr(image, truth, weight), psnr(photo, truth, weight)
        assert (carried_far > left_alone + 2).all()
        assert carried_far.median() > left_alone.median() + 6
        assert carried_far.median() > 24

    def test_weights_are_zero_where_nothing_is_seen(self, carried, view):
        _, weight, _, _ = carried((0.0, 0.0), (0.5, 0.0))
        mask = view(0.5)[1].mask
        assert (weight[mask == 0] == 0).all()
        assert_close(weight.unique(), torch.tensor([0.0, MIRRORED_WEIGHT, 1.0]))

    def test_the_far_cheek_is_taken_from_the_other_side(self, carried, view):
        image, weight, truth, _ = carried((0.6, 0.0), (-0.4, 0.0))
        mirrored = (weight > 0) & (weight < 0.5)
        assert mirrored.float().mean() > 0.02
        x = torch.arange(64.0)
        middle = [float((x * one).sum() / one.sum()) for one in (mirrored.sum((0, 1, 2)), (weight == 1).sum((0, 1, 2)))]
        assert middle[0] > middle[1] + 8  # turned to the left of the image it shows the cheek at the right
        inside = mirrored.expand_as(image)
        assert (image - truth).abs()[inside].mean() < 0.12
        assert (image[inside].reshape(-1) > 0).float().mean() > 0.95

    def test_unknown_pixels_are_black(self, carried):
        image, weight, _, _ = carried((0.5, 0.0), (-0.5, 0.0))
        assert (image[(weight == 0).expand_as(image)] == 0).all()

    def test_a_hidden_point_is_not_read(self):
        """A small square before a large one; from the side, what it hid comes to light."""
        square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
        near = square * torch.tensor([20.0, 60, 0]) + torch.tensor([0.0, 0, 40])
        vertices = torch.cat([80 * square, near])[None]
        triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
        turned_rotation = euler_to_matrix(torch.tensor([0.6]), torch.zeros(1), torch.zeros(1))
        camera = torch.full((1,), 0.3), torch.tensor([[32.0, 32.0]])
        face = torch.ones(4, dtype=torch.bool)
        own = render_surface(vertices, triangles, face, torch.eye(3)[None], *camera)
        turned = render_surface(vertices, triangles, face, turned_rotation, *camera)
        mirrored = torch.arange(8)  # of no use here: each vertex stands for itself
        photo = torch.full((1, 3, 64, 64), 0.5)
        image, weight = carry(
            photo, own, turned, torch.eye(3)[None], turned_rotation, even_light(1), triangles, mirrored
        )
        # Of the far square the strip behind the near one is hidden: |x| < 20 mm.
        large = turned.fragments.triangle[0] < 2
        pixel = torch.arange(64) + 0.5 - 32
        across = (pixel / 0.3 / math.cos(0.6)).expand(64, 64)  # x of the far square in mm
        row = ((torch.arange(64) + 0.5 - 32).abs() < 0.3 * 55)[:, None]
        hidden = large & (turned.mask[0, 0] > 0) & (across.abs() < 14) & row
        clear = large & (turned.mask[0, 0] > 0) & ((across.abs() > 28) & (across.abs() < 70)) & row
        assert hidden.any() and clear.any()
        assert (weight[0, 0][hidden] == 0).all()
        assert (weight[0, 0][clear] == 1).all()
        assert_close(image[0, :, clear], torch.full_like(image[0, :, clear], 0.5), atol=1e-4, rtol=0)

    def test_relights_a_plane_exactly(self):
        """A Lambertian plane of one albedo, lit from the right, turned towards the lamp."""
        plane = 60 * torch.tensor([[[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]])
        triangles, face = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.ones(2, dtype=torch.bool)
        lamp = light_from_direction(
            torch.tensor([0.7, 0.2, 0.7]), strength=torch.tensor(0.5), ambient=torch.tensor(0.4)
        )[None]
        camera = torch.full((1,), 0.3), torch.tensor([[32.0, 32.0]])
        start, end = (euler_to_matrix(torch.tensor([yaw]), torch.tensor([0.2]), torch.zeros(1)) for yaw in (-0.4, 0.5))
        own, turned = (render_surface(plane, triangles, face, rotation, *camera) for rotation in (start, end))
        albedo = torch.tensor([0.7, 0.5, 0.4]).view(1, 3, 1, 1)
        photo = albedo * shade(own.normals, lamp) * own.mask
        image, weight = carry(photo, own, turned, start, end, lamp, triangles, torch.arange(4))
        seen = weight == 1
        assert seen.float().sum() > 0.6 * turned.mask.sum()
        expected = albedo * shade(turned.normals, lamp)
        assert (expected - photo).abs()[seen.expand_as(photo)].mean() > 0.05  # the light does change
        assert_close(image[seen.expand_as(image)], expected[seen.expand_as(image)], atol=2e-3, rtol=0)

    def test_a_grazing_surface_is_not_read(self):
        """Seen at 80 degrees a plane is a line of pixels, from which no picture of it can be made."""
        plane = 60 * torch.tensor([[[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]])
        triangles, face = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.ones(2, dtype=torch.bool)
        camera = torch.full((1,), 0.3), torch.tensor([[32.0, 32.0]])
        for degrees, expected in ((80.0, 0.0), (75.0, 1.0)):
            start = euler_to_matrix(torch.tensor([math.radians(degrees)]), torch.zeros(1), torch.zeros(1))
            end = torch.eye(3)[None]
            own, turned = (render_surface(plane, triangles, face, rotation, *camera) for rotation in (start, end))
            photo = own.mask.expand(-1, 3, -1, -1)
            _, weight = carry(photo, own, turned, start, end, even_light(1), triangles, torch.arange(4))
            assert weight[0, 0, 32, 32] == expected

    def test_holes_are_carried_by_what_is_around(self):
        """A plane with a hole, as models have them at the eyes, shows in it what a whole plane shows."""
        steps = torch.tensor([-60.0, -8.0, 8.0, 60.0])
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        plane = torch.stack([x, y, torch.zeros_like(x)], dim=2).view(1, 16, 3)
        cells = [4 * row + column for row in range(3) for column in range(3)]
        triangles = torch.tensor([[(c, c + 1, c + 5), (c, c + 5, c + 4)] for c in cells]).view(18, 3)
        holed = torch.cat([triangles[:8], triangles[10:]])
        start, end = (euler_to_matrix(torch.tensor([yaw]), torch.zeros(1), torch.zeros(1)) for yaw in (0.0, 0.5))
        camera = torch.full((1,), 0.3), torch.tensor([[32.0, 32.0]])
        photo = torch.linspace(0.2, 0.8, 64).expand(1, 3, 64, 64)
        carried = []
        for mesh in (triangles, holed):
            face = torch.ones(len(mesh), dtype=torch.bool)
            own, turned = (render_surface(plane, mesh, face, rotation, *camera, close=7) for rotation in (start, end))
            carried.append(carry(photo, own, turned, start, end, even_light(1), mesh, torch.arange(16), reach=3))
        assert (turned.mask > turned.meshed).sum() > 10
        (image, weight), (filled, filled_weight) = carried
        hole = (turned.mask > turned.meshed)[0, 0]
        assert_close(filled_weight, weight)
        assert_close(filled[0, :, hole], image[0, :, hole], atol=5e-3, rtol=0)
