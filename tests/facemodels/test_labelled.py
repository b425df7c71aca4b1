import csv
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from found_faces import KnownFaces, make_photo, make_points
from PIL import Image
from tiny import make_rows
from torch.testing import assert_close

from facemodels.data.dataset import write_prepared
from facemodels.data.detection import find_face
from facemodels.errors import InputError
from facemodels.evaluation.labelled import labels_of, read_labelled


@pytest.fixture
def detector(morphable):
    coefficients = torch.randn(3, morphable.n_identity), torch.randn(3, morphable.n_expression)
    points = make_points(morphable, torch.zeros(3, 3), *coefficients)
    return KnownFaces({number: make_photo(number) for number in range(3)}, points)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(4):  # the last shows nobody
        Image.fromarray(make_photo(number)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"\x89PNG torn")
    return tmp_path


def table(folder, rows, columns=("path", "identity", "expression", "pose")):
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder / "labels.csv"


class TestTable:
    def test_faces_are_aligned_and_labelled(self, folder, detector):
        rows = [(f"photos/{number}.png", f"p{number % 2}", "smile" if number else "", number) for number in range(3)]
        faces = read_labelled(table(folder, rows), detector, progress=False)
        assert faces.names == ("photos/0.png", "photos/1.png", "photos/2.png") and faces.skipped == {}
        expected = find_face(make_photo(1), detector).crop
        np.testing.assert_array_equal(faces.pictures[1].permute(1, 2, 0), expected)
        assert faces.labels["identity"].tolist() == ["p0", "p1", "p0"]
        assert faces.known("expression", "pose").tolist() == [False, True, True]
        assert faces[faces.known("expression")].names == ("photos/1.png", "photos/2.png")
        assert faces[[2]].labels["pose"].tolist() == ["2"]

    def test_what_cannot_be_used_is_counted(self, folder, detector):
        names = [
            "photos/0.png",
            "photos/gone.png",
            "photos/lost.png",
            "photos/3.png",
            "photos/torn.png",
            "photos/1.png",
        ]
        rows = [(name, "" if name == "photos/1.png" else "somebody", "", "") for name in names]
        faces = read_labelled(table(folder, rows), detector, progress=False)
        assert faces.names == ("photos/0.png",) and list(faces.labels) == ["identity"]
        assert faces.skipped == {"no label": 1, "no such file": 2, "no face found": 1, "no image, or damaged": 1}

    def test_crops_are_taken_as_they_are(self, folder):
        Image.fromarray(make_photo(7)[:64, :64]).save(folder / "crop.png")
        path = table(folder, [("crop.png", "a"), ("photos/0.png", "b")], ("file", "identity"))
        faces = read_labelled(path, aligned=True, progress=False)
        assert_close(faces.pictures[0], torch.from_numpy(make_photo(7)[:64, :64]).permute(2, 0, 1))
        assert faces.skipped == {"not a crop of 64x64 pixels": 1}

    @pytest.mark.parametrize("between", [";", "\t"])
    def test_tables_of_other_spreadsheets(self, folder, detector, between):
        rows = [["path", "identity", "pose"], ["photos/0.png", "Smith, Jane", "left"]]
        (folder / "labels.csv").write_text("\n".join(between.join(row) for row in rows))
        faces = read_labelled(folder / "labels.csv", detector, progress=False)
        assert faces.labels["identity"].tolist() == ["Smith, Jane"] and faces.labels["pose"].tolist() == ["left"]

    def test_absolute_paths_and_a_mark_of_byte_order(self, folder, detector):
        text = f"path,pose\n{folder / 'photos' / '2.png'},left\n"
        (folder / "labels.csv").write_text(text, encoding="utf-8-sig")
        faces = read_labelled(folder / "labels.csv", detector, progress=False)
        assert faces.labels["pose"].tolist() == ["left"]

    @pytest.mark.photos
    def test_with_mediapipe(self, folder):
        pytest.importorskip("mediapipe", reason="the extra `landmarks` is not installed")
        rows = [(Path(skimage.data.__file__).parent / "astronaut.png", "Collins", "smile", "")]
        faces = read_labelled(table(folder, rows), size=128, progress=False)
        assert faces.pictures.shape == (1, 3, 128, 128) and faces.labels["expression"].tolist() == ["smile"]

    @pytest.mark.parametrize(
        ("rows", "columns", "message"),
        [
            ([("a.png", "x")], ("picture", "pose"), "has the columns picture, pose; it needs one called path"),
            ([("photos/0.png",)], ("path",), "has the columns path; it needs one called path and one or more with"),
            ([], ("path", "pose"), "has no rows; give a table with the columns path, identity"),
            ([("a.png", "x"), ("b.png", "")], ("path", "pose"), r"gives no face.*\(1 no label, 1 no such file\)"),
            ([("photos/0.png", "")], ("path", "pose"), r"gives no face to look at \(1 no label\)"),
        ],
    )
    def test_bad_tables(self, folder, detector, rows, columns, message):
        with pytest.raises(InputError, match=message):
            read_labelled(table(folder, rows, columns), detector, progress=False)

    def test_no_table(self, folder, detector):
        with pytest.raises(InputError, match=r"nothing\.csv cannot be read as CSV"):
            read_labelled(folder / "nothing.csv", detector)
        with pytest.raises(InputError, match=r"0\.png cannot be read as CSV"):
            read_labelled(folder / "photos/0.png", detector)

    def test_no_such_labels(self, folder, detector):
        faces = read_labelled(table(folder, [("photos/0.png", "x", "", "")]), detector, progress=False)
        with pytest.raises(ValueError, match="no labels of pose, only of identity"):
            faces.known("pose")


class TestPreparedSet:
    def test_labels_of_columns(self, tmp_path, morphable):
        rows = [
            row | {"person": number // 2, "emotion": "sad", "pose_index": 3}
            for number, row in enumerate(make_rows(6, held_out=2))
        ]
        prepared = write_prepared(tmp_path / "set", rows, morphable, {})
        faces = labels_of(prepared)
        assert len(faces) == 6 and faces.labels["identity"].tolist() == ["0", "0", "1", "1", "2", "2"]
        assert set(faces.labels) == {"identity", "expression", "pose"} and faces.labels["expression"][0] == "sad"
        held_out = labels_of(prepared, "test")
        assert held_out.names == ("000004.jpg", "000005.jpg")
        assert_close(held_out.pictures, prepared.faces("test").image)

    def test_photos_have_none(self, prepared):
        with pytest.raises(InputError, match="holds photos without labels; give a table"):
            labels_of(prepared)
        with pytest.raises(InputError, match="no faces of the split 'other'"):
            labels_of(prepared, "other")
