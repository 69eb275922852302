"""A key, a clock that a test moves, and a directory for the nonces."""

from __future__ import annotations

import pytest

from otel_introspect.triggers.nonces import Nonces
from otel_introspect.triggers.tokens import Verifier

KEY = "a key that is long enough"
NOW = 1_700_000_000


class WallClock:
    """The time of day, which only a test moves."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="wall")
def _wall():
    return WallClock()


@pytest.fixture(name="directory")
def _directory(tmp_path):
    return tmp_path / "nonces"


@pytest.fixture(name="verifier")
def _verifier(wall, directory):
    return Verifier(KEY, Nonces(directory, clock=wall), clock=wall)
