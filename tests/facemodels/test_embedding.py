import json

import numpy as np
import pytest

from facemodels.evaluation.embedding import clusters, embed


@pytest.fixture(scope="module")
def faces():
    """Codes with three expressions well apart, and noise."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    return 8 * np.eye(4)[labels] + 0.3 * random.normal(size=(60, 4)), labels


@pytest.fixture(scope="module")
def embedded(faces):
    return embed(*faces, limit=45)


def test_clusters_stay_clusters(embedded, faces):
    assert embedded.points.shape == (45, 2) and embedded.rows.max() < 60
    assert embedded.plane.neighbours == embedded.space.neighbours == 1
    assert embedded.plane.silhouette > 0.5 and embedded.space.silhouette > 0.5


def test_is_json(embedded):
    assert json.loads(json.dumps(embedded.to_dict()))["space"]["neighbours"] == 1


def test_noise_does_not_cluster(faces):
    result = clusters(np.random.default_rng(1).normal(size=(60, 4)), faces[1])
    assert abs(result.silhouette) < 0.1 and result.neighbours < 0.6 and result.chance == pytest.approx(1 / 3)


def test_chance_is_the_share_of_the_commonest_label():
    points = np.random.default_rng(0).normal(size=(20, 2))
    assert clusters(points, ["a"] * 13 + ["b"] * 4 + ["c"] * 3).chance == 0.65


def test_own_photos_are_no_neighbours():
    """Everyone always looks the same: only a person's own photos tell the expression."""
    persons = np.repeat(np.arange(10), 6)
    expression = persons % 2
    points = np.random.default_rng(0).normal(size=(10, 8))[persons]
    assert clusters(points, expression).neighbours == 1
    assert clusters(points, expression, persons).neighbours < 0.8


def test_silhouette_of_two_pairs_by_hand():
    points = np.array([[0.0], [1.0], [3.0], [4.0], [100.0], [101.0]])
    labels = np.array([0, 0, 1, 1, 2, 2])
    near = np.array([1, 1, 1, 1, 1, 1])
    far = np.array([3.5, 2.5, 2.5, 3.5, 96.5, 97.5])
    assert clusters(points, labels).silhouette == pytest.approx((1 - near / far).mean())


def test_too_few():
    with pytest.raises(ValueError, match="ten faces and two labels or more, got 4 and 2"):
        embed(np.zeros((4, 2)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="ten faces and two labels or more, got 20 and 1"):
        embed(np.zeros((20, 2)), [0] * 20)
    with pytest.raises(ValueError, match="everyone needs 5 neighbours"):
        clusters(np.arange(8.0)[:, None], [0, 1] * 4, [0] * 6 + [1] * 2)
