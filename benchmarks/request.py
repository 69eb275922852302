"""What a Django request costs in process, without a server: plain, with OpenTelemetry, with ours and with others."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Final

from benchmarks.effort import Effort
from benchmarks.pairing import Measure, compare, in_turns
from benchmarks.peers import NO_DOGSLOW, dogslow_is_there
from benchmarks.programs import program
from benchmarks.report import Part
from benchmarks.site.variants import BASE, OURS, variants

_PLAIN: Final = "Django alone"
_REQUESTS_A_TURN: Final = 50
_WARM_UP: Final = 300


def measure(effort: Effort) -> Part:
    """Have processes serve themselves, in turns."""
    part = Part(title="Django request, in process", unit="us CPU")
    itself = [sys.executable, "-m", "benchmarks.request"]
    launched = [program("opentelemetry-instrument"), *itself]
    figures: dict[str, list[float]] = {}
    for _ in range(effort.generations):
        with ExitStack() as stack:
            environs = variants()
            turns = {_PLAIN: stack.enter_context(_serving_itself(itself, environs[BASE]))}
            for name, environ in environs.items():
                turns[name] = stack.enter_context(_serving_itself(launched, environ))
            for name, of_variant in in_turns(turns, effort.request_rounds).items():
                figures.setdefault(name, []).extend(of_variant)
    part.add("trivial view", compare(figures, BASE), BASE, ours=OURS)
    part.notes.append(f"{effort.generations} generation(s) of processes; WSGI handler, no sockets; CPU of all threads.")
    if not dogslow_is_there():
        part.notes.append(NO_DOGSLOW)
    return part


@contextmanager
def _serving_itself(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[Measure]:
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    requests, answers = process.stdin, process.stdout
    if requests is None or answers is None:
        raise AssertionError
    with process:
        try:
            _ask(requests, answers, _WARM_UP)
            yield lambda: _ask(requests, answers, _REQUESTS_A_TURN)
        finally:
            requests.close()


def _ask(requests: IO[str], answers: IO[str], count: int) -> float:
    requests.write(f"{count}\n")
    requests.flush()
    answer = answers.readline()
    if not answer:
        msg = "the process that serves itself has ended"
        raise RuntimeError(msg)
    return float(answer) / count * 1e6


def requests_in_process(path: str = "/") -> Callable[[int], None]:
    """What makes the site answer so many requests."""
    from django.test import RequestFactory

    from benchmarks.site.wsgi import application

    environ = RequestFactory().get(path).environ

    def start_response(_status: str, _headers: object, _error: object = None) -> None:
        pass

    def answer(count: int) -> None:
        for _ in range(count):
            response = application(dict(environ), start_response)
            b"".join(response)
            response.close()

    return answer


def _serve() -> None:
    """Serve as many requests as each line of standard input says; print the CPU time that they took."""
    answer = requests_in_process()
    for line in sys.stdin:
        began = time.process_time()
        answer(int(line))
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    _serve()
