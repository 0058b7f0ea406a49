"""State machines beside models: the same few seconds each time, and for long with HYPOTHESIS_PROFILE=soak."""

import pytest
from hypothesis import HealthCheck, settings
from world import World

settings.register_profile(
    "models",
    max_examples=120,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "soak", settings.get_profile("models"), max_examples=30_000, stateful_step_count=100, derandomize=False
)


@pytest.fixture
def world(monkeypatch):
    made = World(monkeypatch)
    yield made
    made.quiesce()
    made.close()
