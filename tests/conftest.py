"""What holds for all tests: how busy the machine is fails none of them."""

from hypothesis import HealthCheck, settings

from tests.support import commit

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_report_header() -> str:
    """Say which schedules of faults are this commit's own."""
    return f"fresh schedules of tests/chaos: from seed {commit.seed()}"
