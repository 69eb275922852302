"""Replay protection: one of many wins, and nobody else has a say in it."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from otel_introspect.faults import counts
from otel_introspect.triggers import nonces as module
from otel_introspect.triggers.nonces import CLEANING_INTERVAL, MARGIN, Nonces
from otel_introspect.triggers.refusal import Refused

NOW = 1_700_000_000
LATER = NOW + 300
ONE, OTHER = bytes(32), bytes([1] * 32)


@pytest.fixture(name="nonces")
def _nonces(directory, wall):
    return Nonces(directory, clock=wall)


def files(directory):
    return sorted(each.name for each in directory.iterdir())


def test_the_first_time_only(nonces):
    """
    A nonce is new once, and another one is another one.
    """
    assert [nonces.use(ONE, LATER), nonces.use(ONE, LATER), nonces.use(OTHER, LATER)] == [True, False, True]


def test_other_processes_know(directory, wall):
    """
    Whoever shares the directory knows what has been used.
    """
    assert Nonces(directory, clock=wall).use(ONE, LATER)
    assert not Nonces(directory, clock=wall).use(ONE, LATER)


def test_the_directory_is_private(nonces, directory):
    """
    The directory and the files in it are for nobody else to see.
    """
    before = os.umask(0)
    try:
        nonces.use(ONE, LATER)
    finally:
        os.umask(before)

    (file,) = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_is_under_the_temporary_directory_and_the_user_s_own(tmp_path, monkeypatch, wall):
    """
    Unless told otherwise, the directory is one of this user's under the system's temporary one, and is made when it is
    needed first.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    nonces = Nonces(clock=wall)
    assert list(tmp_path.iterdir()) == []

    nonces.use(ONE, LATER)

    (made,) = tmp_path.iterdir()
    assert made.name.endswith(f"-{os.geteuid()}")


def test_one_of_many_threads_wins(directory, wall):
    """
    Of many threads that use one nonce at the same moment exactly one is first; in one process or as if in several.
    """
    for several in (True, False):
        one_for_all = Nonces(directory, clock=wall)
        for number in range(20):
            barrier, won = threading.Barrier(8), []
            digest = bytes([several, number] * 16)

            def use(barrier=barrier, won=won, digest=digest, several=several, one_for_all=one_for_all):
                nonces = Nonces(directory, clock=wall) if several else one_for_all
                barrier.wait()
                won.append(nonces.use(digest, LATER))

            threads = [threading.Thread(target=use) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(won) == [False] * 7 + [True]


RACER = """
import sys
from otel_introspect.triggers.nonces import Nonces

nonces = Nonces(sys.argv[1], clock=lambda: 1_700_000_000)
print("ready", flush=True)
sys.stdin.readline()
print("".join(str(int(nonces.use(bytes([number] * 32), 1_700_000_300))) for number in range(100)))
"""


def test_one_of_many_processes_wins(directory):
    """
    Of many processes that use the same nonces at the same moment exactly one is first with each.
    """
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[0].strip() for racer in racers]

    assert [len(each) for each in said] == [100] * 4
    assert ["".join(sorted(each)) for each in zip(*said, strict=True)] == ["0001"] * 100


def test_a_forked_child_knows_what_its_parent_used(wall):
    """
    What was used before a fork is used after it, even where nothing is written to the disk.
    """
    nonces = Nonces("/dev/null/nowhere", clock=wall)
    nonces.use(ONE, LATER)

    child = os.fork()
    if not child:
        os._exit(10 + 2 * nonces.use(ONE, LATER) + nonces.use(OTHER, LATER))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11


def remembers_alone(directory, wall, caplog, why):
    """It works within the process, leaves what is there alone, and says so once."""
    nonces = Nonces(directory, clock=wall)

    assert [nonces.use(ONE, LATER), nonces.use(ONE, LATER), nonces.use(OTHER, LATER)] == [True, False, True]
    assert Nonces(directory, clock=wall).use(ONE, LATER)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(directory) in record.getMessage()
    assert why in record.getMessage()


def test_a_link_is_not_followed(directory, tmp_path, wall, caplog):
    """
    Where a symbolic link stands in the directory's place, nothing is written to where it leads.
    """
    target = tmp_path / "theirs"
    target.mkdir(mode=0o700)
    directory.symlink_to(target)

    remembers_alone(directory, wall, caplog, "Not a directory")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o701, 0o710, 0o704, 0o770, 0o1777])
def test_a_directory_that_others_may_enter_is_not_used(directory, wall, caplog, mode):
    """
    A directory with rights for anybody else is not trusted.
    """
    directory.mkdir()
    directory.chmod(mode)

    remembers_alone(directory, wall, caplog, f"its mode is {mode:04o}")
    assert files(directory) == []


def test_somebody_else_s_directory_is_not_used(directory, wall, caplog, monkeypatch):
    """
    A directory that belongs to another user is not trusted.
    """
    directory.mkdir(0o700)
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)

    remembers_alone(directory, wall, caplog, f"it belongs to user {real}")
    assert files(directory) == []


def test_a_file_in_its_place(directory, wall, caplog):
    """
    A file in the directory's place is left alone.
    """
    directory.write_text("mine")

    remembers_alone(directory, wall, caplog, "Not a directory")
    assert directory.read_text() == "mine"


def test_no_place_for_it(tmp_path, wall, caplog):
    """
    Where no directory can be made, the process remembers by itself.
    """
    remembers_alone(tmp_path / "no" / "such", wall, caplog, "No such file or directory")


def test_no_temporary_directory(wall, caplog, monkeypatch):
    """
    On a machine without a temporary directory, the process remembers by itself.
    """

    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    nonces = Nonces(clock=wall)

    assert [nonces.use(ONE, LATER), nonces.use(ONE, LATER)] == [True, False]
    assert "a temporary directory" in caplog.text


def test_a_full_disk(nonces, directory, caplog, monkeypatch):
    """
    A disk that is full for a while costs the files of that while, and no request.
    """
    real = os.open

    def full(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return real(path, flags, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        assert [nonces.use(ONE, LATER), nonces.use(ONE, LATER)] == [True, False]
    nonces.use(OTHER, LATER)

    assert files(directory) == [f"{LATER}-{OTHER.hex()}".rjust(77, "0")]
    assert len(caplog.records) == 1


def test_a_directory_that_is_removed_is_made_again(nonces, directory):
    """
    If somebody tidies the temporary directory, the next nonce is written again, and what this process used stays used.
    """
    nonces.use(ONE, LATER)
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()

    assert nonces.use(OTHER, LATER)
    assert not nonces.use(ONE, LATER)
    assert len(files(directory)) == 1


def test_what_has_expired_is_removed(nonces, directory, wall):
    """
    Files that have expired are removed now and then, others stay, and so does whatever is not ours.
    """
    nonces.use(ONE, LATER)
    nonces.use(OTHER, LATER + 1000)
    (directory / "notes").write_text("mine")
    kept = files(directory)[1:]

    wall.now = LATER + MARGIN
    nonces.use(bytes([2] * 32), LATER + 1000)
    assert len(files(directory)) == 4

    wall.now += CLEANING_INTERVAL
    nonces.use(bytes([3] * 32), LATER + 1000)
    assert len(files(directory)) == 4
    assert set(kept) < set(files(directory))
    assert not any(ONE.hex() in name for name in files(directory))


def test_cleaning_is_not_done_each_time(nonces, monkeypatch, wall):
    """
    The directory is looked through once in a minute at most.
    """
    looked = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: looked.append(place) or real(place))
    for second in range(120):
        wall.now = NOW + second
        nonces.use(bytes([second] * 32), LATER)

    assert len(looked) == 2


def test_two_that_clean_at_the_same_time(nonces, directory, monkeypatch, wall, caplog):
    """
    A file that another process has removed already is no fault.
    """
    nonces.use(ONE, LATER)
    wall.now = LATER + 1000
    real = os.unlink

    def twice(*args, **kwargs):
        real(*args, **kwargs)
        real(*args, **kwargs)

    monkeypatch.setattr(os, "unlink", twice)

    assert nonces.use(OTHER, LATER + 1000)
    assert len(files(directory)) == 1
    assert caplog.records == []


def test_the_number_is_bounded(nonces, monkeypatch, wall):
    """
    When as many are in use as can be remembered, one more is refused, counted, and taken when others have expired.
    """
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    for number in range(3):
        assert nonces.use(bytes([number] * 32), LATER)
    with pytest.raises(Refused) as refused:
        nonces.use(bytes([9] * 32), LATER + 1000)

    assert refused.value.reason == "rate"
    assert counts == {("refused", "profile: rate"): 1}
    assert not nonces.use(ONE, LATER)
    wall.now = LATER + MARGIN + 1
    assert nonces.use(bytes([9] * 32), LATER + 1000)


def test_the_number_of_files_is_bounded(directory, monkeypatch, wall):
    """
    When the directory holds as many as it may, from whichever process, one more is refused, and taken when others have
    expired.
    """
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    for number in range(3):
        assert Nonces(directory, clock=wall).use(bytes([number] * 32), LATER)
    nonces = Nonces(directory, clock=wall)
    for _ in range(2):
        with pytest.raises(Refused):
            nonces.use(OTHER + b"x", LATER + 1000)

    wall.now = LATER + MARGIN + CLEANING_INTERVAL
    assert nonces.use(OTHER + b"x", LATER + 1000)
    assert len(files(directory)) == 1


def test_no_more_is_looked_at_than_there_may_be(directory, monkeypatch, wall):
    """
    However much lies in the directory, one request looks at a bounded part of it.
    """
    nonces = Nonces(directory, clock=wall)
    nonces.use(ONE, LATER)
    for number in range(20):
        (directory / f"{number}").write_text("")
        (directory / f"{NOW - 1000:012d}-{number:064x}").write_text("")
    monkeypatch.setattr(module, "_MAX_LOOKED_AT", 5)
    before = len(files(directory))
    wall.now += CLEANING_INTERVAL
    nonces.use(OTHER, LATER)

    assert before + 1 - 5 <= len(files(directory)) <= before + 1


def test_nothing_stays_open(nonces):
    """
    No descriptor is kept: a process that closes all of them, or that has few, is not surprised.
    """
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(50):
        nonces.use(bytes([number] * 32), LATER)
        nonces.use(bytes([number] * 32), LATER)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
