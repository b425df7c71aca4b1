"""torch's forward mode imports a module of torch's own that warns (torch 2.13); nothing of ours is silenced."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script. is deprecated:DeprecationWarning")
