"""Environments of their own for programs that the tests run and that would not fit into the tests' environment."""

from deploy.local.environment import CACHE, ROOT, environment, output_of

__all__ = ["CACHE", "ROOT", "environment", "output_of"]
