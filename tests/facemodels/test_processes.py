"""Training on many processes, and what is left when one of them is killed."""

import dataclasses

import pytest
import worker
from safetensors.torch import load_file
from torch.testing import assert_close

from facemodels.config import LossWeights
from facemodels.networks.verification import save_small
from facemodels.networks.verification.small import FACTS, _Body
from facemodels.networks.verification.verifier import Verifier
from facemodels.training.checkpoint import checkpoints, load_progress

pytestmark = pytest.mark.slow

ALL_TERMS = LossWeights(
    swapped_shape=0.5,
    decorrelation=8.0,
    turned_normals=2.0,
    face_mask=0.3,
    turned_face=2.0,
    background=1.0,
    carried_codes=0.1,
    cycle=0.1,
)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("verifier") / "small.safetensors"
    save_small(Verifier(_Body(), FACTS), path)
    return str(path)


@pytest.fixture
def settings(prepared, tmp_path, network_config, training_config, verifier):
    training = dataclasses.replace(
        training_config,
        weights=ALL_TERMS,
        verifier=verifier,
        adversarial_start=0.0,
        batch=8,
        steps=4,
        log_every=1,
        sheet_every=0,
        checkpoint_minutes=0.0,
    )

    def settings(run, shard=False, **changes):
        train = {"network": network_config, "shard": shard, "progress": False}
        train["training"] = dataclasses.replace(training, **changes)
        return {"prepared": str(prepared.path), "run": str(tmp_path / run), "train": train}

    return settings


def run(folder, settings, processes=1, **options):
    return worker.finish(folder, worker.start(folder, settings, processes, **options))


def assert_close_runs(first, second):
    first, second = checkpoints(first)[-1], checkpoints(second)[-1]
    assert load_progress(first)["step"] == load_progress(second)["step"]
    for name in ("model", "optimizer", "adversary", "adversary_optimizer"):
        mine, theirs = load_file(first / f"{name}.safetensors"), load_file(second / f"{name}.safetensors")
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert_close(mine[key], theirs[key], rtol=1e-5, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("processes, shard", [(2, False), (4, False), (2, True)])
def test_processes_equal_one(settings, tmp_path, processes, shard):
    (status, text), *_ = run(tmp_path, settings("one"), double=True)
    assert status == 0, text
    for status, text in run(tmp_path, settings("many", shard, batch=8 // processes), processes, double=True):
        assert status == 0, text
    assert_close_runs(tmp_path / "one", tmp_path / "many")
