"""torch 2.13 warns about its own modules when forward mode and inductor load them; nothing of ours is silenced."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script:DeprecationWarning")
