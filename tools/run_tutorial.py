"""Do what the tutorial says, as somebody would who copies its commands one after the other.

The commands are those of the page, unchanged; they run in an empty folder, with nothing of this repository in reach but
its wheel, where pip finds it (``PIP_FIND_LINKS``). Blocks that need a container engine are left out: in place
of Jaeger a receiver of ours takes the traces on the same port, and is asked for the stack afterwards.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from otel_introspect.demo.receiver import otlp_json

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "tutorial.md"
SECONDS: Final = 300
OTLP_PORT: Final = 4318
SERVER_PORT: Final = 8000
VISITS: Final = 2
_BLOCK: Final = re.compile(
    r"^(<!-- tutorial: needs a container engine -->\n)?```console\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_HERE_DOCUMENT: Final = re.compile(r"<<'(\w+)'$")
_KEPT: Final = ("HOME", "LANG", "LC_ALL", "XDG_CONFIG_HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_KEPT_PREFIXES: Final = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
# A bare machine has no curl; this much of it every Python is able to do.
_CURL: Final = "#!{python}\nimport sys, urllib.request as r\nprint(r.urlopen(sys.argv[-1]).read().decode(), end='')\n"


def commands(page: str) -> list[str]:
    """The commands of *page*, each with its here-document; what a container engine must run is left out."""
    found: list[str] = []
    for needs_containers, block in _BLOCK.findall(page):
        if needs_containers:
            continue
        until = ""
        for line in block.splitlines():
            if until:
                found[-1] += f"\n{line}"
                until = "" if line == until else until
            elif line.startswith("$ "):
                found.append(line.removeprefix("$ "))
                marker = _HERE_DOCUMENT.search(line)
                until = marker[1] if marker else ""
    return found


class Receiver:
    """What stands in for Jaeger: takes traces by OTLP, and remembers their spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", OTLP_PORT), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        """Remember the spans of one export."""
        for resource_spans in otlp_json(body).get("resourceSpans", ()):
            for scope_spans in resource_spans.get("scopeSpans", ()):
                self.spans += scope_spans.get("spans", ())

    def stacks_of(self, name: str) -> list[str]:
        """The stacks on the spans called *name*."""
        events = [event for span in self.spans if span["name"] == name for event in span.get("events", ())]
        return [
            pair["value"]["stringValue"]
            for event in events
            if event["name"] == "otel_introspect.stack_snapshot"
            for pair in event["attributes"]
            if pair["key"] == "code.stacktrace"
        ]

    def close(self) -> None:
        """Take nothing any more."""
        self._server.shutdown()
        self._server.server_close()


def environment(folder: Path) -> dict[str, str]:
    """What somebody has who has nothing: a Python, perhaps curl, and a pip that takes our wheel."""
    wheels, tools = folder / "wheels", folder / "bin"
    tools.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-qq", "--no-deps", "-w", wheels, ROOT],
        check=True,
        timeout=SECONDS,
    )
    _program(tools / "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    if shutil.which("curl") is None:
        _program(tools / "curl", _CURL.format(python=sys.executable))
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return {
        **kept,
        "PATH": os.pathsep.join([str(tools), os.defpath]),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_FIND_LINKS": f"{wheels} {kept.get('PIP_FIND_LINKS', '')}".strip(),
        "PIP_QUIET": "1",
        "PYTHONNOUSERSITE": "1",
        "TMPDIR": str(folder),  # where the flight recorders go: no other service's requests are recovered
    }


def _program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def run(script: str, folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """Run *script* in bash, in an empty folder, and end whatever it leaves running."""
    log, empty = folder / "output.txt", folder / "empty"
    empty.mkdir()
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=empty,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            status = 124
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a group of its own: nobody else is in it
            process.wait()
    return status, log.read_text(encoding="utf-8", errors="replace")


def busy(port: int) -> bool:
    """Whether somebody listens there already."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def what_is_missing(status: int, output: str, receiver: Receiver) -> list[str]:
    """What a newcomer would not have got; empty if all is well."""
    checks = {
        f"a command failed (exit status {status}; 124: took longer than {SECONDS} s)": status == 0,
        f"the page did not come {VISITS} times": output.count("42 umbrellas") >= VISITS,
        "no stack in the terminal": "in count_the_stock (urls.py:8)" in output,
        "no stack where Jaeger would be": any("count_the_stock" in each for each in receiver.stacks_of("GET report/")),
        "no checkpoint where Jaeger would be": bool(receiver.stacks_of("slow: GET report/")),
    }
    return [said for said, holds in checks.items() if not holds]


def main() -> int:
    """Do it, and say whether the stack was seen in both places."""
    for port in (OTLP_PORT, SERVER_PORT):
        if busy(port):
            print(f"Something listens on port {port}, which the tutorial uses. Stop that, and try again.")
            return 1
    lines = commands(PAGE.read_text(encoding="utf-8"))
    # Each is shown as it begins; the first that fails ends all.
    script = "set -e -o pipefail\n" + "\n".join(f"printf '%s\\n' {shlex.quote('$ ' + line)}\n{line}" for line in lines)
    started = time.monotonic()
    receiver = Receiver()
    try:
        with tempfile.TemporaryDirectory(prefix="otel-introspect-tutorial-") as name:
            folder = Path(name)
            status, output = run(script, folder, environment(folder))
    finally:
        receiver.close()
    print(output)
    missing = what_is_missing(status, output, receiver)
    for each in missing:
        print(f"FAILED  {each}")
    if not missing:
        print(f"ok      {len(lines)} commands in {time.monotonic() - started:.0f} s, and the stack is in both places")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
