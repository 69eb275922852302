"""What a request costs a real server: gunicorn with two synchronous workers and a view that does nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

from benchmarks.effort import Effort
from benchmarks.pairing import compare, in_turns
from benchmarks.peers import NO_DOGSLOW, dogslow_is_there
from benchmarks.programs import program
from benchmarks.report import Part
from benchmarks.site.variants import BASE, OURS, variants

LIMIT: Final = 1.02

_WORKERS: Final = 2
_REQUESTS_A_TURN: Final = 40
_WARM_UP: Final = 200
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_TIMEOUT: Final = 10.0
_REQUEST: Final = b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
# How Linux names the clock of another process's CPU time, all threads of it, also those that have ended.
_CPU_CLOCK: Final = 2


def measure(effort: Effort) -> Part:
    """Send all servers, which run at the same time, requests in turns."""
    part = Part(title="gunicorn, 2 sync workers, trivial Django view", unit="us CPU a request")
    figures: dict[str, list[float]] = {}
    for _ in range(effort.generations):
        with ExitStack() as stack:
            servers = {name: stack.enter_context(_server(environ)) for name, environ in variants().items()}
            for server in servers.values():
                server.wait_until_ready()
            turns = in_turns({name: server.turn for name, server in servers.items()}, effort.server_rounds)
            for name, of_variant in turns.items():
                figures.setdefault(name, []).extend(of_variant)
    part.add("under the launcher", compare(figures, BASE), BASE, ours=OURS, limit=LIMIT, limited="ratio")
    requests = effort.generations * effort.server_rounds * _REQUESTS_A_TURN
    part.notes.append(
        f"{requests:,} requests each, one connection each, to {effort.generations} generation(s) of servers."
        " User and system time of the workers; spans are recorded, not exported (OTEL_TRACES_EXPORTER=none)."
    )
    if not dogslow_is_there():
        part.notes.append(NO_DOGSLOW)
    return part


@contextmanager
def _server(environ: Mapping[str, str]) -> Iterator[_Server]:
    command = [program("opentelemetry-instrument"), program("gunicorn"), "--workers", str(_WORKERS)]
    with socket.create_server(("127.0.0.1", 0)) as listening, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, "--bind", f"fd://{listening.fileno()}", "benchmarks.site.wsgi"],
            env=environ,
            pass_fds=[listening.fileno()],
            stdout=output,
            stderr=output,
        )
        try:
            yield _Server(process, listening.getsockname()[1], output)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()


class _Server:
    def __init__(self, process: subprocess.Popen[bytes], port: int, output: IO[bytes]) -> None:
        self._process = process
        self._port = port
        self._output = output
        self._clocks: list[int] = []

    def wait_until_ready(self) -> None:
        """Both workers are there, and have served enough to have warmed up."""
        until = time.monotonic() + _START_SECONDS
        while len(workers := self._workers()) < _WORKERS:
            if self._process.poll() is not None or time.monotonic() > until:
                self._output.seek(0)
                msg = f"gunicorn did not start:\n{self._output.read().decode(errors='replace')}"
                raise RuntimeError(msg)
            time.sleep(0.05)
        for _ in range(_WARM_UP):
            self._request(_START_SECONDS)
        self._clocks = [(~pid << 3) | _CPU_CLOCK for pid in workers]

    def _workers(self) -> list[int]:
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]

    def turn(self) -> float:
        began = self._spent()
        for _ in range(_REQUESTS_A_TURN):
            self._request(_TIMEOUT)
        return (self._spent() - began) / _REQUESTS_A_TURN * 1e6

    def _spent(self) -> float:
        return sum(time.clock_gettime(clock) for clock in self._clocks)

    def _request(self, seconds: float) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=seconds) as connection:
            connection.sendall(_REQUEST)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        if b" 200 " not in answer[:20]:
            msg = f"the server answered {answer[:200]!r}"
            raise RuntimeError(msg)
