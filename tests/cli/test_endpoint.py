"""Where the doctor knocks, and what it makes of the answer."""

import os
import time

import pytest

from otel_introspect.cli.diagnosis import endpoint, probe, reach
from otel_introspect.cli.diagnosis.finding import Finding, Level
from otel_introspect.cli.diagnosis.surroundings import Surroundings

HTTP2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def resolved(protocol, **environ):
    return endpoint.resolve(Surroundings(environ=environ), protocol)


def checked(protocol, **environ):
    return reach.check(Surroundings(environ=environ), protocol)


@pytest.mark.parametrize(
    ("protocol", "environ", "expected"),
    [
        ("grpc", {}, ("localhost", 4317, False, "/")),
        ("http", {}, ("localhost", 4318, False, "/v1/traces")),
        ("http", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1/"}, ("c", 1, False, "/v1/traces")),
        ("http", {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/base?k=v"}, ("c", 443, True, "/base/v1/traces?k=v")),
        ("http", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/in"}, ("c", 80, False, "/in")),
        ("http", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1]:9"}, ("::1", 9, False, "/")),
        ("grpc", {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:1"}, ("c", 1, True, "/")),
        ("grpc", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, ("c", 443, False, "/")),
        ("grpc", {"OTEL_EXPORTER_OTLP_ENDPOINT": "c:1"}, ("c", 1, True, "/")),
        (
            "grpc",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "c:1", "OTEL_EXPORTER_OTLP_INSECURE": "true"},
            ("c", 1, False, "/"),
        ),
        (
            "grpc",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2"},
            ("b", 2, False, "/"),
        ),
    ],
)
def test_the_endpoint_is_found_by_the_exporters_rules(protocol, environ, expected):
    """
    Host, port, TLS and path are those that the exporter of this protocol would use.
    """
    target = resolved(protocol, **environ).target

    assert (target.host, target.port, target.tls, target.path) == expected


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("url", ["http://c:port", "http://[::1", "ftp://c", "http://", "http://c:99999", "http:// c"])
def test_what_is_no_url_is_a_problem(protocol, url):
    """
    An endpoint that is not a URL is named with what one looks like.
    """
    finding = resolved(protocol, OTEL_EXPORTER_OTLP_ENDPOINT=url)

    assert isinstance(finding, Finding)
    assert finding.level is Level.PROBLEM
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT={url.strip()}" in finding.message


def test_http_needs_a_scheme():
    """
    What gRPC takes as host and port is no URL for HTTP.
    """
    assert resolved("http", OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318").level is Level.PROBLEM


def test_a_socket_file_is_not_checked():
    """
    A gRPC name without host and port is noted as not checked.
    """
    assert resolved("grpc", OTEL_EXPORTER_OTLP_ENDPOINT="unix:///run/c.sock").level is Level.NOTE


def test_a_collector_that_takes_traces_is_ok(collector):
    """
    The collector gets one empty export request at the traces' path, with the exporter's headers, and that is ok.
    """
    server = collector()
    finding = checked(
        "http", OTEL_EXPORTER_OTLP_ENDPOINT=server.url, OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20hush,x=1"
    )

    assert finding.level is Level.OK
    assert finding.message == f"{server.url}/v1/traces answers HTTP 200"
    ((path, headers, body),) = server.seen
    assert (path, body) == ("/v1/traces", b"")
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["authorization"] == "Bearer hush"


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (202, Level.OK),
        (400, Level.NOTE),
        (429, Level.NOTE),
        (302, Level.PROBLEM),
        (401, Level.PROBLEM),
        (404, Level.PROBLEM),
        (503, Level.PROBLEM),
    ],
)
def test_what_a_status_means(collector, status, level):
    """
    A collector that refuses traces is a problem; one that is only at odds with an empty request is noted.
    """
    server = collector(status, headers=[("Location", "http://elsewhere/")])
    finding = checked("http", OTEL_EXPORTER_OTLP_ENDPOINT=server.url)

    assert finding.level is level
    assert f"HTTP {status}" in finding.message


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nobody_there_is_a_problem(closed_port, protocol):
    """
    An endpoint at which nobody listens is a problem that says where we knocked and who said so.
    """
    finding = checked(protocol, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{closed_port}")

    assert finding.level is Level.PROBLEM
    assert closed_port in finding.message
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in finding.message
    assert "refused" in finding.message


def test_a_grpc_server_is_known_by_its_first_frame(listener):
    """
    A server that answers in HTTP/2 is what gRPC needs.
    """
    address = listener(lambda connection: (connection.recv(64), connection.sendall(HTTP2_SETTINGS)))
    finding = checked("grpc", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}")

    assert finding.level is Level.OK
    assert "HTTP/2" in finding.message


def test_a_server_that_only_accepts_is_ok_for_grpc(listener):
    """
    A server that accepts connections and says nothing is not accused of anything.
    """
    address = listener(lambda connection: connection.recv(64) and connection.recv(64))
    finding = checked("grpc", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}")

    assert finding.level is Level.OK


def test_grpc_at_the_http_port_is_a_problem(collector):
    """
    gRPC sent to the port for http/protobuf is the most frequent mistake, and is named.
    """
    finding = checked("grpc", OTEL_EXPORTER_OTLP_ENDPOINT=collector().url)

    assert finding.level is Level.PROBLEM
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in finding.remedy


def test_http_at_the_grpc_port_is_a_problem(listener):
    """
    HTTP sent to the port for gRPC is the other way round, and is named as well.
    """
    address = listener(lambda connection: (connection.sendall(HTTP2_SETTINGS), connection.recv(4096)))
    finding = checked("http", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}")

    assert finding.level is Level.PROBLEM
    assert "(what it says is not HTTP/1)" in finding.message
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in finding.remedy


def test_tls_where_there_is_none_is_a_problem(collector):
    """
    https, or for gRPC no scheme at all, at a server without TLS is a problem that says how to do without.
    """
    address = collector().url.removeprefix("http://")
    with_scheme = checked("http", OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{address}")
    without = checked("grpc", OTEL_EXPORTER_OTLP_ENDPOINT=address)

    assert with_scheme.level is without.level is Level.PROBLEM
    assert "http://" in with_scheme.remedy
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{address}" in without.remedy


@pytest.mark.realtime
@pytest.mark.parametrize("manner", ["silent", "dribbling"])
def test_a_server_that_does_not_come_to_an_end_is_given_up(listener, manner):
    """
    A server that accepts and never answers, or answers a byte at a time, costs its two seconds and no more.
    """

    def talk(connection):
        connection.recv(4096)
        for _ in range(40):
            if manner == "dribbling":
                connection.sendall(b"H")
            time.sleep(0.1)

    address = listener(talk)
    start = time.monotonic()
    finding = checked("http", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}")

    assert finding.level is Level.PROBLEM
    assert "within 2 s" in finding.message
    assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("scheme", "says", "outcome", "steps"),
    [
        ("tcp", b"", "silent", "resolve connect"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "http", "resolve connect request"),
        ("http", HTTP2_SETTINGS, "request", "resolve connect request"),
        ("http", b"", "request", "resolve connect request"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls", "resolve connect tls"),
        ("grpc", HTTP2_SETTINGS, "http2", "resolve connect request"),
        ("grpc", b"HTTP/1.1 400 Bad Request\r\n\r\n", "foreign", "resolve connect request"),
        ("grpc", b"", "silent", "resolve connect request"),
    ],
)
def test_each_step_is_announced_before_it_is_taken(listener, scheme, says, outcome, steps):
    """
    The probe says what it is about to do, so that whoever ends it knows what it was waiting for.
    """
    host, port = listener(lambda connection: (connection.sendall(says), says and connection.recv(4096))).split(":")
    target = probe.Target(kind=scheme.removesuffix("s"), tls=scheme == "https", host=host, port=int(port))
    announced = []
    answer = probe.knock(target, announced.append)

    assert answer.outcome == outcome
    assert " ".join(announced) == steps


def test_a_name_that_nobody_knows_is_a_problem():
    """
    A host that cannot be resolved is a problem of its own kind.
    """
    answer = probe.knock(probe.Target(kind="tcp", host="collector..invalid", port=1), lambda step: None)

    assert answer.outcome == "resolve"


@pytest.mark.realtime
def test_a_probe_that_hangs_is_ended(monkeypatch, tmp_path):
    """
    Where no alarm ends the probe, the doctor does, and knows the last step.
    """
    stuck = tmp_path / "stuck.py"
    stuck.write_text('import time; print(\'{"at": "resolve"}\', flush=True); time.sleep(60)')
    monkeypatch.setattr(reach.probe, "__file__", os.fspath(stuck))
    monkeypatch.setattr(reach, "_START_SECONDS", 1)

    finding = reach.verdict(resolved("http"), reach.ask(probe.Target(kind="tcp", host="x", port=1, seconds=0.5)))

    assert finding.level is Level.PROBLEM
    assert "name server" in finding.message


def test_a_proxy_is_where_we_knock(collector, closed_port):
    """
    Where the exporter would use a proxy only that is checked, unless the endpoint is excepted from it.
    """
    server = collector()
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.invalid:4318"}
    by_proxy = checked("http", HTTP_PROXY=f"http://me:hush@{server.url.removeprefix('http://')}", **there)
    dead_proxy = checked("http", http_proxy=f"http://{closed_port}", **there)
    excepted = checked(
        "http", http_proxy=f"http://{closed_port}", NO_PROXY="127.0.0.1", OTEL_EXPORTER_OTLP_ENDPOINT=server.url
    )

    assert by_proxy.level is Level.NOTE
    assert "hush" not in by_proxy.message
    assert dead_proxy.level is Level.PROBLEM
    assert "proxy" in dead_proxy.message
    assert excepted.level is Level.OK


def test_a_password_in_the_endpoint_is_not_shown(closed_port):
    """
    An endpoint's user and password are masked.
    """
    finding = checked("http", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://me:hush@{closed_port}")

    assert "hush" not in finding.message + finding.remedy


def test_a_probe_that_cannot_speak_is_noted(monkeypatch, tmp_path):
    """
    If the process that knocks ends without a word, nothing is claimed about the endpoint.
    """
    mute = tmp_path / "mute.py"
    mute.write_text("")
    monkeypatch.setattr(reach.probe, "__file__", os.fspath(mute))

    assert checked("http").level is Level.NOTE
