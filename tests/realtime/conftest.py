"""Real servers, shared by all tests of this folder, and a receiver of their traces."""

from __future__ import annotations

import pytest
from otlp_receiver import Receiver
from services import Services

collect_ignore = ["project"]

# What nobody may find in a log because of us.
UNWANTED = (
    "otel_introspect failed",
    "on ended span",
    "on an ended span",
    "Exception in thread",
    "Fatal Python error",
    "never retrieved",
    "was never awaited",
    "was created in a different Context",
)


@pytest.fixture(scope="session", autouse=True, name="receiver")
def _receiver():
    receiver = Receiver()

    yield receiver

    receiver.close()


@pytest.fixture(scope="session", autouse=True, name="services")
def _services(receiver, tmp_path_factory):
    services = Services(receiver, tmp_path_factory.mktemp("services"))

    yield services

    services.stop()
    said = {
        name: [line for line in log.splitlines() if any(each in line for each in UNWANTED)]
        for name, log in services.logs().items()
    }
    assert not {name: lines for name, lines in said.items() if lines}


@pytest.fixture(scope="session", name="visited")
def _visited():
    """Asks a service for paths and remembers the entry spans: tests that look at the same one share it."""
    known = {}

    def visited(service, paths, *, at_once=True):
        key = (service.name, tuple(paths))
        if key not in known:
            answers = service.get_all(paths) if at_once else [service.get(path) for path in paths]
            known[key] = [service.entry(each.trace_id) for each in answers]
        return known[key]

    return visited
