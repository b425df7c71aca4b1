import json

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from facemodels.baselines import AdversarialAutoencoder, AdversarialConfig
from facemodels.evaluation.coders import NamedCode, encode_pictures, named_codes, pictures_of
from facemodels.evaluation.probes import PAPER, probe, table_one


@pytest.fixture
def random():
    return np.random.default_rng(0)


def clusters(random, labels, features=4, apart=6.0):
    """Codes that tell labels of 0, 1, ... with certainty."""
    centres = apart * np.eye(features)[: labels.max() + 1]
    return centres[labels] + 0.5 * random.normal(size=(len(labels), features))


class TestProbe:
    def test_tells_what_is_there(self, random):
        labels = np.arange(90) % 3
        result = probe(clusters(random, labels), labels)
        assert result.accuracy == 1 and result.deviation == 0 and result.above_chance == 1
        assert (result.faces, result.classes, len(result.folds)) == (90, 3, 10)

    def test_tells_nothing_from_noise(self, random):
        labels = np.arange(400) % 4
        result = probe(random.normal(size=(400, 5)), labels)
        assert abs(result.accuracy - 0.25) < 0.08 and abs(result.above_chance) < 0.1
        assert result.chance == 0.25

    def test_chance_is_the_share_of_the_commonest_label(self, random):
        labels = np.repeat([0, 1, 2], [60, 30, 10])
        result = probe(random.normal(size=(100, 2)), labels, folds=5)
        assert result.chance == 0.6 and result.classes == 3
        assert result.above_chance == pytest.approx((result.accuracy - 0.6) / 0.4)

    def test_is_the_protocol_written_out(self, random):
        """Nine tenths to learn from, scaled by what they say of themselves; labels in equal shares."""
        labels = np.arange(60) % 2
        codes = random.normal(size=(60, 3)) + 0.8 * labels[:, None]
        shares = []
        for learnt, tried in StratifiedKFold(10, shuffle=True, random_state=3).split(codes, labels):
            assert len(tried) == 6 and labels[tried].sum() == 3
            mean, deviation = codes[learnt].mean(0), codes[learnt].std(0)
            svm = LinearSVC(dual=False, tol=1e-6).fit((codes[learnt] - mean) / deviation, labels[learnt])
            shares.append((svm.predict((codes[tried] - mean) / deviation) == labels[tried]).mean())
        result = probe(codes, labels, seed=3)
        assert result.folds == pytest.approx(shares)
        assert result.accuracy == pytest.approx(np.mean(shares))
        assert result.deviation == pytest.approx(np.std(shares))

    def test_labels_in_a_row(self, random):
        """No point parts one of eight yaws from those on both sides, but points part every two."""
        yaw = np.arange(160) % 8
        codes = 4.0 * yaw[:, None] + 0.5 * random.normal(size=(160, 1))
        assert probe(codes, yaw).accuracy > 0.95 > 0.75 > probe(codes, yaw, against="rest").accuracy

    def test_units_do_not_matter(self, random):
        labels = np.arange(80) % 2
        codes = random.normal(size=(80, 3)) + labels[:, None]
        scaled = codes * [1, 1000, 1e-3] + [5, -3, 1]
        assert probe(scaled, labels).folds == pytest.approx(probe(codes, labels).folds)

    def test_seeds_fix_the_folds(self, random):
        labels = np.arange(100) % 2
        codes = random.normal(size=(100, 3)) + labels[:, None]
        assert probe(codes, labels, seed=1) == probe(codes, labels, seed=1)
        assert probe(codes, labels, seed=1).folds != probe(codes, labels, seed=2).folds

    def test_new_persons_cannot_be_known_by_heart(self, random):
        """Codes that tell persons alone, and persons of whom each has one expression."""
        persons = np.repeat(np.arange(40), 10)
        expression = (persons * 7 // 3) % 2
        codes = 5 * random.normal(size=(40, 12))[persons] + 0.1 * random.normal(size=(400, 12))
        assert probe(codes, expression).accuracy > probe(codes, expression, persons=persons).accuracy + 0.15

    def test_labels_of_any_kind(self, random):
        labels = np.arange(60) % 2
        codes = clusters(random, labels)
        names = ["happy" if label else "sad" for label in labels]
        assert probe(codes, names).accuracy == probe(codes, labels).accuracy == 1

    @pytest.mark.parametrize(
        ("codes", "labels", "settings", "message"),
        [
            (np.zeros((4, 2)), [0, 1, 0], {}, r"codes of shape \(faces, features\).*got \(4, 2\) and 3 labels"),
            (np.zeros(4), [0, 1, 0, 1], {}, r"got \(4,\)"),
            (np.full((4, 1), np.nan), [0, 1, 0, 1], {}, "codes must be finite"),
            (np.zeros((4, 1)), [1, 1, 1, 1], {}, "two labels or more, got 1"),
            (np.zeros((4, 1)), [0, 1, 0, 1], {}, "folds must be from 2 to 2 here, got 10: so often does the rarest"),
            (np.zeros((4, 1)), [0, 1, 0, 1], {"folds": 1}, "folds must be from 2 to 2 here, got 1"),
            (np.zeros((4, 1)), [0, 1, 0, 1], {"persons": [0, 0, 1, 1]}, "got 10: there are no more persons"),
            (np.zeros((4, 1)), [0, 1, 0, 1], {"persons": [0]}, "4 codes, but 1 persons"),
            (np.zeros((4, 1)), [0, 0, 1, 1], {"persons": [0, 0, 1, 1], "folds": 2}, "one person has all faces of a"),
        ],
    )
    def test_bad_input(self, codes, labels, settings, message):
        with pytest.raises(ValueError, match=message):
            probe(codes, labels, **settings)


class TestTableOne:
    @pytest.fixture
    def labels(self):
        number = np.arange(240)
        return {"identity": number // 20, "expression": number % 2, "pose": number % 4 // 2, "light": number % 5}

    def test_every_row_from_its_own_code(self, random, labels):
        codes = {name: clusters(random, values, 12) for name, values in labels.items()}
        table = table_one(codes, labels)
        assert list(table.rows) == [
            "identity",
            "expression",
            "pose",
            "expression of new persons",
            "pose of new persons",
        ]
        assert all(row.accuracy == 1 for row in table.rows.values())
        crossed = table_one(codes | {"expression": codes["pose"]}, labels)
        assert crossed.rows["expression"].accuracy < 0.7 and crossed.rows["pose"].accuracy == 1

    def test_one_code_for_all(self, random, labels):
        code = clusters(random, labels["expression"])
        table = table_one(code, labels, folds=3)
        assert table.rows["expression"].accuracy == 1 and table.rows["pose"].accuracy < 0.7

    def test_with_few_persons(self, random):
        number = np.arange(60)
        labels = {"identity": number // 20, "expression": number % 2}
        table = table_one(random.normal(size=(60, 3)), labels)
        assert len(table.rows["expression of new persons"].folds) == 3

    @pytest.mark.parametrize(
        ("identity", "expression"),
        [
            (["ann"] * 20 + ["bob"] * 20, ["happy"] * 12 + ["sad"] * 28),  # ann alone is ever happy
            (["ann"] * 10 + ["bob"] * 10 + [""] * 20, [""] * 20 + ["happy", "sad"] * 10),  # nobody's label is known
        ],
    )
    def test_new_persons_of_too_few_are_left_out(self, random, identity, expression):
        labels = {"identity": identity, "expression": expression}
        assert list(table_one(random.normal(size=(40, 3)), labels, folds=5).rows) == ["identity", "expression"]

    def test_without_persons(self, random, labels):
        table = table_one(random.normal(size=(240, 3)), {"pose": labels["pose"]}, folds=3)
        assert list(table.rows) == ["pose"]

    def test_faces_without_a_label_are_left_out(self, random, labels):
        smile = [None if number < 20 else str(value) for number, value in enumerate(labels["expression"])]
        identity = ["" if number % 240 > 219 else str(value) for number, value in enumerate(labels["identity"])]
        table = table_one(random.normal(size=(240, 3)), {"expression": smile, "identity": identity}, folds=3)
        assert table.rows["expression"].faces == table.rows["identity"].faces == 220
        assert table.rows["expression of new persons"].faces == 200
        with pytest.raises(ValueError, match="there are 4 codes, but 2 labels"):
            table_one(np.zeros((4, 1)), {"pose": [0, 1]})

    def test_without_labels(self):
        with pytest.raises(ValueError, match="needs labels of identity, expression, pose, got light"):
            table_one(np.zeros((4, 1)), {"light": [0, 1, 0, 1]})

    def test_is_json(self, random, labels):
        told = table_one(random.normal(size=(240, 3)), labels, folds=3).to_dict()
        assert json.loads(json.dumps(told)) == told
        assert told["identity"]["paper"] == PAPER["identity"] == 0.8385 and told["pose of new persons"]["paper"] is None


class TestCoders:
    def test_codes_are_those_of_the_network(self, model, prepared):
        pictures = pictures_of(prepared.split("test"))
        assert pictures.dtype == torch.uint8 and torch.equal(pictures, prepared.faces("test").image)
        with torch.no_grad():
            codes = model.encode(pictures.float() / 255)
        for name, code in encode_pictures(named_codes(model), pictures).items():
            np.testing.assert_allclose(code, getattr(codes, name).numpy(), atol=1e-6)

    def test_one_look_serves_all_codes(self, model, prepared, monkeypatch):
        looks = []
        encode = type(model).encode
        monkeypatch.setattr(
            type(model), "encode", lambda self, images: looks.append(len(images)) or encode(self, images)
        )
        encode_pictures(named_codes(model), pictures_of(prepared.table))
        assert looks == [24]

    def test_the_background_alone_needs_a_second_look(self, model, prepared, monkeypatch):
        pictures = pictures_of(prepared.split("test"))
        expected = encode_pictures(named_codes(model), pictures)
        monkeypatch.setattr(type(model), "look_behind", None)
        for name in ("identity", "expression", "pose", "light", "mask"):
            coder = NamedCode(model, name)
            np.testing.assert_allclose(encode_pictures({"own": coder}, pictures)["own"], expected[name], atol=1e-6)
            np.testing.assert_allclose(coder.encode(pictures.float() / 255).detach(), expected[name], atol=1e-6)
        with pytest.raises(TypeError, match="not callable"):
            encode_pictures({"own": NamedCode(model, "background")}, pictures)

    def test_pictures_of_another_size(self, model):
        with pytest.raises(ValueError, match="encode: "):
            encode_pictures(named_codes(model), torch.rand(2, 3, 32, 32))

    def test_others_beside_ours(self, model):
        config = AdversarialConfig(channels=(4, 4, 4), intermediate=8, features=11, prior=0)
        coders = {"pose": NamedCode(model, "pose"), "plain": AdversarialAutoencoder(config)}
        codes = encode_pictures(coders, torch.rand(3, 3, 64, 64))
        assert codes["pose"].shape == (3, 9) and codes["plain"].shape == (3, 11)

    def test_unknown_code(self, model):
        with pytest.raises(ValueError, match="there is no code 'hair'"):
            NamedCode(model, "hair")

    def test_a_coder_of_another_shape(self):
        class Odd:
            def encode(self, images):
                return images

        with pytest.raises(
            ValueError, match=r"the coder 'odd' must give codes of shape \(2, features\), got \(2, 3, 8"
        ):
            encode_pictures({"odd": Odd()}, torch.rand(2, 3, 8, 8))
