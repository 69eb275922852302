"""A PostgreSQL of this test run's own, in a temporary directory, reached through a socket there."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

OWNERS = ("postgres", "nobody")


def find_binaries():
    """Where initdb and postgres are: on the path, or where Debian has them."""
    folders = [Path(each) for each in os.get_exec_path()] + sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((each for each in folders if all((each / name).exists() for name in ("initdb", "postgres"))), None)


def owner():
    """Whom the server runs as: it refuses to run as root. None for whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in OWNERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


class PostgreSQL:
    """One that is running.

    Args:
        binaries: The folder with its programs.
    """

    def __init__(self, binaries):
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path may have 107 bytes
        user = owner()
        self._as_owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        if user:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        data = self.folder / "data"
        self._run(binaries / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        with (self.folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._as_owner,
            )
        try:
            self._await()
        except BaseException:
            self.stop()
            raise

    def _run(self, *command):
        subprocess.run(
            command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=None, timeout=60, **self._as_owner
        )

    def _await(self):
        import psycopg

        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(host=str(self.folder), user="tester", dbname="postgres").close()
            except psycopg.OperationalError:
                assert self._server.poll() is None, (self.folder / "log").read_text()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def stop(self):
        self._server.send_signal(signal.SIGINT)  # does not wait for its clients
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
