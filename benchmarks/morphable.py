"""Measures of the built-in model and the rasteriser: run `python -m benchmarks.morphable`, or call `measure`."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from facemodels.data.factors import sample_factors
from facemodels.data.pool import one_thread
from facemodels.data.synthetic import draw
from facemodels.errors import InputError
from facemodels.fitting.landmarks import MediaPipeDetector, find_model
from facemodels.morphable import MorphableModel
from facemodels.morphable.procedural import EMOTIONS, build_model, emotion_coefficients
from facemodels.morphable.procedural.albedo import Complexion
from facemodels.morphable.procedural.builder import albedo_model, identity_names, mean_head
from facemodels.rendering import euler_to_matrix, project_weak_perspective, rasterize

Measures = dict[str, tuple[float, str, str]]

BATCH = 16
PIXELS_PER_MM = 0.36  # of a face in a crop of 64 x 64
SCORES = {  # MediaPipe's blendshape scores, and the components that should raise each
    "jawOpen": ("jaw_open",),
    "eyeBlinkLeft": ("eye_close_left",),
    "eyeBlinkRight": ("eye_close_right",),
    "mouthSmileLeft": ("smile_left", "smile_right"),
    "browInnerUp": ("brow_inner_raise",),
    "browDownLeft": ("brow_lower_left", "brow_lower_right"),
    "browOuterUpLeft": ("brow_outer_raise_left", "brow_outer_raise_right"),
    "mouthPucker": ("lip_pucker",),
    "mouthFunnel": ("lip_funnel",),
    "mouthFrownLeft": ("frown_left", "frown_right"),
    "eyeWideLeft": ("eye_wide",),
    "mouthUpperUpLeft": ("upper_lip_raise",),
    "mouthLowerDownLeft": ("lower_lip_depress",),
    "mouthStretchLeft": ("stretch_left", "stretch_right"),
    "mouthLeft": ("mouth_sideways",),
}


def measure(faces: int = 200) -> Measures:
    """Value, unit and target of each measure by name, on one core.

    Args:
        faces: Random samples that the landmark detector is to find a face in; without a detector they are left out.
    """
    with one_thread():
        measures = build_time() | rasteriser_times() | likeness()
    with contextlib.suppress(InputError):
        measures |= detection(faces)
    return measures


def build_time() -> Measures:
    """Seconds to build the procedural model from nothing."""

    def build() -> None:
        for made in (mean_head, albedo_model):
            made.cache_clear()
        build_model()

    return {"procedural model built": (_median(build, 3), "s", "< 1.5")}


def rasteriser_times() -> Measures:
    """Milliseconds a face at 64 x 64 in batches, for the procedural model's 18499 triangles."""
    model = MorphableModel.procedural()
    generator = torch.Generator().manual_seed(0)
    vertices = model.vertices(torch.randn(BATCH, model.n_identity, generator=generator))
    angles = 0.3 * torch.randn(BATCH, 3, generator=generator)
    rotation = euler_to_matrix(*angles.T)
    measures: Measures = {}
    for fine, target in ((1, "<= 12"), (2, "<= 30")):
        scale, shift = torch.full((BATCH,), fine * PIXELS_PER_MM), torch.full((BATCH, 2), 32.0 * fine)
        screen = project_weak_perspective(vertices, rotation, scale, shift)
        seconds = _median(lambda s=screen, f=fine: rasterize(s, model.triangles, 64 * f), 9) / BATCH
        measures[f"rasteriser, {fine} x {fine} samples a pixel"] = (1e3 * seconds, "ms a face", target)
    return measures


def likeness() -> Measures:
    """How alike identity and expression components are at most: the cosine of their displacements."""
    model = MorphableModel.procedural()
    identity, expression = (
        torch.nn.functional.normalize(basis.flatten(1), dim=1) for basis in (model.identity, model.expression)
    )
    alike = (identity @ expression.T).abs()
    first, second = divmod(int(alike.argmax()), len(expression))
    pair = f"{identity_names()[first]}, {model.expression_names[second]}"
    return {f"most alike identity and expression ({pair})": (float(alike.max()), "cosine", "< 0.7")}


def detection(faces: int) -> Measures:
    """Share of random samples, as training sees them but turned to the front, in which MediaPipe finds a face.

    Raises:
        InputError: MediaPipe or its model file is not installed.
    """
    detector = MediaPipeDetector()
    images = draw([_frontal(k) for k in range(faces)])[0]
    found = [detector.detect(_bytes(image)) is not None for image in images]
    detector.close()
    return {f"MediaPipe finds a face, of {faces} frontal samples": (100 * float(np.mean(found)), "%", ">= 97")}


def reactions(people: int = 12, amount: float = 1.5) -> dict[str, tuple[float, float]]:
    """MediaPipe's blendshape scores of neutral faces, and of the same with the components that should raise each.

    Args:
        people: Faces to average over.
        amount: Standard deviations of the components.

    Raises:
        InputError: MediaPipe or its model file is not installed.
    """
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(find_model())),
        output_face_blendshapes=True,
        min_face_detection_confidence=0.3,
        min_face_presence_confidence=0.3,
    )
    names = MorphableModel.procedural().expression_names
    rows = {"neutral": np.zeros(len(names))}
    rows |= {score: amount * np.isin(names, moved).astype(float) for score, moved in SCORES.items()}
    rows |= {emotion: emotion_coefficients(emotion) for emotion in EMOTIONS}
    scores: dict[str, dict[str, float]] = {}
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for row, coefficients in rows.items():
            factors = [replace(_frontal(k), expression=coefficients, complexion=Complexion()) for k in range(people)]
            total: dict[str, float] = {}
            for image in draw(factors)[0]:
                large = np.repeat(np.repeat(_bytes(image), 4, axis=0), 4, axis=1)
                shapes = landmarker.detect(Image(ImageFormat.SRGB, large)).face_blendshapes
                for category in shapes[0] if shapes else []:
                    total[category.category_name] = total.get(category.category_name, 0.0) + category.score / people
            scores[row] = total
    return {score: (scores["neutral"].get(score, 0.0), scores[score].get(score, 0.0)) for score in SCORES}


def _frontal(number: int):
    """One person each, in any light and expression, with no rotation but the crop's."""
    return replace(sample_factors(20, 4 * number), angles=np.zeros(3), framing=np.zeros(3))


def _bytes(image: torch.Tensor) -> np.ndarray:
    return (255 * image).round().byte().permute(1, 2, 0).numpy()


def _median(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    """Print all measures."""
    for name, (value, unit, target) in measure().items():
        print(f"{name:70} {value:8.2f} {unit:10} target {target}")
    print(f"\n{'MediaPipe score':22} neutral  moved")
    for score, (neutral, moved) in reactions().items():
        print(f"{score:22} {neutral:7.2f} {moved:6.2f}")


if __name__ == "__main__":
    main()
