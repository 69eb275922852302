"""What the workers send becomes lines of a file."""

from __future__ import annotations

import gzip
import json
import queue
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_introspect.demo.receiver import SpanReceiver


def post(url, body, **headers):
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf", **headers})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.status


@pytest.fixture(name="arrived")
def _arrived():
    return queue.Queue()


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "traces.jsonl"


@pytest.fixture(name="receiver")
def _receiver(path, arrived):
    with SpanReceiver(path, arrived.put) as receiver:
        yield receiver


def test_each_request_is_one_line_of_otlp_json(receiver, path, arrived, body):
    """
    A request in protobuf is one line of OTLP JSON in the file, and the same in the driver's hands.
    """
    assert post(receiver.endpoint, body) == 200

    (line,) = path.read_text().splitlines()
    (span,) = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert (span["traceId"], span["spanId"], span["kind"]) == ("ab" * 16, "01" * 8, 2)
    assert arrived.get_nowait() == json.loads(line)


def test_compressed_requests_are_read(receiver, path, body):
    """
    A sender that compresses is understood.
    """
    assert post(receiver.endpoint, gzip.compress(body), **{"Content-Encoding": "gzip"}) == 200
    assert len(path.read_text().splitlines()) == 1


def test_lines_of_several_senders_do_not_mix(receiver, path, body):
    """
    Requests that come at once are whole lines in the file all the same.
    """
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: post(receiver.endpoint, body), range(40)))

    assert statuses == [200] * 40
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 40


@pytest.mark.parametrize(("body", "headers"), [(b"\xff" * 20, {}), (b"not gzip", {"Content-Encoding": "gzip"})])
def test_what_is_no_trace_is_refused(receiver, path, body, headers):
    """
    Anything else that is sent to the port is refused and not written.
    """
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        post(receiver.endpoint, body, **headers)

    refused.value.close()
    assert path.read_text() == ""


def test_an_old_file_is_overwritten(path, arrived):
    """
    The file holds the traces of the last run only.
    """
    path.write_text("old\n")
    with SpanReceiver(path, arrived.put):
        pass

    assert path.read_text() == ""
