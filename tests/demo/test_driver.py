"""What the demo says when it can't do what it is for."""

from __future__ import annotations

import io
import signal
import sys

import pytest
from click.testing import CliRunner

from otel_introspect.cli.demo import demo
from otel_introspect.demo import driver, requirements, server
from otel_introspect.demo.server import Shop


@pytest.fixture(name="out")
def _out():
    return io.StringIO()


def test_missing_packages_are_named_with_the_command(out, tmp_path, monkeypatch):
    """
    Without Django and gunicorn one message says what to install, and the status is 1.
    """
    monkeypatch.setattr(requirements, "find_spec", lambda module: None if module in ("django", "gunicorn") else True)

    assert driver.run(tmp_path / "x.jsonl", out) == 1
    assert "needs django, gunicorn" in out.getvalue()
    assert "pip install 'otel-introspect[demo]'" in out.getvalue()


def test_a_missing_parent_package_is_a_missing_package(monkeypatch):
    """
    Where even the namespace of a package is missing the demo says so instead of failing.
    """

    def no_parent(module):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(requirements, "find_spec", no_parent)

    assert "opentelemetry-distro" in requirements.missing()


def test_an_output_that_can_not_be_written_is_said_first(out, tmp_path):
    """
    The demo does not start if it can't write the file.
    """
    assert driver.run(tmp_path / "not there" / "x.jsonl", out) == 1
    assert "Can't write" in out.getvalue()


def test_a_server_that_does_not_come_up_shows_its_last_words(out, tmp_path, monkeypatch):
    """
    When gunicorn ends at once its log is shown and the status is 1.
    """
    monkeypatch.setattr(Shop, "_prepare", lambda _self: None)
    last_words = "import sys; print('cannot bind: \\x1b[31mno'); sys.exit(3)"
    monkeypatch.setattr(server, "command", lambda _fd: [sys.executable, "-c", last_words])

    assert driver.run(tmp_path / "x.jsonl", out, {}) == 1
    assert "did not open" in out.getvalue()
    assert "cannot bind: \\x1b[31mno" in out.getvalue()


def test_ctrl_c_while_it_opens_closes_everything(out, tmp_path, monkeypatch):
    """
    An interruption ends the demo with status 130 and a word.
    """

    def interrupted(_self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Shop, "_prepare", interrupted)

    assert driver.run(tmp_path / "x.jsonl", out, {}) == 130
    assert "Interrupted" in out.getvalue()


def test_the_command_hands_over_its_option_and_the_status(monkeypatch, tmp_path):
    """
    The command runs the driver with the given file and ends with its status.
    """
    given = []
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(driver, "run", lambda output: given.append(output) or 7)

    result = CliRunner().invoke(demo, ["--output", str(tmp_path / "y.jsonl")])

    assert given == [tmp_path / "y.jsonl"]
    assert result.exit_code == 7
