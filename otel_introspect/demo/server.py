"""The shop, copied out of the package and running under gunicorn."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from otel_introspect.config import PREFIX

SERVICE: Final = "otel-introspect-demo"
WORKERS: Final = 2

_HERE: Final = Path(__file__).resolve().parent
_PREPARE_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 8.0
# Above the slowest view on a machine many times slower than usual.
_GUNICORN_TIMEOUT: Final = 60
_LOG_LINES: Final = 25


class ShopError(Exception):
    """The shop did not open; the message holds what it said."""


class Shop:
    """The shop for the time of a ``with`` block; whatever happens, no process and no file of it is left behind.

    Args:
        endpoint: Where its workers send their spans.
        environ: The environment to start from.
    """

    def __init__(self, endpoint: str, environ: Mapping[str, str]) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="otel-introspect-demo-"))
        self._log = self._directory / "gunicorn.log"
        self._environ = environment(environ, self._directory, endpoint)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Shop:  # noqa: PYI034 - Self is in typing from 3.11 on
        try:
            shutil.copytree(_HERE / "shop", self._directory / "shop", ignore=shutil.ignore_patterns("__pycache__"))
            self._prepare()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def running(self) -> bool:
        """Whether gunicorn is there."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """The last lines that gunicorn wrote."""
        try:
            return "\n".join(self._log.read_text("utf-8", "backslashreplace").splitlines()[-_LOG_LINES:])
        except OSError:
            return ""

    def close(self) -> None:
        """Stop gunicorn and remove the copy."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()  # the second way of telling it, see gunicorn_conf.py
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _prepare(self) -> None:
        try:
            subprocess.run(
                [sys.executable, "-m", "shop.prepare"],
                cwd=self._directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=_PREPARE_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            raise ShopError(error.stderr.decode("utf-8", "backslashreplace")) from error
        except subprocess.TimeoutExpired as error:
            msg = f"making its database took more than {_PREPARE_SECONDS:.0f} s"
            raise ShopError(msg) from error

    def _start(self) -> None:
        # We choose the port by listening and hand the socket over: nobody can take it in between.
        with socket.socket() as listener, self._log.open("wb") as log:
            listener.bind(("127.0.0.1", 0))
            listener.listen(64)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command(listener.fileno()),
                cwd=self._directory,
                env={**self._environ, "SHOP_CARRIER_URL": self.url},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                # Ctrl-C is for the demo, which then stops the shop in order.
                start_new_session=True,
            )


def command(listener: int) -> list[str]:
    """What a user would type, but for the socket."""
    return [
        script("opentelemetry-instrument"),
        script("gunicorn"),
        f"--bind=fd://{listener}",
        f"--workers={WORKERS}",
        "--worker-class=sync",
        f"--timeout={_GUNICORN_TIMEOUT}",
        "--graceful-timeout=5",
        "--log-level=warning",
        # Not --config: argparse in opentelemetry-instrument takes that for a shortened flag of its own, wherever it is.
        "-c",
        str(_HERE / "gunicorn_conf.py"),
        "shop.wsgi",
    ]


def script(name: str) -> str:
    """The path of a console script, which need not be on ``PATH`` if the environment is not activated."""
    beside = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]))
    return beside or shutil.which(name) or name


def environment(environ: Mapping[str, str], directory: Path, endpoint: str) -> dict[str, str]:
    """The shop's environment: the user's, but of OpenTelemetry's variables only ours."""
    kept = {key: value for key, value in environ.items() if not key.startswith("OTEL_") or key.startswith(PREFIX)}
    defaults = {
        f"{PREFIX}WATCHDOG_THRESHOLD": "500",
        f"{PREFIX}WATCHDOG_ALL_THREADS": "true",
        f"{PREFIX}RECORDER_DIR": str(directory / "recorder"),  # what the demo makes goes with it
    }
    # The demo itself looks at traces only. Who names a place for metrics or log records, as collector_config does, has
    # them sent there.
    elsewhere = {
        name: value
        for signal in ("METRICS", "LOGS")
        if (value := environ.get(name := f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "").strip())
    }
    takes_logs = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" in elsewhere
    no_proxy = ",".join(filter(None, [environ.get("no_proxy") or environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
    return {
        **defaults,
        **kept,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(directory), environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRICS_EXPORTER": "otlp" if "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" in elsewhere else "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "OTEL_LOGS_EXPORTER": "otlp" if takes_logs else "none",
        **elsewhere,
        # On the spans in any case: it is from there that the driver shows it.
        f"{PREFIX}EVENTS": "span,log" if takes_logs else "span",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "300",
        "OTEL_BSP_MAX_QUEUE_SIZE": "16384",
    }
