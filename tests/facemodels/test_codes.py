import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.codes import FACTORS, Codes
from facemodels.errors import InputError


@pytest.fixture
def codes(model):
    with torch.no_grad():
        return model.encode(torch.rand(4, 3, 64, 64))


def test_sizes(codes, network_config):
    assert len(codes) == 4
    sizes = {name: getattr(codes, name).shape[1] for name in FACTORS}
    assert sizes == {"background": 7, "mask": 6, "light": 9, "pose": 9, "identity": 9, "expression": 6}


@pytest.mark.parametrize("index", [0, -1, slice(1, 3), torch.tensor([2, 0])], ids=str)
def test_rows_keep_their_context(codes, index):
    some = codes[index]
    whole = codes.context.skips[0]
    expected = whole[index] if not isinstance(index, int) else whole[index][None]
    assert_close(some.context.skips[0], expected)
    assert some.identity.ndim == 2


def test_parts_together_are_the_whole(codes):
    again = Codes.cat([codes[:1], codes[1:]])
    for name in FACTORS:
        assert_close(getattr(again, name), getattr(codes, name))
    assert_close(again.context.indices[2], codes.context.indices[2])


def test_a_shared_context_stays_one(codes, tmp_path):
    """So that it is held and written once, also of some of the faces."""
    codes = dataclasses.replace(codes, background_context=codes.context)
    for some in (codes[1:3], codes[-1], Codes.cat([codes[:1], codes[1:]])):
        assert some.background_context is some.context
        some.save(tmp_path / "some.safetensors")
        assert_close(Codes.load(tmp_path / "some.safetensors").context.skips[0], some.context.skips[0])
    apart = Codes.cat([codes[:1], dataclasses.replace(codes[1:], background_context=codes.context[1:])])
    assert_close(apart.background_context.skips[0], codes.context.skips[0])


def test_replace_changes_one_code_only(codes):
    swapped = codes.replace(expression=codes.expression.flip(0))
    assert_close(swapped.expression[0], codes.expression[3])
    assert all(getattr(swapped, name) is getattr(codes, name) for name in FACTORS if name != "expression")


@pytest.mark.parametrize("name", FACTORS)
def test_interpolation_is_linear_with_the_right_ends(codes, name):
    start, end = codes[:2], codes[2:]
    assert_close(getattr(start.interpolate(end, name, 0.0), name), getattr(start, name))
    assert_close(getattr(start.interpolate(end, name, 1.0), name), getattr(end, name))
    middle = getattr(start.interpolate(end, name, 0.5), name)
    assert_close(middle, (getattr(start, name) + getattr(end, name)) / 2)


def test_expand(codes):
    assert_close(codes[2].expand(3).identity[1], codes.identity[2])
    with pytest.raises(ValueError, match="needs the codes of one face, got 4"):
        codes.expand(2)


@pytest.mark.parametrize("shared", [True, False])
def test_file(codes, tmp_path, shared):
    if shared:
        codes = dataclasses.replace(codes, background_context=codes.context)
    codes.save(tmp_path / "codes.safetensors")
    again = Codes.load(tmp_path / "codes.safetensors")
    assert (again.background_context is again.context) == shared
    first, second = codes.to_tensors(), again.to_tensors()
    assert list(first) == list(second)
    for name, value in first.items():
        assert_close(second[name], value, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["codes.safetensors"]


def test_codes_of_a_file_decode_to_the_same_picture(model, codes, tmp_path):
    codes.save(tmp_path / "codes.safetensors")
    with torch.no_grad():
        assert_close(model.decode(Codes.load(tmp_path / "codes.safetensors")).image, model.decode(codes).image)


def test_files_that_hold_no_codes(codes, tmp_path, morphable):
    path = tmp_path / "codes.safetensors"
    with pytest.raises(InputError, match=r"there is no file .*codes"):
        Codes.load(path)
    codes.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="is a damaged safetensors file"):
        Codes.load(path)
    morphable.save(path)
    with pytest.raises(InputError, match="holds no codes"):
        Codes.load(path)
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; make it first"):
        codes.save(tmp_path / "nowhere" / "codes.safetensors")


def test_refusals(codes):
    with pytest.raises(ValueError, match="there is no code 'hair'; choose one of background"):
        codes.replace(hair=codes.identity)
    with pytest.raises(ValueError, match=r"identity has shape \(4, 9\), got \(1, 9\)"):
        codes.replace(identity=codes.identity[:1])
    with pytest.raises(ValueError, match="there is no code 'hair'"):
        codes.interpolate(codes, ["identity", "hair"], 0.5)
