import json

import numpy as np
import pytest

from facemodels.evaluation.disentanglement import Disentanglement, disentanglement


def judged(importance, accuracy=None, information=None, chance=None):
    importance = np.array(importance, float)
    count = importance.shape[1]
    other = np.zeros_like(importance)
    return Disentanglement(
        tuple("abcdefgh"[: len(importance)]),
        tuple("abcdefgh"[:count]),
        accuracy=other if accuracy is None else np.array(accuracy),
        chance=np.zeros(count) if chance is None else np.array(chance),
        information=other if information is None else np.array(information),
        importance=importance,
        joint=np.full(count, 0.75),
    )


class TestDefinitions:
    def test_perfect(self):
        result = judged(np.eye(3), accuracy=np.eye(3), information=np.eye(3))
        assert result.dci == {"disentanglement": 1, "completeness": 1, "informativeness": 0.75}
        assert result.mig == result.sap == result.own == 1 and result.foreign == 0

    def test_everything_everywhere(self):
        result = judged(np.ones((3, 3)), accuracy=np.ones((3, 3)), information=np.ones((3, 3)))
        assert result.dci["disentanglement"] == pytest.approx(0) and result.dci["completeness"] == pytest.approx(0)
        assert result.mig == result.sap == 0 and result.foreign == 1

    def test_worked_by_hand(self):
        """Two codes, two factors: shares (3/4, 1/4) and (0, 1), weights 4/6 and 2/6."""
        result = judged([[3, 1], [0, 2]])
        entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
        assert result.dci["disentanglement"] == pytest.approx(4 / 6 * (1 - entropy) + 2 / 6)
        third = -(np.log2(1 / 3) / 3 + 2 * np.log2(2 / 3) / 3)
        assert result.dci["completeness"] == pytest.approx((1 + 1 - third) / 2)

    def test_gaps_are_those_of_the_two_best(self):
        result = judged(
            np.eye(3, 2), accuracy=[[0.9, 0.2], [0.5, 0.2], [0.6, 0.8]], information=[[0.8, 0], [0, 0], [0, 0.1]]
        )
        assert result.sap == pytest.approx((0.3 + 0.6) / 2) and result.mig == pytest.approx((0.8 + 0.1) / 2)

    def test_leakage_has_chance_at_nought(self):
        result = judged(np.eye(2), accuracy=[[0.5, 1.0], [0.75, 0.4]], chance=[0.5, 0.4])
        np.testing.assert_allclose(result.leakage, [[0, 1], [0.5, 0]])
        assert result.own == 0 and result.foreign == 0.75

    def test_codes_that_do_nothing(self):
        assert judged(np.zeros((2, 2))).dci["disentanglement"] == 0


@pytest.fixture(scope="module")
def result():
    random = np.random.default_rng(0)
    pose, smile = random.integers(3, size=240), random.integers(2, size=240)
    codes = {
        "pose": np.eye(3)[pose] + 0.1 * random.normal(size=(240, 3)),
        "expression": np.concatenate([np.eye(2)[smile], np.eye(3)[pose]], 1) + 0.1 * random.normal(size=(240, 5)),
        "noise": random.normal(size=(240, 2)),
    }
    return disentanglement(codes, {"pose": pose, "expression": smile})


class TestMeasured:
    def test_a_leak_is_seen(self, result):
        assert result.leakage[0, 0] > 0.95 and result.leakage[1, 1] > 0.95
        assert result.leakage[1, 0] > 0.95, "the expression code tells the pose"
        assert abs(result.leakage[0, 1]) < 0.2 and np.abs(result.leakage[2]).max() < 0.2
        assert result.own > 0.95 and 0.4 < result.foreign < 0.6

    def test_measures_see_it_too(self, result):
        assert result.sap == pytest.approx((0 + 0.5) / 2, abs=0.1)  # the pose has no best code, expression has
        assert result.mig == pytest.approx((0 + 0.9) / 2, abs=0.15)
        assert result.dci["informativeness"] > 0.95 and result.dci["disentanglement"] < 0.9

    def test_information_is_between_none_and_all(self, result):
        assert result.information.min() >= 0 and result.information.max() <= 1
        assert result.information[0, 0] > 0.8 and result.information[2].max() < 0.05

    def test_importance_of_noise_is_none(self, result):
        assert result.importance[2].max() < 0.05 and result.importance[1, 1] > 0.3

    def test_no_code_is_of_negative_importance(self):
        """That a classifier of noise does better without it is chance."""
        random = np.random.default_rng(0)
        codes = {name: random.normal(size=(90, 3)) for name in "xyz"}
        importance = disentanglement(codes, {name: random.integers(2, size=90) for name in "ab"}).importance
        assert importance.min() == 0 and importance.max() > 0

    def test_is_json(self, result):
        told = result.to_dict()
        assert json.loads(json.dumps(told)) == told and told["sap"] == result.sap

    def test_needs_two(self):
        with pytest.raises(ValueError, match="two codes and two factors or more, got 1 and 2"):
            disentanglement({"z": np.zeros((4, 2))}, {"a": [0, 1, 0, 1], "b": [0, 0, 1, 1]})
