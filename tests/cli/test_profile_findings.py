"""What the doctor says about profiles."""

from __future__ import annotations

import os

import pytest

from otel_introspect.cli.diagnosis import profiles
from otel_introspect.cli.diagnosis.finding import Level
from otel_introspect.config import PREFIX


@pytest.fixture(name="diagnose")
def _diagnose(healthy):
    def diagnose(**variables):
        return list(profiles.profiles(healthy({f"{PREFIX}{name}": value for name, value in variables.items()})))

    return diagnose


def levels(findings):
    return [each.level for each in findings]


def test_as_it_is_out_of_the_box(diagnose):
    """
    By default slow requests are profiled, and nothing remote can start a profile.
    """
    found = diagnose()

    assert levels(found) == [Level.OK, Level.OK]
    assert "requests that turn slow; requests that ask for it" in found[0].message
    assert "Nothing remote can start one, as no key is set" in found[1].message


def test_no_triggers(diagnose):
    """
    That nothing is profiled is worth knowing.
    """
    (finding,) = diagnose(PROFILER_TRIGGERS="none")

    assert finding.level is Level.NOTE
    assert "only profile() in code" in finding.message


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PROFILER_TRIGGERS": "ratio"}, "profiles nothing"),
        ({"PROFILER_RATIO": "0.1"}, "ratio is not among the triggers"),
        ({"PROFILER_TRIGGERS": "slow", "PROFILER_KEY": "k" * 20}, "request is not among the triggers"),
        ({"PROFILER_TRIGGERS": "slow", "PROFILER_ALLOW": "shop.access:allow"}, "request is not among the triggers"),
    ],
)
def test_settings_that_contradict_each_other(diagnose, variables, words):
    """
    A setting that does nothing, because another one is missing, is a problem with a remedy.
    """
    (finding,) = [each for each in diagnose(**variables) if each.level is Level.PROBLEM]

    assert words in finding.message
    assert "PROFILER_" in finding.remedy or "share" in finding.remedy


def test_a_key_that_can_be_guessed(diagnose):
    """
    A short key is worth knowing, and is not shown.
    """
    (finding,) = [each for each in diagnose(PROFILER_KEY="hunter2") if each.level is not Level.OK]

    assert finding.level is Level.NOTE
    assert "fewer than 16 characters" in finding.message
    assert "hunter2" not in finding.message + finding.remedy


def test_what_the_watchdog_and_the_engine_mean_for_it(diagnose):
    """
    That no request turns slow, and what pyinstrument's hook can't do, is worth knowing.
    """
    found = diagnose(WATCHDOG_THRESHOLD="0", PROFILER_ENGINE="pyinstrument")

    assert [each.message[:23] for each in found if each.level is Level.NOTE] == [
        "The watchdog is off, so",
        "pyinstrument's own hook",
    ]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_directory_for_whole_profiles(diagnose, tmp_path, prefix):
    """
    A directory that is there, or can be made, is as it should be.
    """
    for directory in (tmp_path, tmp_path / "a" / "b"):
        assert diagnose(PROFILER_STORE=f"{prefix}{directory}")[-1].message == f"Whole profiles go to {directory}."


def test_a_directory_that_cannot_be_written(diagnose, tmp_path, monkeypatch):
    """
    A file in its place, and a directory without the right to write, are problems.
    """
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)
    for location in (tmp_path / "file" / "profiles", tmp_path / "other"):
        finding = diagnose(PROFILER_STORE=str(location))[-1]
        assert finding.level is Level.PROBLEM
        assert "where this user can't write" in finding.message


def test_an_object_store(diagnose, monkeypatch):
    """
    An object store needs fsspec; its URL, which may hold a password, is not shown.
    """
    assert levels(diagnose(PROFILER_STORE="s3://me:hush@bucket/profiles")) == [Level.OK, Level.OK]
    monkeypatch.setattr(profiles, "find_spec", lambda _name: None)
    finding = diagnose(PROFILER_STORE="s3://me:hush@bucket/profiles")[-1]

    assert finding.level is Level.PROBLEM
    assert "otel-introspect[store]" in finding.remedy
    assert "hush" not in finding.message + finding.remedy
