"""The shop's processes and what they are told."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from otel_introspect.demo import server
from otel_introspect.demo.server import Shop, ShopError, command, environment


def test_of_opentelemetrys_variables_only_ours_are_kept():
    """
    The user's exporter, sampler and limits do not reach the shop; what is set for otel_introspect does.
    """
    environ = environment(
        {
            "PATH": "/bin",
            "OTEL_SDK_DISABLED": "true",
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_EXPORTER_OTLP_HEADERS": "secret=1",
            "OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD": "200",
        },
        Path("/somewhere"),
        "http://127.0.0.1:1/v1/traces",
    )

    assert not {"OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_HEADERS"} & set(environ)
    assert environ["OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD"] == "200"
    assert environ["PATH"] == "/bin"
    assert environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://127.0.0.1:1/v1/traces"


def test_metrics_and_log_records_go_where_the_user_says():
    """
    They go nowhere unless the environment names a place for them, as the dashboard's compose file does.
    """
    metrics = "http://collector:4318/v1/metrics"

    nowhere = environment({"OTEL_METRICS_EXPORTER": "otlp"}, Path(), "")
    somewhere = environment({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": metrics}, Path(), "")

    assert (nowhere["OTEL_METRICS_EXPORTER"], nowhere["OTEL_LOGS_EXPORTER"]) == ("none", "none")
    assert (somewhere["OTEL_METRICS_EXPORTER"], somewhere["OTEL_LOGS_EXPORTER"]) == ("otlp", "none")
    assert somewhere["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] == metrics


def test_a_proxy_does_not_come_between():
    """
    With a proxy in the environment the workers still reach the driver on the loopback interface.
    """
    environ = environment({"HTTP_PROXY": "http://proxy", "NO_PROXY": "intra"}, Path(), "")

    assert environ["NO_PROXY"] == environ["no_proxy"] == "intra,127.0.0.1,localhost"


def test_the_launcher_does_not_take_gunicorns_flags_for_its_own():
    """
    No flag is one that opentelemetry-instrument would read as a shortened one of its own.
    """
    assert not [word for word in command(3) if word.startswith("--config")]


@pytest.fixture(name="shop")
def _shop(monkeypatch, tmp_path):
    monkeypatch.setattr(server.tempfile, "mkdtemp", lambda prefix: str((tmp_path / prefix).absolute()))
    (tmp_path / "otel-introspect-demo-").mkdir()
    return Shop("http://127.0.0.1:1/v1/traces", os.environ)


def test_nothing_is_left_when_the_shop_is_closed(shop, monkeypatch, tmp_path):
    """
    The process is gone and so is the copy, also when the body raises.
    """
    monkeypatch.setattr(Shop, "_prepare", lambda _self: None)
    monkeypatch.setattr(server, "command", lambda _fd: [sys.executable, "-c", "import time; time.sleep(60)"])

    processes = []

    def interrupted():
        with shop:
            processes.append(shop._process)
            assert shop.running()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert processes[0].returncode is not None
    assert not shop.running()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_want_to_stop_is_killed(shop, monkeypatch):
    """
    A server that ignores the request to stop is killed after a while.
    """
    monkeypatch.setattr(Shop, "_prepare", lambda _self: None)
    monkeypatch.setattr(server, "_STOP_SECONDS", 0.2)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(server, "command", lambda _fd: [sys.executable, "-c", stubborn])

    with shop:
        process = shop._process
        while "up" not in shop.log():
            assert shop.running()

    assert process.returncode == -9


def test_a_database_that_can_not_be_made_is_said(shop, monkeypatch, tmp_path):
    """
    When preparing fails its own words are in the error, and nothing is left.
    """
    monkeypatch.setattr(server.sys, "executable", "/bin/false")

    with pytest.raises(ShopError), shop:
        pass

    assert list(tmp_path.iterdir()) == []
