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
    assert (network.shape_space, network.frontal_rank, network.face_mask) == ("vertices", None, False)
    ours = ("swapped_shape", "decorrelation", "turned_normals", "face_mask")
    assert all(getattr(training.weights, name) == 0 for name in ours)
    assert not training.known_mask


def test_unknown_preset_and_setting():
    with pytest.raises(
        InputError, match="there is no preset 'huge'; choose one of paper, default, small, large, rendered"
    ):
        preset("huge")
    with pytest.raises(InputError, match="LossWeights has no setting sharpness"):
        LossWeights.from_dict({"sharpness": 1.0})
    with pytest.raises(InputError, match="NetworkConfig: skips must be one of add, none, got 'some'"):
        NetworkConfig.from_dict({"skips": "some"})
