"""Directions of named expressions, against a network whose answer is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from facemodels import expressions
from facemodels.expressions import NamedExpressions, name_expressions, reference_faces
from facemodels.morphable.procedural import EMOTIONS

SIZE = 2  # of the made-up pictures


class Reader(nn.Module):
    """A network whose expression code is what stands in the first pixels."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(size=SIZE)
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, images):
        return SimpleNamespace(expression=images.flatten(1)[:, :3].clone())


@pytest.fixture
def made_up(monkeypatch):
    """Three persons: neutral, then a usual change, a small one, a tiny one, and one in which they differ."""
    persons = torch.rand(3, 12)
    smile, frown, wink = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0.5, 0.0]), torch.tensor([0, 0, 0.01])
    changes = torch.zeros(4, 3, 12)
    changes[0, :, :3], changes[1, :, :3], changes[2, :, :3] = smile, frown, wink
    changes[3, :, :3] = torch.eye(3)
    pictures = torch.cat([persons[None], persons + changes]).unflatten(2, (3, SIZE, SIZE))
    monkeypatch.setattr(expressions, "reference_faces", lambda size: (("smile", "frown", "wink", "odd"), pictures))


def test_directions_are_the_changes_of_the_codes(made_up):
    named = name_expressions(Reader())  # type: ignore[arg-type]
    assert named.names == ("smile", "frown", "wink") and named.untold == ("odd",)
    usual = torch.tensor([1.0, 0.5, 0.01, 3**-0.5]).square().mean().sqrt()
    expected = torch.diag(torch.stack([torch.tensor(1.0), usual, torch.tensor(0.04)]))
    assert_close(named.directions, expected)  # the usual stays, the small grows to it, the tiny to four times itself


def test_expressions_are_added_to_codes():
    named = NamedExpressions(("smile", "jaw open"), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    code = torch.tensor([[1.0, 1.0], [5.0, 0.0]])
    assert_close(named.add(code, {"jaw open": 0.5, "smile": -1.0}), torch.tensor([[0.0, 2.0], [4.0, 1.0]]))
    assert_close(named.add(code, {}), code)
    with pytest.raises(ValueError, match="there is no expression 'wink'; choose among smile, jaw open"):
        named.add(code, {"wink": 1.0})


@pytest.mark.slow
def test_reference_faces_show_every_expression():
    names, pictures = reference_faces(32)
    assert names[:6] == tuple(EMOTIONS)[1:] and {"smile", "jaw open", "eye close"} < set(names)
    assert pictures.shape == (1 + len(names), 3, 3, 32, 32)
    change = (pictures[1:] - pictures[:1]).abs().mean((2, 3, 4))
    assert (change > 0).all()  # an expression changes every person
    assert change[names.index("jaw open")].min() > change.mean()
