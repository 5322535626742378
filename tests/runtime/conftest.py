"""Fixtures that these tests share."""

from tests.support.artifacts import artifacts, runtime_libraries
from tests.support.sandboxes import aws, aws_endpoint, redis_url, start, treasure_data

__all__ = ["artifacts", "aws", "aws_endpoint", "redis_url", "runtime_libraries", "start", "treasure_data"]
