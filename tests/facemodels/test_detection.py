import io
import math

import numpy as np
import pytest
import torch
from found_faces import KnownFaces, make_photo, make_points
from numpy.testing import assert_allclose
from PIL import Image

from facemodels.data.alignment import apply_transform
from facemodels.data.detection import examine, find_face
from facemodels.fitting.landmarks import Landmarks
from facemodels.morphable import MorphableModel


@pytest.fixture(scope="module")
def points():
    morphable = MorphableModel.procedural()
    angles = torch.tensor([[0.2, 0.0, 0.0], [0.1, 0.1, 0.0], [0.0, 0.1, 0.1]])
    return make_points(morphable, angles, torch.zeros(3, morphable.n_identity), torch.zeros(3, morphable.n_expression))


@pytest.fixture(scope="module")
def photos():
    return {number: make_photo(number) for number in range(3)}


@pytest.fixture(scope="module")
def detector(photos, points):
    return KnownFaces(photos, points, faces={1: 10}, shaky={1: 6.0, 2: None})


def in_photo(found, points):
    return apply_transform(found.transform, points[:, :2])


class TestFindFace:
    def test_looks_that_agree(self, detector, photos, points):
        found = find_face(photos[0], detector)
        assert found.disagreement < 1e-3 and found.faces == 1 and found.turn == 0
        assert_allclose(found.points[:, :2], in_photo(found, points[0]), atol=1e-3)
        assert_allclose(Landmarks.from_points(found.points).five.mean(0), [32.2, 41.8], atol=0.1)

    def test_looks_that_disagree(self, detector, photos, points):
        found = find_face(photos[1], detector)
        scale = math.sqrt(np.linalg.det(found.transform[:, :2]))
        assert_allclose(found.disagreement, 6 * scale, rtol=1e-5)
        middle = points[1] - np.array([3, 0, 0])  # mirrored points that lie 6 to the right lie 6 to the left here
        assert_allclose(found.points[:, :2], in_photo(found, middle), atol=1e-3)
        assert found.faces == 10

    def test_not_found_again(self, detector, photos):
        assert find_face(photos[2], detector).disagreement == math.inf

    @pytest.mark.parametrize("quarters", [1, 2, 3])
    def test_photo_on_its_side_or_upside_down(self, detector, photos, points, quarters):
        """The landmarks are where they are in the upright photo; the transform is one of the photo as it came."""
        found = find_face(np.rot90(photos[0], -quarters), detector)
        upright = find_face(photos[0], detector)
        assert found.turn == 90 * quarters
        assert_allclose(found.points, upright.points, atol=1e-4)
        assert (found.crop == upright.crop).all()
        x, y = points[0][4, :2]
        came = {1: (100 - y, x), 2: (100 - x, 100 - y), 3: (y, 100 - x)}[quarters]
        assert_allclose(apply_transform(found.transform, np.array([came]))[0], found.points[4, :2], atol=1e-3)

    def test_what_looks_like_a_face_only_from_the_side_is_none(self, detector, photos):
        assert find_face(np.rot90(photos[1]), detector) is None

    def test_no_face(self, detector):
        assert find_face(make_photo(99), detector) is None

    def test_points_in_one_place_are_no_face(self):
        class Collapsed:
            def detect(self, image):
                return Landmarks.from_points(np.full((478, 3), 5, np.float32))

        assert find_face(make_photo(0), Collapsed()) is None


class TestExamine:
    def test_bytes_and_pixels_are_the_same(self, detector, photos):
        file = io.BytesIO()
        Image.fromarray(photos[0]).save(file, "PNG")
        assert_allclose(examine("a.png", file.getvalue(), detector).points, examine("a", photos[0], detector).points)

    def test_reasons(self, detector):
        assert examine("a.jpg", b"text", detector).startswith("a.jpg is no image or is damaged")
        assert examine("a.jpg", make_photo(99), detector).startswith("no face found in a.jpg")
