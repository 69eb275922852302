"""What the doctor says about the flight recorder's directory."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from otel_introspect.cli.diagnosis import CHECKS, recorder
from otel_introspect.cli.diagnosis.finding import Level
from otel_introspect.config import PREFIX


@pytest.fixture(name="diagnose")
def _diagnose(healthy):
    def diagnose(directory=""):
        return list(recorder.recorder(healthy({f"{PREFIX}RECORDER_DIR": str(directory)} if directory else {})))

    return diagnose


def test_it_is_one_of_the_checks():
    """
    The doctor asks.
    """
    assert recorder.recorder in CHECKS


@pytest.mark.parametrize("name", ["", "not", "not/there"])
def test_a_directory_that_will_do(diagnose, tmp_path, name):
    """
    Where requests are written down is said; nothing is made by asking.
    """
    (finding,) = diagnose(tmp_path / name)

    assert (finding.level, finding.message) == (Level.OK, f"Open requests are written down in {tmp_path / name}.")
    assert not (tmp_path / "not").exists()


def test_out_of_the_box(diagnose):
    """
    The default directory is as good as any.
    """
    (finding,) = diagnose()

    assert finding.level is Level.OK


def test_off(diagnose):
    """
    That it is switched off, and what is lost by that, is worth knowing.
    """
    (finding,) = diagnose("none")

    assert finding.level is Level.NOTE
    assert "requests of a process that is killed are lost" in finding.message


@pytest.mark.parametrize("kind", ["writable", "link", "file", "inside a file"])
def test_a_directory_that_is_refused(diagnose, tmp_path, kind):
    """
    Why no recorder can be there is a problem with a remedy.
    """
    path = tmp_path / "flight"
    if kind == "writable":
        path.mkdir()
        path.chmod(0o777)
    elif kind == "link":
        path.symlink_to(tmp_path)
    else:
        path.write_text("")
    (finding,) = diagnose(path / "inside" if kind == "inside a file" else path)

    assert finding.level is Level.PROBLEM
    assert f"{PREFIX}RECORDER_DIR" in finding.remedy


def test_one_that_can_t_be_written(diagnose, tmp_path, monkeypatch):
    """
    A directory of somebody else's above it is a problem.
    """
    monkeypatch.setattr(os, "access", lambda *_: False)
    (finding,) = diagnose(tmp_path / "flight")

    assert finding.level is Level.PROBLEM
    assert f"can't write to {tmp_path}" in finding.message


def test_no_such_home(diagnose):
    """
    A directory that can't be found out is a problem.
    """
    (finding,) = diagnose("~nobody-of-this-name/flight")

    assert finding.level is Level.PROBLEM


def test_hardly_any_room(diagnose, tmp_path, monkeypatch):
    """
    Where the files of a few processes would fill the disk, that is worth knowing.
    """
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10 * 256, f_frsize=4096))
    _, finding = diagnose(tmp_path / "flight")

    assert finding.level is Level.NOTE
    assert "10 MiB are free" in finding.message
