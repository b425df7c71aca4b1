"""Settings of these tests."""

import pytest

import multilinear as ml


def pytest_configure(config):
    """torch 2.13 warns about its own modules when forward mode and inductor load them; nothing of ours is silenced."""
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script:DeprecationWarning")


@pytest.fixture(autouse=True)
def analytic_gradients(request):
    """The analytic operators at every size; tests marked `backend(name)` choose otherwise."""
    mark = request.node.get_closest_marker("backend")
    with ml.use(mark.args[0] if mark else "torch"):
        yield
