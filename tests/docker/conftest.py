"""Fixtures for the tests in Docker."""

from tests.support.artifacts import artifacts, runtime_libraries
from tests.support.docker import docker_gateway, lambda_image

__all__ = ["artifacts", "docker_gateway", "lambda_image", "runtime_libraries"]
