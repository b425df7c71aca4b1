import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from tiny import make_rows
from torch.testing import assert_close

from facemodels.autoencoder import Face
from facemodels.codes import FACTORS, Codes
from facemodels.data.dataset import write_prepared
from facemodels.errors import InputError
from facemodels.evaluation import Codings, encode_all, measure, swap_rates
from facemodels.evaluation.measures import angle_between, nearest_rotation, normals_error, overlap, psnr, quality, ssim
from facemodels.evaluation.report import LINES, Labels, Report, evaluate, reaches, read_labels, teach_judge
from facemodels.evaluation.swaps import EdgeJudge, PixelJudge
from facemodels.networks import Context
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


class TestSsim:
    def test_of_equal_pictures(self):
        image = torch.rand(2, 3, 16, 16)
        assert_close(ssim(image, image), torch.ones(2))
        assert_close(ssim(image, image, torch.ones(2, 1, 16, 16)), torch.ones(2))

    def test_of_constant_pictures(self):
        """Without structure only the brightness counts: (2ab + c) / (a^2 + b^2 + c) with c = 0.01^2."""
        grey, bright = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
        expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
        assert float(ssim(grey, bright)) == pytest.approx(expected, abs=1e-6)

    def test_sees_the_mask_only(self):
        image = torch.rand(1, 3, 32, 32)
        other = image.clone()
        other[..., :8] = torch.rand(1, 3, 32, 8)
        mask = torch.zeros(1, 1, 32, 32)
        mask[..., 16:] = 1
        assert float(ssim(image, other, mask)) == pytest.approx(1) and float(ssim(image, other)) < 0.95


def test_quality_of_a_known_error():
    photos = torch.full((2, 3, 16, 16), 0.5)
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, :8] = 1
    result = quality(photos + 0.1 * mask, photos, mask)
    assert result.psnr_face == pytest.approx(20, abs=1e-3) and result.psnr == pytest.approx(23.01, abs=1e-2)
    assert result.to_dict()["psnr"] == result.psnr
    brighter = quality(photos + 0.1, photos, mask)
    expected = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)  # without structure only the brightness counts
    assert brighter.ssim == pytest.approx(expected, abs=1e-6) == brighter.ssim_face


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
    assert measures["background_knows_face"] < 0.5


def test_overlap_of_known_masks():
    whole, half, none = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    half[..., :2] = 0.9
    assert overlap(whole, half).item() == 0.5 and overlap(whole, none).item() == 0
    assert overlap(half, half).item() == 1 and overlap(none, none).item() == 1


def test_codings_are_what_decoding_gives(model, prepared):
    faces = prepared.faces("test")
    codings = encode_all(model, faces)
    with torch.no_grad():
        decoded = model.decode(model.encode(faces.pictures()))
    for name in ("image", "face", "normals", "mask", "background"):
        assert_close(getattr(codings, name), getattr(decoded, name), atol=1e-6, rtol=0)
    assert len(codings[2:5]) == 3 and torch.equal(codings[2:5].codes.pose, codings.codes.pose[2:5])


@pytest.fixture
def smiles():
    """Pictures whose lower half is bright where the label holds."""
    labels = np.arange(60) % 2 == 0
    images = 0.3 * torch.rand(60, 3, 64, 64)
    images[torch.from_numpy(labels), :, 40:52, 20:44] += 0.5
    return images, labels


class _Swapper:
    """A network whose expression code is the picture's lower half, and which puts it where it belongs, or does not."""

    def __init__(self, obeys):
        self.obeys = obeys

    def codings(self, model, images):
        nothing = Context((), ())
        codes = {name: getattr(model.encode(images), name) for name in FACTORS}
        codes |= {"expression": images[:, :, 32:].flatten(1), "identity": images.flatten(1)}
        codings = Codes(**codes, context=nothing, background_context=nothing)
        mask = torch.ones(len(images), 1, 64, 64)
        return Codings(codings, images, images, torch.zeros_like(images), mask, images)

    def paint(self, pose, expression, identity, light):
        image = identity.unflatten(1, (3, 64, 64)).clone()
        if self.obeys:
            image[:, :, 32:] = expression.unflatten(1, (3, 32, 64))
        return Face(image, image, image, image[:, :1], None)


@torch.no_grad()
@pytest.mark.parametrize("kind", [PixelJudge, EdgeJudge])
def test_swap_rates_tell_obedient_networks_from_others(model, smiles, kind):
    images, labels = smiles
    judge = kind(images[:40], labels[:40])
    good, bad = (
        swap_rates(network, images[40:], network.codings(model, images[40:]), labels[40:], judge)
        for network in (_Swapper(True), _Swapper(False))
    )
    assert good.photos == 1 and good.reconstruction == 1
    assert (good.expression, good.identity, good.face) == (1.0, 0.0, 1.0)
    assert (bad.expression, bad.identity, bad.face) == (0.0, 1.0, 1.0)
    assert good.pairs == bad.pairs > 0


def test_the_judge_of_edges_sees_a_rare_label():
    images = torch.rand(200, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = np.arange(200) % 8 == 0
    images[torch.from_numpy(labels), :, 20:44] *= torch.linspace(0.8, 1.0, 64)  # faint beside the noise
    judged = EdgeJudge(images[:120], labels[:120])(images[120:])
    assert judged[labels[120:]].mean() >= 0.5 and judged[~labels[120:]].mean() <= 0.2


@torch.no_grad()
def test_the_judge_is_tried_on_the_photos_of_the_pairs(model, smiles):
    """One that sees the label everywhere is right on half of them, however rare the label is."""
    images, labels = smiles[0], np.arange(60) % 10 == 0
    codings = _Swapper(True).codings(model, images)
    rates = swap_rates(_Swapper(True), images, codings, labels, lambda some: np.ones(len(some), bool))
    assert rates.photos == rates.reconstruction == 0.5


@torch.no_grad()
def test_swap_rates_with_codes_lent_by_others(model, smiles):
    """Lenders who show the opposite of what they are known for turn the rate over."""
    images, labels = smiles
    judge, network = PixelJudge(images[:40], labels[:40]), _Swapper(True)
    own = network.codings(model, images[40:])
    opposite = network.codings(model, images[40:].roll(1, 0))  # every second one has the label
    rates = swap_rates(network, images[40:], own, labels[40:], judge, donors=opposite)
    assert (rates.expression, rates.reconstruction) == (0.0, 1.0)


@torch.no_grad()
def test_swap_rates_need_both_labels(model, smiles):
    images, labels = smiles
    judge = PixelJudge(images, labels)
    with pytest.raises(ValueError, match="all labels are equal"):
        swap_rates(model, images[:4], _Swapper(True).codings(model, images[:4]), np.ones(4, bool), judge)


@pytest.fixture
def table(prepared, tmp_path):
    """Smiles and persons of every face of the set."""
    path = tmp_path / "labels.csv"
    lines = [f"{name},{number % 2},{number // 3}" for number, name in enumerate(prepared.table["name"])]
    path.write_text("\n".join(["file,Smiling,identity", *lines]))
    return path


class TestReport:
    def test_with_labels(self, model, prepared, table):
        report = evaluate(model, prepared, table)
        assert report.faces == 8 and report.pairs > 0 and report.label == "Smiling"
        assert {"expression_follows", "identity_follows", "face_follows", "person_auc", "leak"} < set(report.measures)
        text = "\n".join(report.lines())
        assert "of different Smiling" in text and "PSNR of the picture" in text and ">= 23.5  missed" in text

    def test_without(self, model, prepared):
        report = evaluate(model, prepared)
        assert report.label is None and report.pairs == 0
        assert not {"expression_follows", "person_auc", "kept_by_pose"} & set(report.measures)
        assert report.by_code == 0 and "0%, the others are the fit's rotations" in report.lines()[1]
        assert len(report.lines()) == 2 + len(report.measures)

    def test_measures_are_named_and_in_order(self, model, prepared, table):
        measures = evaluate(model, prepared, table).measures
        assert list(measures) == [name for name in LINES if name in measures]
        assert all(isinstance(value, float) and np.isfinite(value) for value in measures.values())

    def test_is_the_same_twice_and_survives_json(self, model, prepared, table):
        report = evaluate(model, prepared, table)
        assert evaluate(model, prepared, table) == report
        assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report

    def test_other_poses_come_from_the_photos_that_have_them(self, model, morphable, tmp_path):
        rows = [{**row, "turned_partner": f"{4 + number % 3:06d}.jpg"} for number, row in enumerate(make_rows(8))]
        rows = [{**row, "split": "test" if number > 3 else "train"} for number, row in enumerate(rows)]
        prepared = write_prepared(tmp_path / "set", rows, morphable, {"source": "made for tests"})
        faces = prepared.faces("test")
        codings = encode_all(model, faces)
        poses = codings.codes.pose[[1, 2, 0, 1]]  # faces 4 to 7 have the partners 5, 6, 4, 5
        expected = measure(model, faces, codings, poses)["turned_normals_degrees"]
        report = evaluate(model, prepared)
        assert report.by_code == 1 and report.measures["turned_normals_degrees"] == pytest.approx(expected)
        assert expected != measure(model, faces, codings)["turned_normals_degrees"]

    def test_of_some_of_the_faces(self, model, prepared, table):
        report = evaluate(model, prepared, table, limit=5)
        assert report.faces == 5
        held_out = prepared.faces("test")
        some = encode_all(model, held_out[torch.tensor([0, 2, 4, 5, 7])])
        expected = psnr(some.image, held_out.pictures()[[0, 2, 4, 5, 7]]).mean()
        everyone = evaluate(model, prepared, table)
        assert everyone.persons == report.persons == 3 + 3 + 1
        assert report.measures["person_auc"] == pytest.approx(everyone.measures["person_auc"])
        assert report.measures["psnr"] == pytest.approx(float(expected))

    def test_targets(self):
        assert reaches(23.5, ">= 23.5") and not reaches(23.4, ">= 23.5") and reaches(0.04, "<= 0.04")
        assert reaches(5.0, "") and not reaches(2.1, "<= 2") and not reaches(math.nan, ">= 0")
        assert all(not line.target or line.target[:3] in ("<= ", ">= ") for line in LINES.values())

    def test_a_set_without_held_out_faces(self, model, morphable, tmp_path):
        everything = write_prepared(tmp_path / "set", make_rows(3), morphable, {"source": "made for tests"})
        with pytest.raises(InputError, match="holds no faces of the split 'test'"):
            evaluate(model, everything)

    def test_a_set_of_another_size(self, model, morphable, tmp_path):
        large = write_prepared(tmp_path / "set", make_rows(3, size=128), morphable, {"source": "made for tests"})
        with pytest.raises(InputError, match="holds pictures of 128 pixels, the network takes 64"):
            evaluate(model, large)


@pytest.fixture
def synthetic(morphable, tmp_path):
    rows = [
        {**row, "person": number // 2, "emotion": ["happy", "sad"][number % 2]}
        for number, row in enumerate(make_rows(16, held_out=6))
    ]
    return write_prepared(tmp_path / "synthetic", rows, morphable, {"source": "made for tests"})


class TestLabels:
    def test_of_a_table(self, prepared, table):
        labels = Labels.of(prepared, "test", table, "Smiling")
        assert labels.shown is not None and labels.persons is not None
        assert labels.shown.tolist() == [number % 2 == 1 for number in range(16, 24)]
        assert len(np.unique(labels.persons)) == 3 and labels.persons[0] == labels.persons[1]

    def test_without_persons_and_without_a_table(self, prepared, table):
        table.write_text("\n".join(",".join(line.split(",")[:2]) for line in table.read_text().splitlines()))
        assert Labels.of(prepared, "test", table, "Smiling").persons is None
        nothing = Labels.of(prepared, "test", None, "Smiling")
        assert nothing.shown is None and nothing.persons is None and teach_judge(prepared, None, "Smiling") is None

    def test_of_a_synthetic_set(self, synthetic):
        labels = Labels.of(synthetic, "test", None, "Smiling")
        assert labels.shown is not None and labels.shown.tolist() == [True, False] * 3
        assert labels.persons is not None and labels.persons.tolist() == [5, 5, 6, 6, 7, 7]

    def test_all_of_a_set_is_judged_by_the_pupil_of_another(self, model, synthetic, prepared, tmp_path):
        alone = evaluate(model, synthetic, split="all")
        assert alone.faces == 16 and alone.label is None and "person_auc" in alone.measures
        rows = [row | {"person": 0, "emotion": ["happy", "sad"][k % 2]} for k, row in enumerate(make_rows(16, seed=9))]
        other = write_prepared(tmp_path / "other", rows, synthetic.morphable, {"source": "made for tests"})
        taught = evaluate(model, synthetic, split="all", teacher=other)
        assert taught.label == "emotion" and taught.pairs > 0
        with pytest.raises(InputError, match="cannot teach what its own split 'all' is measured by"):
            evaluate(model, synthetic, split="all", teacher=synthetic)
        assert isinstance(teach_judge(synthetic, None, "Smiling"), EdgeJudge)
        assert evaluate(model, synthetic, split="all", teacher=prepared).label is None

    def test_faces_whose_person_is_unknown_are_persons_of_their_own(self, model, prepared, table):
        names = prepared.table["name"][:]
        lines = [f"{name},{k % 2},{' ' if k < 22 else 'ann'}" for k, name in enumerate(names)]
        table.write_text("\n".join(["file,Smiling,identity", *lines]))
        persons = Labels.of(prepared, "test", table, "Smiling").persons
        assert len(set(persons.tolist())) == 7 and persons[6] == persons[7]
        assert evaluate(model, prepared, table).persons == 1

    def test_every_face_needs_the_label(self, prepared, table):
        lines = table.read_text().splitlines()
        lines[18], lines[20] = lines[18].split(",")[0], lines[20].split(",")[0] + ", ,3"  # a short row, an empty cell
        table.write_text("\n".join(lines))
        with pytest.raises(InputError, match=r"has no label for 2 faces of .*, the first is 000017\.jpg"):
            Labels.of(prepared, "test", table, "Smiling")

    def test_refusals(self, prepared, tmp_path):
        path = tmp_path / "labels.csv"
        with pytest.raises(InputError, match="cannot be read as CSV"):
            read_labels(path, "Smiling")
        path.write_text("file,Young\n000001.jpg,1\n")
        with pytest.raises(InputError, match="has no column Smiling"):
            read_labels(path, "Smiling")
        path.write_text("file,Young\n000001.jpg,1\n000003.jpg,1\n")
        with pytest.raises(InputError, match="has no label for 14 faces"):
            Labels.of(prepared, "train", path, "Young")
