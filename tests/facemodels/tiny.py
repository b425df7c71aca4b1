"""Sizes of the morphable model of the tests, and rows of a prepared set of random pictures."""

import numpy as np

VERTICES, IDENTITY, EXPRESSION = 12, 5, 3


def make_rows(count: int, seed: int = 0, held_out: int = 0, size: int = 64):
    """Rows of a prepared set with a bright square for a face."""
    random = np.random.default_rng(seed)
    for number in range(count):
        mask = np.zeros((size, size), np.uint8)
        mask[size // 4 : size * 3 // 4, size * 9 // 32 : size * 23 // 32] = 255
        image = random.integers(0, 80, (size, size, 3)).astype(np.uint8)
        image[mask > 0] += np.uint8(120)
        normals = np.zeros((size, size, 3), np.int8)
        normals[mask > 0] = (0, 0, 127)
        yield {
            "name": f"{number:06d}.jpg",
            "split": "test" if number >= count - held_out else "train",
            "image": image,
            "normals": normals,
            "mask": mask,
            "rotation": np.eye(3, dtype=np.float32).ravel(),
            "identity": random.normal(size=IDENTITY).astype(np.float32),
            "expression": random.normal(size=EXPRESSION).astype(np.float32),
            "light": np.eye(9, dtype=np.float32)[0],
            "frontal": bool(number % 2),
            "turned_rotation": np.eye(3, dtype=np.float32).ravel(),
            "turned_normals": normals,
            "turned_mask": mask,
            "turned_image": image * (mask > 0)[..., None],
            "turned_weight": mask,
            "turned_partner": "",
            "swapped_image": image * (mask > 0)[..., None],
            "swapped_weight": mask,
            "swapped_partner": f"{number ^ 1:06d}.jpg",
        }
