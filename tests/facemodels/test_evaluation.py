import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facemodels.errors import InputError
from facemodels.evaluation import encode_all, measure, swap_rates
from facemodels.evaluation.measures import angle_between, nearest_rotation, normals_error, psnr
from facemodels.evaluation.report import evaluate, labels_of, read_labels
from facemodels.evaluation.swaps import PixelJudge
from facemodels.rendering import euler_to_matrix


def angles(*degrees):
    return torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))


def test_psnr_of_a_known_error():
    image = torch.zeros(2, 3, 8, 8)
    assert_close(psnr(image, image + 0.1), torch.full((2,), 20.0))
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    half = image.clone()
    half[:, :, :4] = 0.1
    assert_close(psnr(image, half, mask), torch.full((2,), 20.0))
    assert float(psnr(image, half)[0]) == pytest.approx(20 + 10 * np.log10(2), abs=1e-3)


def test_angle_between_rotations():
    still = torch.zeros(3)
    first = euler_to_matrix(angles(0, 10, 40), still, still)
    second = euler_to_matrix(angles(30, 10, 10), still, still)
    assert_close(angle_between(first, second), torch.tensor([30.0, 0.0, 30.0]), atol=0.05, rtol=0)


def test_nearest_rotation_is_a_rotation_and_keeps_one():
    matrices = torch.randn(20, 3, 3)
    near = nearest_rotation(matrices)
    assert_close(near @ near.mT, torch.eye(3).expand(20, 3, 3), atol=1e-5, rtol=0)
    assert_close(torch.det(near), torch.ones(20))
    assert_close(nearest_rotation(near), near, atol=1e-5, rtol=0)
    assert_close(nearest_rotation(3 * near), near, atol=1e-5, rtol=0)


def test_normals_error_sees_the_mask_only():
    towards, up = torch.zeros(2, 1, 3, 4, 4)
    towards[:, 2] = 1
    up[:, 1] = 1
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0] = 1
    mixed = torch.where(mask > 0, up, towards)
    assert normals_error(towards, mixed, mask) == pytest.approx(90, abs=1e-3)
    assert normals_error(towards, mixed, 1 - mask) == pytest.approx(0, abs=0.1)


def test_measures_of_perfect_codings(model, prepared):
    faces = prepared.faces("test")
    codings = encode_all(model, faces)
    perfect = dataclasses.replace(
        codings,
        codes=codings.codes.replace(pose=faces.rotation),
        image=faces.pictures(),
        face=faces.pictures(),
        normals=faces.normals.float() / 127,
        mask=faces.masks(),
    )
    measures = measure(model, faces, perfect)
    assert measures["psnr"] > 90 and measures["psnr_face"] > 90
    assert measures["pose_degrees"] < 0.1 and measures["normals_degrees"] < 0.1
    assert measures["mask_iou"] == 1 and measures["leak"] == pytest.approx(0, abs=1e-6)


def test_leak_counts_what_the_background_paints(model, prepared):
    faces = prepared.faces("test")
    codings = encode_all(model, faces)
    photo = faces.pictures()
    all_background = dataclasses.replace(
        codings, image=photo, background=photo, mask=torch.zeros_like(codings.mask), face=torch.zeros_like(photo)
    )
    assert measure(model, faces, all_background)["leak"] == pytest.approx(1, abs=1e-5)


@pytest.fixture
def smiles():
    """Pictures whose lower half is bright where the label holds."""
    labels = np.arange(60) % 2 == 0
    images = 0.3 * torch.rand(60, 3, 64, 64)
    images[torch.from_numpy(labels), :, 40:52, 20:44] += 0.5
    return images, labels


class _Swapper:
    """A network whose expression code is the picture's lower half, and which puts it where it belongs."""

    def __init__(self, model, obeys):
        self.model, self.obeys = model, obeys

    def encode(self, images):
        codes = self.model.encode(images)
        mouth = images[:, :, 32:].flatten(1)
        rest = images[:, :, :32].flatten(1)
        return dataclasses.replace(codes, expression=mouth, identity=rest, background=mouth)

    def decode(self, codes):
        mouth = codes.expression if self.obeys else codes.background
        image = torch.cat([codes.identity.unflatten(1, (3, 32, 64)), mouth.unflatten(1, (3, 32, 64))], 2)
        return dataclasses.make_dataclass("Parts", ["image"])(image)


def test_swap_rates_tell_obedient_networks_from_others(model, smiles):
    images, labels = smiles
    judge = PixelJudge(images[:40], labels[:40])
    good = swap_rates(_Swapper(model, True), images[40:], labels[40:], judge)
    bad = swap_rates(_Swapper(model, False), images[40:], labels[40:], judge)
    assert good.photos == 1 and good.reconstruction == 1
    assert (good.expression, good.identity) == (1.0, 0.0)
    assert (bad.expression, bad.identity) == (0.0, 0.0)
    assert good.pairs == bad.pairs > 0


def test_swap_rates_need_both_labels(model, smiles):
    images, labels = smiles
    judge = PixelJudge(images, labels)
    with pytest.raises(ValueError, match="all labels are equal"):
        swap_rates(model, images[:4], np.ones(4, bool), judge)


class TestLabels:
    def test_report_with_labels(self, model, prepared, tmp_path):
        path = tmp_path / "labels.csv"
        lines = [f"{name},{number % 2}" for number, name in enumerate(prepared.table["name"])]
        path.write_text("\n".join(["file,Smiling", *lines]))
        report = evaluate(model, prepared, path)
        assert report.faces == 8 and report.swaps is not None and report.swaps.pairs > 0
        text = "\n".join(report.lines())
        assert "expression swap shows the donor's label" in text and "PSNR of the picture" in text

    def test_report_without(self, model, prepared):
        report = evaluate(model, prepared)
        assert report.swaps is None and len(report.lines()) == 8

    def test_refusals(self, prepared, tmp_path):
        path = tmp_path / "labels.csv"
        with pytest.raises(InputError, match="cannot be read as CSV"):
            read_labels(path, "Smiling")
        path.write_text("file,Young\n000001.jpg,1\n")
        with pytest.raises(InputError, match="has no column Smiling"):
            read_labels(path, "Smiling")
        with pytest.raises(InputError, match="has no label for 16 faces"):
            labels_of(prepared, "train", {"nobody.jpg": True}, path)
