"""Mails about slow requests, through a real SMTP server on this machine."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_introspect import faults, semconv

pytest.importorskip("aiosmtpd")
pytest.importorskip("trustme")

from mail_server import exporting, free_port, mail_threads, silent_server, slow_request, smtp_server

from otel_introspect.config import IntrospectConfig
from otel_introspect.exporters import mail as module
from otel_introspect.exporters import offers
from otel_introspect.exporters.mail import IntrospectEmailExporter
from otel_introspect.instrumentation import exits
from otel_introspect.introspection import Introspection

LINK = "http://localhost:16686/trace/{trace_id}?uiFind={span_id}"


@pytest.fixture(name="server")
def _server():
    with smtp_server() as (inbox, port, _):
        inbox.port = port
        yield inbox


@pytest.fixture(name="make")
def _make(monkeypatch):
    """Makes exporters; none is left, and neither are their threads."""
    monkeypatch.setattr(module, "EXIT_SECONDS", 1.0)
    monkeypatch.setattr("otel_introspect.exporters.reporting.EXIT_SECONDS", 1.0)
    made = []

    def make(port, **options):
        made.append(IntrospectEmailExporter(**{"to": "ops@shop.example", "host": "127.0.0.1", "port": port, **options}))
        return made[-1]

    yield make

    for each in made:
        each.shutdown()
    for thread in mail_threads():
        thread.join(5)
    assert mail_threads() == []


def body_of(mail):
    return mail.get_content().replace("\r\n", "\n")


def test_one_mail_for_a_slow_request(server, make):
    """
    The mail has what dogslow's had, and the trace with its link.
    """
    exporter = make(server.port, to="ops@shop.example, dev@shop.example", sender="Web <web@shop.example>", link=LINK)
    trace_id = slow_request(exporting(exporter))
    (mail,) = server.wait()
    body = body_of(mail)

    assert server.recipients == [["ops@shop.example", "dev@shop.example"]]
    assert mail["From"] == "Web <web@shop.example>"
    assert mail["Subject"] == "[slow] GET invoices/<int:year>/ took 2.000 s in sum_up"
    assert mail["X-Otel-Introspect-Trace-Id"] == trace_id
    for line in (
        "  Request   GET https://shop.example/invoices/2024/?page=2",
        "  Service   shop",
        "  Host      web-3",
        "  Process   4711",
        "  Thread    MainThread (140)",
        "  Elapsed   2.000 s",
        "  Status    200",
        f"  Trace     {trace_id}",
        "Stack after 1000 ms (observer: thread)",
        '  File "/srv/shop/totals.py", line 7, in sum_up',
        "Stack after 2000 ms (observer: thread): the same",
    ):
        assert line in body.split("\n")
    assert f"  Link      http://localhost:16686/trace/{trace_id}?uiFind=" in body
    assert "  Started   2" in body


def test_a_fast_request_costs_no_thread(server, make):
    """
    What is neither slow nor interrupted nor recovered is let go, and starts nothing.
    """
    exporter = make(server.port)
    exporting(exporter).start_span("GET /").end()

    assert mail_threads() == []
    assert exporter.force_flush()


def test_ten_thousand_in_a_minute(server, make):
    """
    No more mails than were asked for, and what they stand for adds up to all there were.
    """
    exporter = make(server.port, max_per_hour=10)
    tracer = exporting(exporter)
    for number in range(10_000):
        slow_request(tracer, route=f"route/{number % 50}/")
    exporter.force_flush(10_000)
    before = len(server.mails)
    exporter.shutdown()

    assert (before, len(server.mails)) == (9, 10)
    assert server.told == 10_000
    assert "because the process is ending" in body_of(server.mails[-1])
    assert "slow requests in " in server.mails[-1]["Subject"]


def test_many_threads(server, make):
    """
    Threads that end slow requests at the same instant lose none.
    """
    exporter = make(server.port)
    tracer = exporting(exporter)

    def end_some(number):
        for _ in range(250):
            slow_request(tracer, route=f"{number}/")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(end_some, range(8)))
    exporter.shutdown()

    assert server.told == 2000


@pytest.mark.parametrize("name", ["introspect_email", "introspect_files", "introspect_logging"])
def test_the_launcher_finds_them_by_name(name):
    """
    Each name leads to a class that is made without an argument, as the launcher does it.
    """
    (entry,) = entry_points(group="opentelemetry_traces_exporter", name=name)
    exporter = entry.load()()

    assert exporter.force_flush()
    exporter.shutdown()


def test_the_limit_is_over(server, make):
    """
    What the limit has held back is told by one mail as soon as an hour is over, without another request.
    """
    now = [0.0]
    exporter = make(server.port, max_per_hour=3, clock=lambda: now[0])
    tracer = exporting(exporter)
    for number in range(30):
        slow_request(tracer, route=f"route/{number % 10}/")
        exporter.force_flush(5000)
    before = len(server.mails)
    now[0] = 3601.0
    exporter.force_flush(5000)

    assert (before, len(server.mails)) == (2, 3)
    assert server.told == 30
    assert server.mails[-1]["Subject"] == "[slow] 28 slow requests in 10 groups"
    assert "sends no more than 3 mails in any hour" in body_of(server.mails[-1])


@pytest.mark.parametrize("tls", ["", "starttls", "tls"])
def test_login(make, tls, tmp_path, monkeypatch):
    """
    A server that wants a name and a password gets them, encrypted by a certificate that is checked.
    """
    with smtp_server(tls=tls, login=True) as (inbox, port, authority):
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        exporter = make(port, host="localhost", tls=tls or "none", user="web", password="s3cret pass")
        slow_request(exporting(exporter))
        inbox.wait()

        assert len(inbox.mails) == 1
        assert inbox.logins == [(b"web", b"s3cret pass")]


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_certificate_that_nobody_knows(make, tls, caplog):
    """
    Nothing is sent to a server that may be somebody else.
    """
    with smtp_server(tls=tls) as (inbox, port, _):
        exporter = make(port, host="localhost", tls=tls)
        slow_request(exporting(exporter))

        assert exporter.force_flush(5000)
        assert inbox.mails == []
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_a_wrong_password_is_not_shown(make, caplog):
    """
    That the login failed is said, and with which password is not.
    """
    with smtp_server(login=True) as (inbox, port, _):
        exporter = make(port, user="web", password="guess-me")
        slow_request(exporting(exporter))
        exporter.force_flush(5000)

    assert inbox.mails == []
    assert "SMTPAuthenticationError" in caplog.text
    assert "guess-me" not in caplog.text + repr(exporter._config)


def test_a_password_in_what_a_server_says(make, caplog):
    """
    Whoever carries the mails may quote the password as it fails: the log does not.
    """

    class Telling:
        def send(self, _letter, _seconds):
            raise RuntimeError("web:guess-me was refused")

    exporter = make(0, host="", user="web", password="guess-me")
    offers.offer(Telling)
    try:
        slow_request(exporting(exporter))
        exporter.force_flush(5000)
    finally:
        offers.withdraw(Telling)

    assert "RuntimeError: web:<password> was refused" in caplog.text
    assert "guess-me" not in caplog.text


@pytest.mark.parametrize("refuse", ["RCPT", "DATA"])
def test_a_server_that_refuses(server, make, caplog, refuse):
    """
    What a server refuses is said once, tried again later, and told by the next mail that gets through.
    """
    now = [0.0]
    exporter = make(server.port, clock=lambda: now[0])
    tracer = exporting(exporter)
    server.refuse = refuse
    for _ in range(3):
        slow_request(tracer)
        exporter.force_flush(5000)
        now[0] += 700
    server.refuse = ""
    slow_request(tracer)
    exporter.force_flush(5000)
    (mail,) = server.mails

    assert server.told == 4
    assert "3 attempts to send a mail have failed before this one" in body_of(mail)
    assert [record.levelname for record in caplog.records if "could not be sent" in record.message] == ["WARNING"]
    assert faults.counts["failed", "sending a mail"] == 3


@pytest.mark.parametrize("kind", ["dead", "silent", "slow"])
def test_whatever_the_server_does_nobody_waits(make, kind, caplog):
    """
    Neither a request nor the end of the process waits for a server that is dead, silent or slow.
    """
    with silent_server() as silent, smtp_server() as (inbox, slow, _):
        inbox.seconds = 3
        exporter = make({"dead": free_port(), "silent": silent, "slow": slow}[kind])
        tracer = exporting(exporter)
        took = []
        for _ in range(200):
            began = time.perf_counter()
            slow_request(tracer)
            took.append(time.perf_counter() - began)
        began = time.monotonic()
        exporter.shutdown()
        ended = time.monotonic() - began

    assert sorted(took)[len(took) // 2] < 0.01
    assert ended < 2
    assert "nobody was told of 200 slow requests" in caplog.text
    assert faults.counts["dropped", "report for otel-introspect-mail: the process ended"] == 200


def test_hostile_text(server, make):
    """
    Whatever a URL, a route or a stack holds, the mail has the headers that it should have, and arrives.
    """
    hostile = "x\r\nBcc: everybody@shop.example\r\n\r\n\udcff\x00\u202eß✓"
    exporter = make(server.port, subject_prefix=hostile)
    slow_request(
        exporting(exporter),
        url=f"https://shop.example/{hostile}",
        function=hostile[:-1],
        event={"code.stacktrace": f'  File "{hostile}", line 1, in ß✓\n' + "y" * 5000},
    )
    (mail,) = server.wait()

    assert mail["Bcc"] is None
    assert server.recipients == [["ops@shop.example"]]
    assert "\n" not in mail["Subject"]
    assert "ß✓" in mail["Subject"]
    assert "y" * 5000 in body_of(mail)


def test_bodies_are_bounded(server, make):
    """
    A span with megabytes of text makes a mail of no more than 100 KiB.
    """
    exporter = make(server.port)
    slow_request(exporting(exporter), event={"code.stacktrace": "é" * 3_000_000})
    (mail,) = server.wait()

    assert len(mail.as_bytes()) < 600_000  # quoted, and each é is six characters then
    assert len(body_of(mail).encode()) < 100_000
    assert "the rest is left out" in body_of(mail)


@pytest.mark.parametrize("address", ["root", "ops@shop.example"])
def test_addresses(server, make, address):
    """
    An address without a domain, on this machine, will do.
    """
    exporter = make(server.port, to=address)
    slow_request(exporting(exporter))
    server.wait()

    assert server.recipients == [[address]]


def test_nobody_to_send_to(make, caplog):
    """
    Without an address it says so once, and does nothing.
    """
    exporter = make(1, to="")
    slow_request(exporting(exporter))

    assert mail_threads() == []
    assert [record.message for record in caplog.records] == [
        "introspect_email sends no mail: set OTEL_PYTHON_INTROSPECT_EMAIL_TO to the addresses that are to get them."
    ]


def test_from_the_environment(server, make, monkeypatch):
    """
    The launcher gives no argument: the variables say everything.
    """
    monkeypatch.setenv("OTEL_PYTHON_INTROSPECT_EMAIL_TO", "env@shop.example")
    monkeypatch.setenv("OTEL_PYTHON_INTROSPECT_EMAIL_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_PYTHON_INTROSPECT_EMAIL_PORT", str(server.port))
    exporter = make(None, to=None, host=None)
    slow_request(exporting(exporter))
    server.wait()

    assert server.recipients == [["env@shop.example"]]


def test_nothing_after_the_end(server, make):
    """
    After ``shutdown`` nothing is taken, and a second one does nothing.
    """
    exporter = make(server.port)
    exporter.shutdown()
    exporter.shutdown()
    slow_request(exporting(exporter))

    assert server.mails == []
    assert mail_threads() == []


def test_a_process_that_ends_without_shutdown(server, make):
    """
    Where a process ends and nobody shuts the exporter down, as under Celery and uvicorn, what waits is told too.
    """
    exporter = make(server.port)
    tracer = exporting(exporter)
    slow_request(tracer)
    server.wait(1)
    for _ in range(2):
        slow_request(tracer)
    exits._end(Introspection(IntrospectConfig(), tracer_provider=TracerProvider()), export=True)
    told = [mail["X-Otel-Introspect-Requests"] for mail in server.wait(2)]
    slow_request(tracer, route="another")

    assert told == ["1", "2"]
    assert len(server.wait(3)) == 3


def test_a_span_that_ends_while_another_is_noted(server, make):
    """
    A finaliser may end a span while this very thread notes another one: both are told, and nothing hangs.
    """
    exporter = make(server.port)
    tracer = exporting(exporter)
    fold = exporter._fold
    inner = [1]

    def fold_and_end_another():
        if inner:
            inner.pop()
            slow_request(tracer, route="inner/")
        fold()

    exporter._fold = fold_and_end_another
    slow_request(tracer, route="outer/")
    exporter.shutdown()

    assert server.told == 2


def test_a_report_that_can_t_be_made(server, make, monkeypatch):
    """
    A fault of ours in the text costs the text, and not the number.
    """
    monkeypatch.setattr(module, "letter_of", lambda *_: 1 / 0)
    exporter = make(server.port)
    slow_request(exporting(exporter))
    server.wait()

    assert server.told == 1
    assert faults.counts["failed", "writing a mail"] == 1


def test_a_forked_child_does_not_send_its_parent_s(server, make):
    """
    What waits at a fork is sent once, by the parent; and what happens in the child, by the child.
    """
    exporter = make(server.port, clock=lambda: 0.0)
    tracer = exporting(exporter)
    slow_request(tracer)
    server.wait()
    slow_request(tracer)  # told an instant ago, so it waits
    child = os.fork()
    if child == 0:
        try:
            slow_request(tracer, route="child/")
            exporter.shutdown()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    exporter.shutdown()

    assert sorted(mail["Subject"] for mail in server.mails) == [
        "[slow] GET child/ took 2.000 s in sum_up",
        "[slow] GET invoices/<int:year>/ took 2.000 s in sum_up",
        "[slow] GET invoices/<int:year>/ took 2.000 s in sum_up",
    ]
    assert server.told == 3


def test_a_fork_that_python_does_not_know_of(server, make):
    """
    A child whose server has forked without telling Python leaves its parent's mails alone as well.
    """
    exporter = make(server.port, clock=lambda: 0.0)
    tracer = exporting(exporter)
    for _ in range(2):
        slow_request(tracer)
        exporter.force_flush(5000)
    assert exporter._outstanding() == 1
    run = exporter._background._run
    exporter._background._process = -1  # as in a child in which no hook has run
    exporter.shutdown()
    run.closed = True  # which in a child would not be there
    run.wake()

    assert server.told == 1


def program(text, port, *, seconds=20):
    """Run a Python program of its own that mails; returns what it printed and how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
            "OTEL_PYTHON_INTROSPECT_EMAIL_TO": "ops@shop.example",
            "OTEL_PYTHON_INTROSPECT_EMAIL_HOST": "127.0.0.1",
            "OTEL_PYTHON_INTROSPECT_EMAIL_PORT": str(port),
        },
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done, time.monotonic() - began


def test_a_process_that_ends_at_once(server):
    """
    What a process has exported only as it ends is mailed all the same.
    """
    done, _ = program(
        """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from mail_server import slow_request
        from otel_introspect.exporters.mail import IntrospectEmailExporter
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(IntrospectEmailExporter()))
        for _ in range(3):
            slow_request(provider.get_tracer("x"))
        """,
        server.port,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert server.told == 3


def test_gevent(server):
    """
    Under gevent a mail is sent while a greenlet keeps the processor.
    """
    pytest.importorskip("gevent")
    done, _ = program(
        """
        from gevent import monkey
        monkey.patch_all()
        import time
        from mail_server import exporting, slow_request
        from otel_introspect.exporters.mail import IntrospectEmailExporter
        exporter = IntrospectEmailExporter()
        slow_request(exporting(exporter))
        deadline = time.monotonic() + 10
        while exporter._outstanding() and time.monotonic() < deadline:
            pass
        print(exporter._outstanding())
        exporter.shutdown()
        """,
        server.port,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert server.told == 1


def test_an_exit_with_a_silent_server():
    """
    A process that has mails for a server that never answers ends within some seconds, and says what was lost.
    """
    with silent_server() as port:
        done, took = program(
            """
            import atexit
            from mail_server import exporting, slow_request
            from otel_introspect.exporters import mail, reporting
            mail.EXIT_SECONDS = reporting.EXIT_SECONDS = 0.5
            exporter = mail.IntrospectEmailExporter()
            atexit.register(exporter.shutdown)
            slow_request(exporting(exporter))
            """,
            port,
        )

    assert done.returncode == 0
    assert "nobody was told of 1 slow requests" in done.stderr
    assert took < 10


def test_other_ends_of_a_request(server, make):
    """
    Requests that were interrupted, or outlived their process, are told, too; checkpoints and blocks within are not.
    """
    exporter = make(server.port)
    tracer = exporting(exporter)
    with tracer.start_as_current_span("GET /a", attributes={semconv.INTERRUPTED: True}) as span:
        span.add_event(
            semconv.TIMEOUT_EVENT,
            {
                semconv.TIMEOUT_LIMIT_MS: 500,
                semconv.TIMEOUT_ELAPSED_MS: 503,
                semconv.TIMEOUT_MECHANISM: "alarm",
                semconv.TIMEOUT_ENFORCED: True,
                "code.stacktrace": '  File "/srv/a.py", line 1, in a',
            },
        )
        tracer.start_span("block", attributes={semconv.INTERRUPTED: True}).end()
        tracer.start_span("checkpoint", attributes={semconv.SLOW: True, semconv.CHECKPOINT: True}).end()
    tracer.start_span("GET /b", attributes={semconv.RECOVERED: True}).end()
    exporter.force_flush(5000)
    first, second = server.mails

    assert first["Subject"].startswith("[slow] GET /a was interrupted after")
    assert "A limit of 500 ms had passed: interrupted after 503 ms (alarm)." in body_of(first)
    assert second["Subject"].startswith("[slow] GET /b outlived its process")
    assert "Its process died while this request was running" in body_of(second)
    assert "There is no stack on the span" in body_of(second)


def test_our_own_sending_is_no_span(server, make, monkeypatch):
    """
    While a mail is sent, instrumentation is suppressed.
    """
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    seen = []
    letter_of = module.letter_of
    monkeypatch.setattr(
        module, "letter_of", lambda *given: (seen.append(is_instrumentation_enabled()), letter_of(*given))[1]
    )
    exporter = make(server.port)
    slow_request(exporting(exporter))
    server.wait()

    assert seen == [False]
    assert is_instrumentation_enabled()
    assert logging.getLogger("otel_introspect.faults").disabled is False
