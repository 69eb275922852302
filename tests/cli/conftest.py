"""Environments made of plain data, and servers to knock at on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from otel_introspect.cli.diagnosis.surroundings import (
    CONFIGURATORS,
    DISTROS,
    INSTRUMENTORS,
    SAMPLERS,
    Plugin,
    Surroundings,
    exporters_of,
)

VERSIONS = {
    "otel-introspect": "0.1.0",
    "opentelemetry-api": "1.45.1",
    "opentelemetry-sdk": "1.45.1",
    "opentelemetry-instrumentation": "0.66b1",
    "opentelemetry-instrumentation-asgi": "0.66b1",
    "opentelemetry-distro": "0.66b1",
    "django": "5.2",
    "gunicorn": "26.0",
}
PLUGINS = {
    INSTRUMENTORS: ("django", "introspect", "introspect_django", "introspect_gunicorn", "sqlite3"),
    SAMPLERS: ("always_on", "always_off", "parentbased_always_off", "traceidratio", "parentbased_traceidratio"),
    exporters_of("traces"): ("console", "introspect_console", "otlp_proto_grpc", "otlp_proto_http", "zipkin"),
    exporters_of("metrics"): ("console", "otlp_proto_grpc", "otlp_proto_http"),
    exporters_of("logs"): ("console", "otlp_proto_grpc", "otlp_proto_http"),
}


@pytest.fixture(name="healthy")
def _healthy(tmp_path):
    """Makes surroundings in which nothing is wrong, but for what the test says."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "settings.py").write_text("raise RuntimeError('imported')")
    launcher = tmp_path / "bin" / "opentelemetry-instrument"

    def make(environ=None, *, versions=None, plugins=None, without=(), **others):
        found = {group: tuple(Plugin(name) for name in names) for group, names in PLUGINS.items()}
        found[CONFIGURATORS] = (Plugin("configurator", "opentelemetry.distro:C", "opentelemetry-distro 0.66b1"),)
        found[DISTROS] = (Plugin("distro", "opentelemetry.distro:D"),)
        found |= plugins or {}
        kept = {name: version for name, version in VERSIONS.items() if name not in without}
        defaults = {
            "directory": tmp_path,
            "launcher": launcher,
            "scripts": launcher.parent,
            "sdk_variables": 'OTEL_CONFIG_FILE = "OTEL_CONFIG_FILE"',
            "reads_files": True,
        }
        return Surroundings(
            environ={
                "DJANGO_SETTINGS_MODULE": "shop.settings",
                "OTEL_TRACES_EXPORTER": "introspect_console",
                **(environ or {}),
            },
            versions={**kept, **(versions or {})},
            plugins={
                group: tuple(each for each in points if each.name not in without) for group, points in found.items()
            },
            **(defaults | others),
        )

    return make


@pytest.fixture(name="collector")
def _collector():
    """Starts HTTP servers; each remembers what it was sent."""
    running = []

    def start(status=200, headers=()):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.server.seen.append((self.path, dict(self.headers), body))
                self.send_response(status)
                for header in headers:
                    self.send_header(*header)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.seen = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return server

    yield start

    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(name="listener")
def _listener():
    """Starts raw servers, each of which hands its one connection to a function."""
    running = []

    def start(talk):
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(10)

        def serve():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                with contextlib.suppress(OSError):  # the other side has gone
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        running.append((server, thread))
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start

    for server, thread in running:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


@pytest.fixture(name="closed_port")
def _closed_port():
    """An address of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(name="clean")
def _clean(tmp_path, monkeypatch):
    """Our own environment without a variable that the doctor reads, in an empty directory."""
    for name in list(os.environ):
        if name.startswith(("OTEL", "DJANGO")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Path(tmp_path)
