"""The Python in the README and in the pages of ``docs/`` runs, page by page, from top to bottom."""

from __future__ import annotations

import pytest
from documents import PAGES, name_of
from sybil import Document, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from otel_introspect import introspection
from otel_introspect.engine.alarm import ALARM
from otel_introspect.faults import counts
from otel_introspect.introspection import activate
from otel_introspect.profiling import pools

# A line ``<!-- skip: next -->`` before a block leaves it out: one that needs what a test has not.
SYBIL = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"])
WITH_PYTHON = [page for page in PAGES if "```python\n" in page.read_text(encoding="utf-8")]


def test_there_are_examples():
    """
    Pages with Python are found: an empty list would hold nothing.
    """
    assert len(WITH_PYTHON) > 4


@pytest.fixture(name="alone")
def _alone(monkeypatch):
    """No instrumentor has been run, and there is no SDK."""
    monkeypatch.setattr(introspection, "_fallback", None)
    activate(None)

    yield

    if introspection._fallback is not None:
        introspection._fallback.stop()
    pools.leave()
    ALARM.release()  # which lets go by itself, a second after the last block


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_examples_run(page, capsys):
    """
    Each block of a page runs after those above it, and nothing of ours fails in it.
    """
    document: Document = SYBIL.parse(page)

    for example in document.examples():
        example.evaluate()

    capsys.readouterr()
    assert not [each for each in counts if each[0] == "failed"]
