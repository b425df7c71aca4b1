import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from facemodels.evaluation.targets import correlations, judge_fit, judge_targets, person_auc, probe
from facemodels.fitting.shape import Fit
from facemodels.rendering import euler_to_matrix


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class TestProbe:
    def test_finds_a_label_that_is_there(self):
        codes = random(200, 5)
        assert probe(codes, codes[:, 2] > 0) > 0.95

    def test_finds_none_in_noise(self):
        assert probe(random(400, 5), random(400, seed=1) > 0) < 0.6


class TestPersonAuc:
    def test_worked_example(self):
        """Cosines: same 1.0; others 0.0, 0.0: every same pair is above every other."""
        codes = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        assert person_auc(codes, np.array([0, 0, 1]), centre=False) == 1
        assert person_auc(codes, np.array([0, 1, 0]), centre=False) == 0.25  # 0 against 1 and 0

    def test_agrees_with_counting_pairs(self):
        codes, persons = random(40, 6), np.arange(40) % 8
        codes += 2 * random(8, 6, seed=1)[persons]
        unit = codes - codes.mean(0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        pairs = [(i, j) for i in range(40) for j in range(i)]
        same = [unit[i] @ unit[j] for i, j in pairs if persons[i] == persons[j]]
        other = [unit[i] @ unit[j] for i, j in pairs if persons[i] != persons[j]]
        expected = np.mean([[one > two for two in other] for one in same])
        assert person_auc(codes, persons) == pytest.approx(expected, abs=1e-3) and expected > 0.8

    @pytest.mark.parametrize("count", [255, 256, 257, 600])
    def test_counts_every_pair_of_several_blocks(self, count):
        persons = np.arange(count) // 3
        codes = np.round(random(count // 3 + 1, 3)[persons] + random(count, 3, seed=1))  # many are exactly as alike
        unit = codes / np.linalg.norm(codes, axis=1, keepdims=True).clip(1e-12)
        pairs = np.triu_indices(count, 1)
        cosines = (unit @ unit.T).astype(np.float32)[pairs]
        same = (persons[:, None] == persons)[pairs]
        assert person_auc(codes, persons, centre=False) == pytest.approx(roc_auc_score(same, cosines), abs=1e-3)

    def test_refuses_codes_that_are_not_finite(self):
        codes = random(4, 2)
        codes[1, 0] = np.nan
        with pytest.raises(ValueError, match="1 of 4 codes are not finite"):
            person_auc(codes, np.array([0, 0, 1, 1]))

    @pytest.mark.parametrize("persons", [[0, 0, 0], [0, 1, 2], []])
    def test_needs_pairs_of_both_kinds(self, persons):
        with pytest.raises(ValueError, match="needs persons with two faces, and two persons"):
            person_auc(random(len(persons), 2), np.array(persons, int))


def test_targets_are_judged_by_what_they_hold():
    persons = np.arange(200) % 40
    identity = random(40, 6)[persons] + 0.3 * random(200, 6, seed=1)
    smiling = random(200, seed=2) > 0
    expression = random(200, 4, seed=3) + 2 * smiling[:, None]
    report = judge_targets(identity, expression, smiling, persons)
    assert report.smile_from_identity < 0.65 < 0.95 < report.smile_from_expression
    assert report.person_auc > 0.95 and report.pairs == 40 * 10


class TestJudgeFit:
    @pytest.fixture
    def truth(self):
        generator = torch.Generator().manual_seed(0)
        angles = 0.3 * torch.randn(3, 50, generator=generator)
        identity, expression = torch.randn(50, 4, generator=generator), torch.randn(50, 3, generator=generator)
        return euler_to_matrix(*angles), identity, expression

    def fit(self, rotation, identity, expression):
        return Fit(rotation, torch.ones(50), torch.zeros(50, 2), identity, expression, torch.zeros(50))

    def test_truth_has_no_error(self, truth):
        report = judge_fit(self.fit(*truth), *truth)
        assert report.rotation < 0.05 and report.yaw_correlation == pytest.approx(1)
        assert report.identity == pytest.approx(np.ones(4)) and report.expression == pytest.approx(np.ones(3))

    def test_a_turn_that_all_share_is_told_apart(self, truth):
        rotation, identity, expression = truth
        shared = euler_to_matrix(torch.tensor(0.0), torch.tensor(math.radians(7)), torch.tensor(0.0))
        report = judge_fit(self.fit(rotation @ shared, identity, expression), *truth)
        assert report.rotation == pytest.approx(7, abs=0.05) and report.steady_rotation < 0.05

    def test_components_are_judged_one_by_one(self, truth):
        rotation, identity, expression = truth
        found = dataclasses.replace(self.fit(*truth), identity=identity * torch.tensor([2.0, -1.0, 0.0, 1.0]))
        report = judge_fit(found, rotation, identity, expression)
        assert report.identity[[0, 1, 3]] == pytest.approx([1, -1, 1]) and np.isnan(report.identity[2])


def test_correlation_is_that_of_numpy():
    first, second = torch.from_numpy(random(30, 2)), torch.from_numpy(random(30, 2, seed=1))
    expected = [np.corrcoef(first[:, k], second[:, k])[0, 1] for k in range(2)]
    assert correlations(first, second) == pytest.approx(expected)
