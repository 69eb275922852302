"""The directory of flight recorders' files: private or refused, and made when it is needed."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from otel_introspect.engine import recorder_directory
from otel_introspect.engine.recorder_directory import DirectoryRefused, RecorderDirectory

DEFAULT = recorder_directory._default


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return tmp_path / "flight"


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_it_is_made_private(folder, umask):
    """
    Whatever the umask is, nobody else may enter it and its owner may.
    """
    before = os.umask(umask)
    try:
        made = RecorderDirectory(str(folder)).make()
    finally:
        os.umask(before)

    assert made == folder
    assert mode_of(folder) == 0o700


def test_it_is_made_where_nothing_is_yet(tmp_path):
    """
    Directories above it that are not there are made, too.
    """
    assert RecorderDirectory(str(tmp_path / "a" / "b" / "c")).make().is_dir()


def test_it_may_be_there(folder):
    """
    A directory of this user's own in which nobody else may write is taken as it is.
    """
    folder.mkdir(mode=0o755)
    RecorderDirectory(str(folder)).make()

    assert mode_of(folder) == 0o755


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_others_may_write(folder, mode):
    """
    A directory in which others may write is refused; the message has the mode and a way out, and nothing is changed.
    """
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(DirectoryRefused, match=rf"written by other users \(mode {mode:o}, expected 700\).*inside it"):
        RecorderDirectory(str(folder)).make()

    assert mode_of(folder) == mode


def test_a_link(tmp_path, folder):
    """
    A symbolic link is refused, also one that leads to a private directory of one's own, or nowhere.
    """
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")
    with pytest.raises(DirectoryRefused, match="is a symbolic link"):
        RecorderDirectory(str(folder)).make()

    folder.unlink()
    folder.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DirectoryRefused, match="is a symbolic link"):
        RecorderDirectory(str(folder)).make()
    assert not (tmp_path / "nowhere").exists()


def test_a_file(folder):
    """
    Something else in its place is refused.
    """
    folder.write_text("")
    with pytest.raises(DirectoryRefused, match="is not a directory"):
        RecorderDirectory(str(folder)).make()


def test_another_user_s(folder, monkeypatch):
    """
    Another user's directory is refused, as that one could put anything there.
    """
    folder.mkdir(mode=0o700)
    owner = folder.stat().st_uid
    os.chown(folder, 12345, -1) if owner == 0 else monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(DirectoryRefused, match=r"belongs to another user \(\d+\)"):
        RecorderDirectory(str(folder)).make()


def test_its_files(folder):
    """
    Of what is in it, the recorders' files are told by their names, claimed ones too; unfinished ones are none.
    """
    RecorderDirectory(str(folder)).make()
    for name in ("2.flight", "1.flight", "3.flight.claimed", "4.making", "5.dump", "readme.txt"):
        (folder / name).touch()

    assert [path.name for path in RecorderDirectory(str(folder)).files()] == [
        "1.flight",
        "2.flight",
        "3.flight.claimed",
    ]


def test_no_files_where_nothing_is(tmp_path):
    """
    A directory that is not there has none.
    """
    assert RecorderDirectory(str(tmp_path / "none")).files() == []


def test_files_of_a_refused_one(folder):
    """
    Of a directory that is not private nothing is listed.
    """
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(DirectoryRefused):
        RecorderDirectory(str(folder)).files()


def test_where_it_is_by_default(monkeypatch):
    """
    It is under the system's temporary directory, one for each user.
    """
    monkeypatch.setattr(recorder_directory, "_default", DEFAULT)

    assert str(RecorderDirectory().path) == f"{tempfile.gettempdir()}/otel-introspect-{os.getuid()}"


def test_a_home(monkeypatch, tmp_path):
    """
    A path may begin with the user's home, or be relative.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert RecorderDirectory("~/flight").path == tmp_path / "flight"
    assert RecorderDirectory("flight").path == tmp_path / "flight"


def test_no_home_and_no_temporary_directory(monkeypatch):
    """
    That its place can't be found out is found out when it is needed, not when the settings are read.
    """

    def nowhere():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(recorder_directory, "_default", nowhere)
    directories = [RecorderDirectory("~nobody-of-this-name/flight"), RecorderDirectory()]

    for each in directories:
        with pytest.raises((RuntimeError, FileNotFoundError)):
            each.make()
