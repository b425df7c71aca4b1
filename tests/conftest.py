"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# The first call of a torch function takes long, and other work may share the machine: no clock decides. The examples
# are the same in every run; `pytest --hypothesis-profile search` draws others.
settings.register_profile(
    "repeatable", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)
settings.register_profile("search", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")
