"""What a landmark detector that was made for photos sees in the built-in model's faces."""

import importlib.util
from pathlib import Path

import pytest

from facemodels.errors import InputError
from facemodels.fitting.landmarks import MediaPipeDetector

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "morphable.py"


@pytest.fixture(scope="module")
def benchmark_script():
    specification = importlib.util.spec_from_file_location("benchmarks_morphable", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def detector():
    try:
        MediaPipeDetector().close()
    except InputError as error:
        pytest.skip(str(error))


def test_measures_have_values_units_and_targets(benchmark_script):
    for name, (value, unit, target) in (benchmark_script.likeness() | benchmark_script.build_time()).items():
        assert name
        assert value > 0
        assert unit in ("s", "cosine")
        assert target.startswith("<")


@pytest.mark.slow
@pytest.mark.photos
def test_finds_a_face_in_frontal_samples(benchmark_script, detector):
    ((share, unit, _),) = benchmark_script.detection(60).values()
    assert unit == "%"
    assert share >= 97


@pytest.mark.slow
@pytest.mark.photos
def test_scores_follow_the_components(benchmark_script, detector):
    scores = benchmark_script.reactions(people=6)
    for name, least in {
        "jawOpen": 0.3,
        "eyeBlinkLeft": 0.2,
        "eyeBlinkRight": 0.2,
        "mouthSmileLeft": 0.2,
        "browInnerUp": 0.1,
        "browOuterUpLeft": 0.2,
        "mouthPucker": 0.3,
        "mouthStretchLeft": 0.1,
    }.items():
        neutral, moved = scores[name]
        assert moved > neutral + least, name
