import dataclasses
import re

import pytest

from facemodels.config import PRESETS, LossWeights, NetworkConfig, TrainingConfig, preset
from facemodels.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    network, training = preset(name)
    assert NetworkConfig.from_dict(network.to_dict()) == network
    assert TrainingConfig.from_dict(training.to_dict()) == training


def test_paper_preset_has_the_papers_sizes_and_terms_only():
    network, training = preset("paper")
    assert (network.channels, network.intermediate) == ((96, 48, 24), 128)
    assert (network.background, network.mask, network.pose, network.identity, network.expression) == (
        128,
        128,
        9,
        80,
        15,
    )
    assert (network.size, network.light_channels, network.vertices) == (64, 1, 9375)
    assert (network.morphable_identity, network.morphable_expression) == (157, 28)
    assert (network.shape_space, network.frontal_rank, network.face_mask) == ("vertices", None, False)
    assert (network.rotation, network.skips, network.cut_background, network.residual) == ("matrix", "add", False, ())
    papers = "image_l2 adversarial verification pose expression identity shape frontal frontal_normals"
    shus = "face_l2 face_l1 image_l1 mask albedo_smoothness white_shading normals light"
    assert {name for name, weight in vars(training.weights).items() if weight} == {*papers.split(), *shus.split()}
    assert not (training.known_mask or training.codes_first or training.separate_identity)
    assert training.surround_share == 1


def test_unknown_preset_and_setting():
    with pytest.raises(
        InputError, match="there is no preset 'huge'; choose one of paper, default, small, large, rendered"
    ):
        preset("huge")
    with pytest.raises(InputError, match="LossWeights has no setting sharpness"):
        LossWeights.from_dict({"sharpness": 1.0})
    with pytest.raises(InputError, match="NetworkConfig: skips must be one of add, none, got 'some'"):
        NetworkConfig.from_dict({"skips": "some"})


@pytest.mark.parametrize(
    ("settings", "name", "text", "value"),
    [
        (NetworkConfig, "channels", "48, 24,24", (48, 24, 24)),
        (NetworkConfig, "light_channels", "3", 3),
        (NetworkConfig, "rotation", "rotation", "rotation"),
        (NetworkConfig, "frontal_rank", "96", 96),
        (NetworkConfig, "face_mask", "true", True),
        (TrainingConfig, "known_mask", "false", False),
        (TrainingConfig, "betas", "0.8,0.9", (0.8, 0.9)),
        (TrainingConfig, "verifier", "none", None),
        (TrainingConfig, "gamma", "1e-1", 0.1),
    ],
)
def test_settings_as_text(settings, name, text, value):
    assert getattr(settings().with_text(name, text), name) == value


@pytest.mark.parametrize(
    ("settings", "name", "text", "wrong"),
    [
        (NetworkConfig, "light_channels", "2", "light_channels must be one of 1, 3, got '2'"),
        (NetworkConfig, "channels", "4,x", "channels must be a whole number, got '4,x'"),
        (NetworkConfig, "face_mask", "yes", "face_mask must be true or false, got 'yes'"),
        (TrainingConfig, "gamma", "", "gamma must be a number, got ''"),
        (TrainingConfig, "weights", "1", "TrainingConfig has no setting weights; choose one of codes_first, "),
    ],
)
def test_text_that_is_no_value(settings, name, text, wrong):
    with pytest.raises(InputError) as error:
        settings().with_text(name, text)
    assert wrong in str(error.value)


@pytest.mark.parametrize(
    ("sizes", "wrong"),
    [
        ({"identity": 7, "expression": 10}, "expression * identity must be a multiple of 3"),
        ({"pose": 6}, "the pose code is a rotation of 9 numbers, got pose 6"),
        ({"size": 72, "channels": (4, 4, 4, 4)}, "pictures of 72 pixels cannot be halved 4 times"),
        ({"channels": ()}, "cannot be halved 0 times"),
        ({"size": 24, "residual": (4, 4, 4)}, "pictures of 24 pixels cannot be halved 4 times, once and for each of"),
        ({"residual": (4, 0)}, "sizes must be at least 1, got residual[1] 0"),
        ({"light_channels": 2}, "NetworkConfig: light_channels must be one of 1, 3, got 2"),
        ({"channels": (4, 0), "mask": -1}, "sizes must be at least 1, got mask -1, channels[1] 0"),
    ],
)
def test_sizes_that_make_no_network(sizes, wrong):
    with pytest.raises(InputError) as error:
        NetworkConfig(**sizes)
    assert wrong in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("batch", 0, "at least 1"),
        ("turned_share", 1.1, "from 0 to 1"),
        ("learning_rate", -1.0, "0 or more"),
        ("betas", (0.9,), "two numbers from 0 to 1"),
        ("betas", (1.5, 0.9), "two numbers from 0 to 1"),
        ("gradient_clip", 0.0, "more than 0"),
        ("steps", 0, "at least 1"),
        ("minutes", 0.0, "more than 0"),
    ],
)
def test_trainings_that_cannot_be(name, value, rule):
    codes = dict.fromkeys(("pose", "expression", "identity", "light"), 0.0)
    with pytest.raises(InputError, match="codes_first needs a weight of pose, expression, identity, light, all of"):
        TrainingConfig(weights=LossWeights(**codes), codes_first=0.1)
    with pytest.raises(InputError, match=re.escape(f"TrainingConfig: {name} must be {rule}, got {value}")):
        TrainingConfig(**{name: value})


def test_terms_without_faces_or_from_the_start():
    with pytest.raises(InputError, match="surround_share 0 leaves no faces for image_l2, image_l1, mask, adversarial;"):
        TrainingConfig(surround_share=0.0)
    with pytest.raises(InputError, match="turned_share 0 leaves no faces for cycle; raise it"):
        TrainingConfig(weights=LossWeights(cycle=1.0), turned_share=0.0)
    nothing = dict.fromkeys((entry.name for entry in dataclasses.fields(LossWeights)), 0.0)
    for weights in ({}, {"adversarial": 1.0, "decorrelation": 2.0}):
        with pytest.raises(InputError, match="no term has a weight but those that come later"):
            TrainingConfig(weights=LossWeights(**{**nothing, **weights}))
