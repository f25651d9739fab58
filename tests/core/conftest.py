"""Made-up examples are the same on every run, so that a test fails only for whoever changed something."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("house", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
