import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny import make_rows

from facemodels.data.dataset import Faces, PreparedSet, decode_normals, encode_normals, join_sets, write_prepared
from facemodels.errors import InputError


@given(arrays(np.int8, (3, 4, 3), elements=st.integers(-127, 127)))
def test_normals_survive_the_png_form(normals):
    bytes_ = torch.from_numpy(encode_normals(normals).transpose(2, 0, 1)[None].copy())
    assert (decode_normals(bytes_)[0].permute(1, 2, 0).numpy() == normals).all()


def test_round_trip(prepared):
    rows = list(make_rows(24, held_out=8))
    faces = prepared.faces("train")
    assert len(faces) == 16 and len(prepared.faces("test")) == 8 and len(prepared) == 24
    for number in (0, 15):
        face, row = faces[number], rows[number]
        assert (face.image.permute(1, 2, 0).numpy() == row["image"]).all()
        assert (face.normals.permute(1, 2, 0).numpy() == row["normals"]).all()
        assert (face.mask[0].numpy() == row["mask"]).all()
        assert (face.turned_image.permute(1, 2, 0).numpy() == row["turned_image"]).all()
        assert (face.turned_weight[0].numpy() == row["turned_weight"]).all()
        assert (face.swapped_image.permute(1, 2, 0).numpy() == row["swapped_image"]).all()
        assert (face.swapped_weight[0].numpy() == row["swapped_weight"]).all()
        assert face.swapped_row == number ^ 1
        assert np.allclose(face.identity, row["identity"]) and np.allclose(face.rotation, row["rotation"])
        assert bool(face.frontal) == row["frontal"]


def test_morphable_model_and_info_travel_with_the_set(prepared, morphable):
    assert torch.equal(prepared.morphable.expression, morphable.expression)
    assert prepared.info == {"faces": 24, "source": "made for tests"}


def test_limit_and_rows(prepared):
    faces = prepared.faces("train", limit=5)
    assert len(faces) == 5
    assert len(faces[1:3]) == 2
    assert faces.pictures().max() <= 1 and set(faces.masks().unique().tolist()) == {0.0, 1.0}
    assert isinstance(faces.to("cpu"), Faces)


def test_faces_whose_lender_is_not_there_have_no_weight(tmp_path, morphable):
    rows = [dict(row) for row in make_rows(6)]
    for row, lender in zip(
        rows, ("000001.jpg", "000003.jpg", "", "000009.jpg", "000000.jpg", "000002.jpg"), strict=True
    ):
        row["swapped_partner"] = lender
    faces = write_prepared(tmp_path / "set", rows, morphable, {}).faces("train")
    assert faces.swapped_row.tolist() == [1, 3, 2, 3, 0, 2]
    weighted = faces.swapped_weight.flatten(1).any(1).tolist()
    assert weighted == [True, True, False, False, True, True]
    left = faces.usable(torch.tensor([True, False, True, True, True, True]))
    assert left.swapped_row.tolist() == [0, 1, 2, 0, 1] and len(left) == 5
    assert left.swapped_weight.flatten(1).any(1).tolist() == [False, False, False, True, True]
    assert torch.equal(left.image, faces.image[[0, 2, 3, 4, 5]])


def test_sets_without_swapped_faces(tmp_path, morphable):
    rows = ({name: value for name, value in row.items() if "swapped" not in name} for row in make_rows(3))
    faces = write_prepared(tmp_path / "set", rows, morphable, {}).faces("train")
    assert faces.swapped_row.tolist() == [0, 1, 2]
    assert faces.swapped_image.shape == faces.image.shape and faces.swapped_weight.shape == faces.mask.shape
    assert not faces[torch.tensor([0, 2])].swapped_weight.any()
    assert faces.swapped_image.untyped_storage().nbytes() < 10


class TestJoin:
    @pytest.fixture
    def parts(self, tmp_path, morphable):
        rows = [dict(row, person=number) for number, row in enumerate(make_rows(5, held_out=1))]
        more = [dict(row, name=f"b{row['name']}", swapped_partner=f"b{row['swapped_partner']}") for row in make_rows(3)]
        sets = [
            write_prepared(tmp_path / name, part, morphable, {"source": name})
            for name, part in (("a", rows), ("b", more))
        ]
        return [one.path for one in sets]

    def test_faces_and_lenders_of_both(self, parts, tmp_path):
        joined = join_sets(parts, tmp_path / "joined")
        assert joined.table["split"][:] == [*["train"] * 4, "test", *["train"] * 3]
        assert joined.info["sets"] == [{"faces": 5, "source": "a"}, {"faces": 3, "source": "b"}]
        assert "person" not in joined.table.column_names
        one, two = (PreparedSet(path).faces("train") for path in parts)
        faces = joined.faces("train")
        assert torch.equal(faces.image, torch.cat([one.image, two.image]))
        assert torch.equal(faces.swapped_row, torch.cat([one.swapped_row, 4 + two.swapped_row]))
        assert joined.morphable.fingerprint() == PreparedSet(parts[0]).morphable.fingerprint()

    def test_refusals(self, parts, tmp_path, morphable):
        with pytest.raises(InputError, match="joining takes two sets or more"):
            join_sets(parts[:1], tmp_path / "joined")
        with pytest.raises(InputError, match=r"has names that are there already, such as 000000\.jpg"):
            join_sets([parts[0], parts[0]], tmp_path / "joined")
        other = dataclasses.replace(morphable, mean=morphable.mean + 1)
        foreign = write_prepared(tmp_path / "c", make_rows(2), other, {}).path
        with pytest.raises(InputError, match="is of another morphable model than"):
            join_sets([parts[1], foreign], tmp_path / "joined")
        large = write_prepared(tmp_path / "d", make_rows(2, size=128), morphable, {}).path
        with pytest.raises(InputError, match="pictures of 128 pixels"):
            join_sets([parts[1], large], tmp_path / "joined")
        assert not (tmp_path / "joined").exists()

    def test_unfinished_work_of_the_same_name_stays(self, parts, tmp_path):
        (tmp_path / "joined.partial").mkdir()
        (tmp_path / "joined.partial/settings.json").write_text("{}")
        with pytest.raises(InputError, match=r"joined.partial holds an unfinished set; finish that one, remove it"):
            join_sets(parts, tmp_path / "joined")
        assert os.listdir(tmp_path / "joined.partial") == ["settings.json"]


def test_labels_of_evaluation_are_not_among_the_tensors(tmp_path, morphable):
    rows = ({**row, "emotion": "happy", "person": 7} for row in make_rows(2))
    prepared = write_prepared(tmp_path / "set", rows, morphable, {})
    assert prepared.split("train")["emotion"] == ["happy", "happy"]
    assert not hasattr(prepared.faces("train"), "emotion")


def test_nothing_half_written_stays(tmp_path, morphable):
    def broken():
        yield from make_rows(3)
        raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="the lights went out"):
        write_prepared(tmp_path / "set", broken(), morphable, {})
    assert os.listdir(tmp_path) == []


def test_refusals(tmp_path, prepared, morphable):
    with pytest.raises(InputError, match="exists already"):
        write_prepared(prepared.path, make_rows(1), morphable, {})
    with pytest.raises(InputError, match="not one face to write"):
        write_prepared(tmp_path / "empty", [], morphable, {})
    with pytest.raises(InputError, match=r"is not a prepared set \(no preparation.json in it\)"):
        PreparedSet(tmp_path)
    (tmp_path / "preparation.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a prepared set"):
        PreparedSet(tmp_path)


@pytest.mark.parametrize("size", [64, 128])
def test_size_is_that_of_the_pictures(tmp_path, morphable, size):
    prepared = write_prepared(tmp_path / "set", make_rows(2, size=size), morphable, {})
    assert prepared.size == size and prepared.faces("train").image.shape[2:] == (size, size)
    prepared.require_size(size)
    other = 192 - size
    message = rf"holds pictures of {size} pixels, the network takes {other}; prepare it anew with --size {other}"
    with pytest.raises(InputError, match=message):
        prepared.require_size(other)


def test_a_set_of_an_older_format_is_refused(tmp_path, morphable):
    new = ("turned_image", "turned_weight", "turned_partner")
    rows = ({name: value for name, value in row.items() if name not in new} for row in make_rows(2))
    with pytest.raises(
        InputError,
        match="lacks the columns turned_image, turned_weight, turned_partner; prepare it again with this version",
    ):
        write_prepared(tmp_path / "set", rows, morphable, {})


def test_missing_column_and_empty_split(tmp_path, morphable):
    rows = ({name: value for name, value in row.items() if name != "light"} for row in make_rows(2))
    with pytest.raises(InputError, match="lacks the columns light"):
        write_prepared(tmp_path / "set", rows, morphable, {})
    whole = write_prepared(tmp_path / "whole", make_rows(2), morphable, {})
    with pytest.raises(InputError, match="holds no faces of the split 'test'"):
        whole.faces("test")
    assert json.loads((whole.path / "preparation.json").read_text())["faces"] == 2
