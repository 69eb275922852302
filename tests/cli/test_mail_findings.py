"""What the doctor says about mails and report files."""

from __future__ import annotations

import socket

import pytest

from otel_introspect.cli.diagnosis import CHECKS, mail
from otel_introspect.cli.diagnosis.finding import Level
from otel_introspect.config import PREFIX


@pytest.fixture(name="diagnose")
def _diagnose(healthy):
    def diagnose(check=mail.mail, *, exporter="otlp_proto_http,introspect_email", django="", **variables):
        given = {PREFIX + name: str(value) for name, value in variables.items()}
        return list(check(healthy({"OTEL_TRACES_EXPORTER": exporter, "DJANGO_SETTINGS_MODULE": django, **given})))

    return diagnose


@pytest.fixture(name="server")
def _server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_they_are_among_the_checks():
    """
    The doctor asks for both.
    """
    assert {mail.mail, mail.reports} <= set(CHECKS)


def test_not_chosen(diagnose):
    """
    Where nobody has asked for mails or files, nothing is said of them.
    """
    assert diagnose(exporter="introspect_console") == []
    assert diagnose(mail.reports, exporter="introspect_console") == []


def test_nobody_to_send_to(diagnose):
    """
    Mails without an address are a problem.
    """
    (finding,) = diagnose()

    assert finding.level is Level.PROBLEM
    assert finding.remedy == f"{PREFIX}EMAIL_TO=oncall@example.com"


def test_a_server_that_answers(diagnose, server):
    """
    Where mails go, and by which server, is said.
    """
    (finding,) = diagnose(EMAIL_TO="ops@shop.example", EMAIL_HOST="127.0.0.1", EMAIL_PORT=server)

    assert finding.level is Level.OK
    assert (
        finding.message == f"127.0.0.1:{server} accepts connections (no more was tried); mails go to ops@shop.example"
    )


def test_a_dead_port(diagnose):
    """
    A server that is not there is a problem.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (finding,) = diagnose(EMAIL_TO="ops@shop.example", EMAIL_HOST="127.0.0.1", EMAIL_PORT=port)

    assert finding.level is Level.PROBLEM
    assert f"127.0.0.1:{port} cannot be reached" in finding.message


def test_django_sends(diagnose):
    """
    Where Django's settings send the mails, how to try them is said.
    """
    (finding,) = diagnose(django="shop.settings", EMAIL_TO="a@b,c@d")

    assert (finding.level, finding.remedy) == (Level.NOTE, "manage.py sendtestemail a@b c@d")


def test_django_is_not_asked(healthy, server):
    """
    With our part for Django disabled, the mails go to the SMTP server that is named, or to this machine's.
    """
    given = {
        "OTEL_TRACES_EXPORTER": "introspect_email",
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis, introspect_django",
        f"{PREFIX}EMAIL_TO": "a@b",
        f"{PREFIX}EMAIL_PORT": str(server),
    }
    (finding,) = mail.mail(healthy(given))

    assert finding.message.startswith(f"localhost:{server} accepts connections")


def test_a_password_in_the_open(diagnose, monkeypatch):
    """
    A password that goes over a network without TLS is worth knowing, and is not shown.
    """
    monkeypatch.setattr(mail.reach, "ask", lambda _: None)
    findings = diagnose(EMAIL_TO="a@b", EMAIL_HOST="mail.example", EMAIL_USER="web", EMAIL_PASSWORD="s3cret")

    assert [each.level for each in findings] == [Level.NOTE, Level.NOTE]
    assert "s3cret" not in repr(findings)


def test_the_password_is_masked(healthy):
    """
    The list of the variables that are set says that there is a password, and not which.
    """
    from otel_introspect.cli.diagnosis import settings

    found = list(settings.variables(healthy({f"{PREFIX}EMAIL_PASSWORD": "s3cret"})))

    assert [each.message for each in found] == [f"{PREFIX}EMAIL_PASSWORD=<set>"]


def test_reports_without_a_directory(diagnose):
    """
    Files without a place are a problem.
    """
    (finding,) = diagnose(mail.reports, exporter="introspect_files")

    assert finding.level is Level.PROBLEM


def test_where_reports_go(diagnose, tmp_path):
    """
    A directory that can be made is named, and is not made.
    """
    directory = tmp_path / "slow"
    (finding,) = diagnose(mail.reports, exporter="introspect_files", REPORTS_DIR=directory)

    assert (finding.level, finding.message) == (Level.OK, f"Reports go to {directory}.")
    assert not directory.exists()


def test_a_place_that_the_exporter_refuses(diagnose, tmp_path):
    """
    A directory in which others may write, and what is no directory, are problems here as they are to the exporter.
    """
    for_all = tmp_path / "for-all"
    for_all.mkdir()
    for_all.chmod(0o777)
    a_file = tmp_path / "file"
    a_file.touch()
    for refused in (for_all, a_file, a_file / "below"):
        (finding,) = diagnose(mail.reports, exporter="introspect_files", REPORTS_DIR=refused)

        assert finding.level is Level.PROBLEM, refused
        assert "No report is written." in finding.message
        assert f"{PREFIX}REPORTS_DIR" in finding.remedy


@pytest.mark.parametrize(
    ("check", "variables", "exporter"),
    [
        (mail.mail, {"EMAIL_TO": "a@b"}, "introspect_email"),
        (mail.reports, {"REPORTS_DIR": "/var/lib/slow"}, "introspect_files"),
    ],
)
def test_an_exporter_that_was_forgotten(diagnose, check, variables, exporter):
    """
    Where a variable is set for an exporter that nobody has chosen, the line that chooses it is said.
    """
    (finding,) = diagnose(check, exporter="introspect_console", **variables)

    assert finding.level is Level.PROBLEM
    assert finding.remedy == f"OTEL_TRACES_EXPORTER=introspect_console,{exporter}"
