"""Slow requests as files of one report each."""

from __future__ import annotations

import os
import stat

import pytest

from otel_introspect import faults
from otel_introspect.exporters.report_files import IntrospectFilesExporter

pytest.importorskip("aiosmtpd")
pytest.importorskip("trustme")

from mail_server import exporting, slow_request


@pytest.fixture(name="make")
def _make(tmp_path):
    made = []

    def make(**options):
        made.append(IntrospectFilesExporter(**{"directory": str(tmp_path / "slow"), **options}))
        return made[-1]

    yield make

    for each in made:
        each.shutdown()


def write(exporter, count=1, **more):
    tracer = exporting(exporter)
    ids = []
    for _ in range(count):
        ids.append(slow_request(tracer, **more))
        exporter.force_flush(5000)
    return ids


def test_one_file_for_a_slow_request(make, tmp_path):
    """
    A file that only its owner reads, in a directory that only its owner enters, with the whole report.
    """
    (trace_id,) = write(make())
    (path,) = (tmp_path / "slow").iterdir()

    assert trace_id in path.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert 'File "/srv/shop/totals.py", line 7, in sum_up' in path.read_text(encoding="utf-8")


def test_the_oldest_go(make, tmp_path):
    """
    There are never more files than asked for, and the newest is among them.
    """
    ids = write(make(max_count=3), 10)
    kept = {path.name.split("-")[1] for path in (tmp_path / "slow").iterdir()}

    assert len(kept) == 3
    assert ids[-1] in kept
    assert ids[0] not in kept


def test_no_more_bytes_than_asked_for(make, tmp_path):
    """
    They have only so many bytes together; the newest stays even if it alone has more.
    """
    write(make(max_bytes=3000), 8)
    kept = list((tmp_path / "slow").iterdir())

    assert 1 <= len(kept) < 8
    assert sum(path.stat().st_size for path in kept) <= 3000
    write(make(max_bytes=1))
    assert len(list((tmp_path / "slow").iterdir())) == 1


def test_what_is_not_ours_stays(make, tmp_path):
    """
    Other files in the directory are neither counted nor removed; what a dead process left half-written is.
    """
    exporter = make(max_count=1)
    write(exporter)
    folder = tmp_path / "slow"
    (folder / "notes.txt").write_text("mine")
    (report,) = (path for path in folder.iterdir() if path.name != "notes.txt")
    (folder / f".{report.name}.0123456789abcdef.tmp").write_text("half")
    os.utime(folder / f".{report.name}.0123456789abcdef.tmp", (0, 0))
    (folder / f".{report.name}.fedcba9876543210.tmp").write_text("just being written")
    write(exporter)

    assert (folder / "notes.txt").read_text() == "mine"
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("kind", ["link", "file", "writable"])
def test_a_directory_that_is_refused(make, tmp_path, caplog, kind):
    """
    Where somebody else may write or has put a link, nothing is written; that is said once.
    """
    folder = tmp_path / "slow"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    write(make(), 2)

    assert len([each for each in caplog.records if "Reports can't be written" in each.message]) == 1
    assert faults.counts["dropped", "report file: it can't be written"] == 2
    assert not (tmp_path / "elsewhere").exists() or list((tmp_path / "elsewhere").iterdir()) == []


def test_no_directory(make, caplog):
    """
    Without a directory it says so once, and starts nothing.
    """
    exporter = make(directory="")
    write(exporter)

    assert [each.message for each in caplog.records] == [
        "introspect_files writes nothing: set OTEL_PYTHON_INTROSPECT_REPORTS_DIR to a directory of this user's own."
    ]
    assert exporter._background._run is None


def test_a_disk_that_is_full(make, tmp_path, monkeypatch, caplog):
    """
    What can't be written leaves no half of it, and the next one is tried.
    """
    exporter = make()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("otel_introspect.engine.private_files.write_all", full)
        write(exporter)
    assert list((tmp_path / "slow").iterdir()) == []
    assert "No space left on device" in caplog.text
    write(exporter)
    assert len(list((tmp_path / "slow").iterdir())) == 1
