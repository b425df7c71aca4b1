"""Maps of codes in the plane by t-SNE (the paper's Figures 6 and 7), and how well labels cluster in them.

A map may show clusters that are not there and hide others, so that both figures are also taken in the space of the
codes.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.manifold import TSNE
from sklearn.metrics import pairwise_distances, silhouette_score
from sklearn.preprocessing import StandardScaler

from facemodels.evaluation.coders import Array
from facemodels.evaluation.probes import Labels

NEIGHBOURS = 5


@dataclass(frozen=True)
class Clusters:
    """How well faces with the same label lie together.

    Attributes:
        silhouette: From -1 to 1: how much nearer faces of the same label are than those of the nearest other label.
        neighbours: Share of faces whose label most of their five nearest neighbours have.
        chance: Share of the commonest label.
    """

    silhouette: float
    neighbours: float
    chance: float


@dataclass(frozen=True)
class Embedding:
    """Codes in the plane.

    Attributes:
        rows: Which of the faces are shown.
        points: Where, shape `(shown, 2)`.
        plane: How well their labels cluster there.
        space: How well they do in the space of the codes.
    """

    rows: Int[np.ndarray, " shown"]
    points: Float[np.ndarray, "shown 2"]
    plane: Clusters
    space: Clusters

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rows": self.rows.tolist(),
            "points": self.points.round(3).tolist(),
            "plane": asdict(self.plane),
            "space": asdict(self.space),
        }


def embed(
    codes: Array, labels: Labels, persons: Labels | None = None, *, limit: int = 2000, seed: int = 0
) -> Embedding:
    """Lay codes out in the plane by t-SNE and see whether labels cluster.

    Features are brought to mean 0 and deviation 1 first; the perplexity is 30, or a third of the faces if there are
    fewer than 90.

    Args:
        codes: One row a face.
        labels: One of each face.
        persons: Who is who. If given, the neighbours of a face are faces of other persons: a person's own photos are
            alike in everything.
        limit: Show so many faces at most, drawn at random.
        seed: Fixes the faces shown and the map.

    Raises:
        ValueError: There are fewer than 10 faces, or one label alone.

    Reference:
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008; Rousseeuw, "Silhouettes: a Graphical
        Aid to the Interpretation and Validation of Cluster Analysis", J. Comput. Appl. Math. 20, 1987.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    rows = np.sort(np.random.default_rng(seed).permutation(len(codes))[:limit])
    if len(rows) < 10 or len(np.unique(labels[rows])) < 2:
        raise ValueError(
            f"embed: needs ten faces and two labels or more, got {len(rows)} and {len(np.unique(labels[rows]))}"
        )
    known = labels[rows]
    who = None if persons is None else np.asarray(persons)[rows]
    space = StandardScaler().fit_transform(codes[rows])
    map_ = TSNE(2, perplexity=min(30, len(rows) / 3), init="pca", learning_rate="auto", random_state=seed)
    points = map_.fit_transform(space.astype(np.float32))
    return Embedding(rows, points, clusters(points, known, who), clusters(space, known, who))


def clusters(points: Array, labels: Labels, persons: Labels | None = None) -> Clusters:
    """How well labels cluster, by Euclidean distances as they are.

    Args:
        points: One row a face.
        labels: One of each face.
        persons: If given, neighbours are faces of other persons.

    Raises:
        ValueError: There are not five other faces (or faces of other persons) for everyone.

    Example:
        >>> points = np.array([[0.0], [0.1], [0.2], [0.3], [0.4], [0.5], [9.0], [9.1], [9.2], [9.3], [9.4], [9.5]])
        >>> result = clusters(points, np.repeat(["near", "far"], 6))
        >>> round(result.silhouette, 2), result.neighbours, result.chance
        (0.97, 1.0, 0.5)
    """
    labels = np.asarray(labels)
    distances = pairwise_distances(np.asarray(points))
    silhouette = float(silhouette_score(distances, labels, metric="precomputed"))
    alone = np.eye(len(labels), dtype=bool)
    if persons is not None:
        alone |= np.asarray(persons)[:, None] == np.asarray(persons)[None]
    if (~alone).sum(1).min() < NEIGHBOURS:
        raise ValueError(f"clusters: everyone needs {NEIGHBOURS} neighbours; give more faces, or more persons")
    nearest = np.argsort(np.where(alone, np.inf, distances), axis=1, kind="stable")[:, :NEIGHBOURS]
    names, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    votes = (numbers[nearest][:, :, None] == np.arange(len(names))).sum(1)
    return Clusters(silhouette, float((votes.argmax(1) == numbers).mean()), float(counts.max() / len(labels)))
