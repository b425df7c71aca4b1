"""Settings of these tests."""

from hypothesis import settings

# The first call of a torch function takes long, and other work may share the machine.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_configure(config):
    """torch 2.13 warns about its own modules when forward mode and inductor load them; nothing of ours is silenced."""
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script:DeprecationWarning")
