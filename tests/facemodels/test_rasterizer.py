import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from facemodels.rendering import close_holes, interpolate, rasterize, render_geometry, vertex_normals

SQUARE = torch.tensor([[0, 2, 1], [1, 2, 3]])  # two triangles, corners: left top, right top, left bottom, right bottom


def soup(seed, count=2, vertices=24, triangles=40, size=12.0, dtype=torch.float64):
    """Random triangles in, around and outside of the image."""
    generator = torch.Generator().manual_seed(seed)
    screen = torch.rand(count, vertices, 3, generator=generator, dtype=dtype) * size * 1.4 - 0.2 * size
    screen[..., 2] += size  # in front of a pinhole camera
    return screen, torch.randint(vertices, (triangles, 3), generator=generator)


def by_loops(screen, triangles, height, width, perspective=False):
    """The definition: every pixel against every triangle, one after the other."""
    number = torch.full((len(screen), height, width), -1)
    weights = torch.zeros(len(screen), height, width, 3, dtype=screen.dtype)
    depth = torch.full((len(screen), height, width), torch.inf, dtype=screen.dtype)
    for image, corners in enumerate(screen):
        for index, (a, b, c) in enumerate(corners[triangles].tolist()):
            area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
            if area >= 0 or (perspective and min(a[2], b[2], c[2]) <= 1.0):
                continue
            for row in range(height):
                for column in range(width):
                    x, y = column + 0.5, row + 0.5
                    shares = [
                        ((q[0] - x) * (r[1] - y) - (q[1] - y) * (r[0] - x)) / area for q, r in ((b, c), (c, a), (a, b))
                    ]
                    if min(shares) < 0:
                        continue
                    if perspective:
                        shares = [share / corner[2] for share, corner in zip(shares, (a, b, c), strict=True)]
                        shares = [share / sum(shares) for share in shares]
                    z = sum(share * corner[2] for share, corner in zip(shares, (a, b, c), strict=True))
                    if z < depth[image, row, column]:
                        depth[image, row, column] = z
                        number[image, row, column] = index
                        weights[image, row, column] = torch.tensor(shares, dtype=screen.dtype)
    return number, weights, depth


class TestRasterize:
    @pytest.mark.parametrize("perspective", [False, True])
    @pytest.mark.parametrize("size", [(1, 1), (7, 12), (12, 12)])
    def test_matches_definition(self, size, perspective):
        screen, triangles = soup(seed=1)
        fragments = rasterize(screen, triangles, size, perspective=perspective)
        number, weights, depth = by_loops(screen, triangles, *size, perspective)
        assert torch.equal(fragments.triangle, number)
        assert_close(fragments.barycentric, weights)
        assert_close(fragments.depth, depth)

    @settings(max_examples=10)
    @given(st.integers(0, 10_000))
    def test_matches_definition_for_any_triangles(self, seed):
        screen, _ = soup(seed, count=1, vertices=45, size=6.0)
        triangles = torch.arange(45).view(15, 3)  # each with its own corners: no depths are equal up to rounding
        number, weights, _ = by_loops(screen, triangles, 6, 6)
        fragments = rasterize(screen, triangles, 6)
        assert torch.equal(fragments.triangle, number)
        assert_close(fragments.barycentric, weights)

    def test_batch_is_each_image_by_itself(self):
        screen, triangles = soup(seed=2, count=19)  # more than are worked on at once
        together = rasterize(screen, triangles, 12).triangle
        assert torch.equal(together, torch.cat([rasterize(one[None], triangles, 12).triangle for one in screen]))

    def test_back_faces_are_not_seen(self):
        screen = torch.tensor([[[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [4.0, 4.0, 1.0]]])
        assert (rasterize(screen, SQUARE, 4).triangle >= 0).all()
        assert (rasterize(screen, SQUARE.flip(1), 4).triangle < 0).all()

    def test_equal_depths_show_the_first(self):
        screen = torch.tensor([[[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 4.0, 1.0], [4.0, 4.0, 1.0]]])
        twice = torch.cat([SQUARE, SQUARE])
        assert (rasterize(screen, twice, 4).triangle < 2).all()

    def test_perspective_leaves_out_what_is_behind_the_camera(self):
        screen = torch.tensor([[[0.0, 0.0, 50.0], [4.0, 0.0, 50.0], [0.0, 4.0, -3.0], [4.0, 4.0, 50.0]]])
        assert (rasterize(screen, SQUARE, 4, perspective=True).triangle < 0).all()

    def test_perspective_weights_are_correct_on_a_slanted_floor(self):
        # A square floor seen at an angle: the middle of the image shows the middle of the near half.
        near, far = 1.0, 3.0
        corners = [[-2 / far, -1 / far, far], [2 / far, -1 / far, far], [-2 / near, -1 / near, near], [2, -1, near]]
        screen = torch.tensor([corners], dtype=torch.float64)
        screen[..., :2] = 4 + 3 * screen[..., :2] * torch.tensor([1.0, -1.0])
        screen[..., 2] *= 100
        fragments = rasterize(screen, SQUARE, 8, perspective=True)
        seen = interpolate(screen[..., 2:], SQUARE, fragments)[0, 0, 5, 3]
        assert_close(seen, torch.tensor(300 / 1.5, dtype=torch.float64))  # row 5.5 is 1.5 below the horizon; y = -1

    def test_no_triangle_and_no_image(self):
        assert (rasterize(torch.zeros(2, 3, 3), torch.zeros(0, 3, dtype=torch.long), 3).triangle < 0).all()
        fragments = rasterize(torch.zeros(0, 3, 3), torch.tensor([[0, 1, 2]]), 3)
        assert fragments.triangle.shape == (0, 3, 3)
        assert interpolate(torch.zeros(0, 3, 2), torch.tensor([[0, 1, 2]]), fragments).shape == (0, 2, 3, 3)

    @pytest.mark.parametrize(
        ("screen", "triangles", "size", "message"),
        [
            ((3, 3), (1, 3), 4, r"screen must have shape \(n, vertices, 3\), got \(3, 3\)"),
            ((1, 3, 3), (3, 1), 4, r"triangles must have shape \(triangles, 3\), got \(3, 1\)"),
            ((1, 3, 3), (1, 3), 0, "at least one pixel each way, got height 0 and width 0"),
        ],
    )
    def test_rejects_wrong_shapes(self, screen, triangles, size, message):
        with pytest.raises(ValueError, match=message):
            rasterize(torch.zeros(screen), torch.zeros(triangles, dtype=torch.long), size)


def assert_as_by_loops(screen, triangles, size, *, perspective=False):
    """The same pixels and depths; where triangles are equally near up to rounding, either may be shown."""
    fragments = rasterize(screen, triangles, size, perspective=perspective)
    number, weights, depth = by_loops(screen, triangles, *size, perspective)
    assert torch.equal(fragments.covered, number >= 0)
    assert_close(fragments.depth, depth, atol=1e-9, rtol=1e-9)
    same = fragments.triangle == number
    assert_close(fragments.barycentric[same], weights[same], atol=1e-9, rtol=1e-9)
    return same


@st.composite
def lattices(draw):
    """Triangles whose corners lie on a lattice of half pixels: pixel centres fall on edges and corners all the time."""
    count = draw(st.integers(3, 12))
    coordinate = st.integers(-4, 16).map(lambda k: k / 2)
    corner = st.tuples(coordinate, coordinate, st.integers(2, 9).map(float))
    screen = torch.tensor([draw(st.lists(corner, min_size=count, max_size=count))], dtype=torch.float64)
    triangle = st.lists(st.integers(0, count - 1), min_size=3, max_size=3)
    return screen, torch.tensor(draw(st.lists(triangle, min_size=1, max_size=12)))


class TestEdgeCases:
    @settings(max_examples=60)
    @given(lattices(), st.booleans())
    def test_matches_definition_where_centres_lie_on_edges(self, mesh, perspective):
        assert_as_by_loops(*mesh, (6, 7), perspective=perspective)

    @settings(max_examples=30)
    @given(st.integers(0, 10_000), st.floats(-12, 12))
    def test_matches_definition_around_the_camera(self, seed, nearer):
        screen, triangles = soup(seed, count=1, vertices=30, triangles=15, size=6.0)
        screen[..., 2] -= nearer  # some corners lie behind the camera
        assert assert_as_by_loops(screen, triangles, (6, 6), perspective=True).all()

    @settings(max_examples=30)
    @given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10_000))
    def test_neighbours_leave_no_hole(self, rows, columns, seed):
        # A grid over the whole image, its inner corners moved at random, some of them onto pixel centres.
        generator = torch.Generator().manual_seed(seed)
        y, x = torch.meshgrid(torch.linspace(0, 8, rows), torch.linspace(0, 8, columns), indexing="ij")
        points = torch.stack([x, y, torch.zeros_like(x)], dim=-1).double()
        inner = points[1:-1, 1:-1]
        inner[..., :2] += (torch.rand(inner[..., :2].shape, generator=generator) - 0.5) * 8 / max(rows, columns) * 0.9
        inner[..., :2] = torch.where(torch.rand(inner[..., :1].shape, generator=generator) < 0.5,
                                     inner[..., :2].round() + 0.5, inner[..., :2])  # fmt: skip
        i, j = torch.meshgrid(torch.arange(rows - 1), torch.arange(columns - 1), indexing="ij")
        here = (i * columns + j).flatten()
        below, right, diagonal = here + columns, here + 1, here + columns + 1
        triangles = torch.cat([torch.stack([here, below, right], 1), torch.stack([right, below, diagonal], 1)])
        both_sides = torch.cat([triangles, triangles.flip(1)])  # a corner moved far turns its triangles over
        assert rasterize(points.view(1, -1, 3), both_sides, 8).covered.all()

    @pytest.mark.parametrize(
        "corners",
        [
            [[1.0, 1, 5], [1, 1, 5], [1, 1, 5]],  # a point
            [[0.0, 0, 5], [3, 3, 5], [6, 6, 5]],  # a line through pixel centres
            [[0.0, 0.5, 5], [6, 0.5, 5], [6, 0.5, 5]],
            [[0.0, 6, 5], [torch.nan, 6, 5], [0, 0, 5]],
            [[0.0, 6, 5], [torch.inf, 6, 5], [0, 0, 5]],
        ],
        ids=["point", "line", "twice the same corner", "not a number", "infinite"],
    )
    @pytest.mark.parametrize("perspective", [False, True])
    def test_degenerate_triangles_are_not_seen(self, corners, perspective):
        fragments = rasterize(torch.tensor([corners]), torch.tensor([[0, 1, 2]]), 6, perspective=perspective)
        assert not fragments.covered.any()
        assert (fragments.barycentric == 0).all()

    def test_degenerate_triangles_leave_the_others_alone(self):
        screen, triangles = soup(seed=4)
        some = torch.cat([triangles[:5], triangles[:5, [0, 0, 1]], triangles[5:]])
        shown = rasterize(screen, some, 12).triangle
        number = torch.where(shown >= 5, shown - 5, shown)
        assert torch.equal(number, rasterize(screen, triangles, 12).triangle)

    def test_a_sliver_whose_weights_round_to_zero_hides_nothing(self):
        behind = [[-9.0, 20, 9], [20, 20, 9], [-9, -20, 9]]
        sliver = [
            [2.436002492904663, 2.408822774887085, 5],
            [2.6915905475616455, 2.772958993911743, 5],
            [2.4455645084381104, 2.422445774078369, 5],
        ]
        fragments = rasterize(torch.tensor([behind + sliver]), torch.tensor([[0, 1, 2], [3, 4, 5]]), 6)
        assert fragments.triangle[0, 2, 2] == 0 and (fragments.depth[0, 2, 2] - 9).abs() < 1e-4

    @pytest.mark.parametrize("shift", [(100.0, 0.0), (-100.0, 0.0), (0.0, 100.0), (0.0, -100.0), (1e9, -1e9)])
    def test_off_screen_triangles_are_not_seen(self, shift):
        screen, triangles = soup(seed=6)
        screen[..., :2] += torch.tensor(shift, dtype=torch.float64)
        assert not rasterize(screen, triangles, 12).covered.any()

    @settings(max_examples=20)
    @given(st.integers(0, 10_000), st.integers(0, 7), st.integers(0, 7))
    def test_a_window_of_an_image_is_a_part_of_it(self, seed, left, top):
        screen, triangles = soup(seed)
        whole = rasterize(screen, triangles, 12)
        window = rasterize(screen - torch.tensor([left, top, 0], dtype=torch.float64), triangles, (5, 4))
        part = (slice(None), slice(top, top + 5), slice(left, left + 4))
        assert torch.equal(window.triangle, whole.triangle[part])
        assert_close(window.barycentric, whole.barycentric[part])

    def test_a_triangle_larger_than_the_image_covers_it(self):
        screen = torch.tensor([[[-1e4, 1e4, 5.0], [1e4, 1e4, 5.0], [0.0, -1e4, 5.0]]])
        assert rasterize(screen, torch.tensor([[0, 1, 2]]), 16).covered.all()

    def test_float32_agrees_with_float64_away_from_edges(self):
        screen, triangles = soup(seed=7)
        single, double = (rasterize(values, triangles, 12) for values in (screen.float(), screen))
        assert (single.triangle == double.triangle).float().mean() > 0.98


class TestInterpolate:
    def test_reproduces_the_position_of_each_pixel(self):
        screen, triangles = soup(seed=3, dtype=torch.float64)
        fragments = rasterize(screen, triangles, 12)
        seen = interpolate(screen, triangles, fragments)
        column, row = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(12) + 0.5, indexing="xy")
        expected = torch.stack([column, row]).double() * fragments.covered[:, None]
        assert_close(seen[:, :2], expected)

    def test_shared_values(self):
        screen, triangles = soup(seed=3)
        fragments = rasterize(screen, triangles, 12)
        colours = torch.rand(1, 24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert_close(
            interpolate(colours, triangles, fragments), interpolate(colours.expand(2, 24, 3), triangles, fragments)
        )

    @pytest.mark.parametrize("perspective", [False, True])
    def test_gradients(self, perspective):
        screen, triangles = soup(seed=5, count=1, vertices=8, triangles=12, size=4.0)
        values = torch.rand(1, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def picture(screen, values):
            return interpolate(values, triangles, rasterize(screen, triangles, 4, perspective=perspective))

        assert (picture(screen, values) != 0).any()
        assert torch.autograd.gradcheck(picture, (screen.requires_grad_(), values.requires_grad_()))


class TestVertexNormals:
    def test_of_a_sphere_are_its_points(self):
        points, triangles = sphere()
        assert_close(vertex_normals(points[None], triangles)[0, 32:-32], points[32:-32], atol=0.03, rtol=0)

    def test_gradients(self):
        points, triangles = sphere(rings=4, sectors=5)
        assert torch.autograd.gradcheck(lambda p: vertex_normals(p, triangles), points.double()[None].requires_grad_())


def sphere(rings=24, sectors=32):
    """Unit sphere: points (V, 3) and triangles, anticlockwise from outside."""
    polar, around = torch.meshgrid(
        torch.linspace(0.02, torch.pi - 0.02, rings), torch.arange(sectors) / sectors * 2 * torch.pi, indexing="ij"
    )
    points = torch.stack([polar.cos(), polar.sin() * around.cos(), polar.sin() * around.sin()], dim=-1).flatten(0, 1)
    i, j = torch.meshgrid(torch.arange(rings - 1), torch.arange(sectors), indexing="ij")
    here, after = (i * sectors + j).flatten(), (i * sectors + (j + 1) % sectors).flatten()
    return points, torch.cat([
        torch.stack([here, here + sectors, after], dim=1),
        torch.stack([after, here + sectors, after + sectors], dim=1),
    ])  # fmt: skip


class TestRenderGeometry:
    SCALE, SHIFT = torch.tensor([20.0]), torch.tensor([[32.0, 32.0]])

    def render(self, face=None, **options):
        points, triangles = sphere()
        face = torch.ones(len(triangles), dtype=torch.bool) if face is None else face(points, triangles)
        return render_geometry(points[None], triangles, face, torch.eye(3)[None], self.SCALE, self.SHIFT, **options)

    def test_normals_of_a_sphere(self):
        normals, mask = self.render()
        assert normals.shape == (1, 3, 64, 64)
        assert mask.shape == (1, 1, 64, 64)
        column, row = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="xy")
        x, y = (column - 32) / 20, (32 - row) / 20
        inside = x.square() + y.square() < 0.95**2
        assert (mask[0, 0] > 0)[inside].all()
        assert_close(normals[0, 0][inside], x[inside], atol=0.03, rtol=0)
        assert_close(normals[0, 1][inside], y[inside], atol=0.03, rtol=0)

    def test_normals_are_unit_in_the_mask_and_zero_outside(self):
        normals, mask = self.render(close=5)
        assert_close(normals.norm(dim=1), mask[:, 0])

    def test_nearer_parts_that_are_no_face_hide_it(self):
        _, all_of_it = self.render()
        _, lower = self.render(face=lambda points, triangles: points[triangles][:, :, 1].mean(dim=1) < 0)
        assert lower[:, :, 33:].equal(all_of_it[:, :, 33:])
        assert lower[:, :, :31].sum() == 0

    def test_closing_fills_a_hole_with_its_neighbours(self):
        def with_hole(points, triangles):
            return points[triangles].mean(dim=1)[:, :2].norm(dim=1) > 0.11

        _, whole = self.render()
        _, open_mask = self.render(face=with_hole)
        normals, closed = self.render(face=with_hole, close=7)
        assert open_mask.sum() < whole.sum()
        assert_close(closed, whole)
        assert_close(normals.norm(dim=1), whole[:, 0])
        assert (normals[0, 2, 30:34, 30:34] > 0.98).all()

    def test_closing_reaches_the_middle_of_a_hole(self):
        normals, mask = torch.zeros(1, 3, 15, 15), torch.ones(1, 1, 15, 15)
        normals[:, 2] = 1
        mask[:, :, 5:10, 5:10] = 0
        filled, closed = close_holes(normals * mask, mask, 7)
        assert_close(closed, torch.ones_like(mask))
        assert_close(filled, normals)

    def test_closing_adds_nothing_outside(self):
        _, mask = self.render()
        _, closed = self.render(close=7)
        assert_close(closed, mask)

    def test_rejects_an_even_square(self):
        with pytest.raises(ValueError, match="close must be 0 or an odd number of pixels, got 4"):
            self.render(close=4)

    def test_rejects_a_face_of_another_length(self):
        with pytest.raises(ValueError, match=r"one entry for each of 1472 triangles, got \(7,\)"):
            self.render(face=lambda points, triangles: torch.ones(7, dtype=torch.bool))
