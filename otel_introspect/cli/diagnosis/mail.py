"""Whether mails about slow requests can be sent: somebody to send them to, and a server that answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from otel_introspect import environment_variables as env
from otel_introspect.cli.diagnosis import reach
from otel_introspect.cli.diagnosis.endpoint import SECONDS
from otel_introspect.cli.diagnosis.export import configuration_file, exporter_names
from otel_introspect.cli.diagnosis.finding import Finding, note, ok, problem
from otel_introspect.cli.diagnosis.launch import DISABLED_INSTRUMENTATIONS
from otel_introspect.cli.diagnosis.probe import Target
from otel_introspect.cli.diagnosis.settings import understood
from otel_introspect.cli.diagnosis.surroundings import Surroundings, nearest_directory
from otel_introspect.config import EmailConfig, ReportsConfig
from otel_introspect.engine.recorder_directory import DirectoryRefused, RecorderDirectory
from otel_introspect.exporters.smtp import server_of

EMAIL: Final = "introspect_email"
FILES: Final = "introspect_files"
_TOPIC: Final = "mail"
_FILES_TOPIC: Final = "reports"
_LOST: Final = "No mail is sent."
_HERE: Final = ("localhost", "127.0.0.1", "::1")


def mail(here: Surroundings) -> Iterator[Finding]:
    """What will become of the mails of ``introspect_email``; knocks at the server, and sends nothing."""
    config = EmailConfig.from_env(understood(here.environ))
    if not _is_chosen(here, EMAIL):
        yield from _idle(here, _TOPIC, env.OTEL_PYTHON_INTROSPECT_EMAIL_TO if config.to else "", EMAIL)
        return
    if not config.to:
        variable = env.OTEL_PYTHON_INTROSPECT_EMAIL_TO
        yield problem(
            _TOPIC, f"{EMAIL} is chosen, but {variable} names nobody. {_LOST}", f"{variable}=oncall@example.com"
        )
        return
    disabled = [each.strip() for each in here.value(DISABLED_INSTRUMENTATIONS).split(",")]
    if not config.host and here.value("DJANGO_SETTINGS_MODULE") and "introspect_django" not in disabled:
        yield note(
            _TOPIC,
            f"Django's own settings (EMAIL_HOST and so on) send mails to {config.to}. They are not read here.",
            f"manage.py sendtestemail {config.to.replace(',', ' ')}",
        )
        return
    yield _server(config)
    if config.user and config.tls == "none" and server_of(config)[0] not in _HERE:
        variable = env.OTEL_PYTHON_INTROSPECT_EMAIL_TLS
        yield note(_TOPIC, "The password goes to the server for everybody on the way to read.", f"{variable}=starttls")


def reports(here: Surroundings) -> Iterator[Finding]:
    """Whether ``introspect_files`` knows where to write, and can."""
    variable = env.OTEL_PYTHON_INTROSPECT_REPORTS_DIR
    directory = ReportsConfig.from_env(understood(here.environ)).directory
    if not _is_chosen(here, FILES):
        yield from _idle(here, _FILES_TOPIC, variable if directory else "", FILES)
    elif not directory:
        yield problem(
            _FILES_TOPIC,
            f"{FILES} is chosen, but {variable} is not set. No report is written.",
            f"{variable}=/var/lib/slow",
        )
    else:
        yield _place(directory)


def _place(directory: str) -> Finding:
    """As the exporter will find it; nothing is made."""
    variable = env.OTEL_PYTHON_INTROSPECT_REPORTS_DIR
    remedy = f"Set {variable} to a directory of the service's user, in which no other may write."
    try:
        place = RecorderDirectory(directory)
        if os.path.lexists(place.path):
            place.check()
        nearest, writable = nearest_directory(place.path)
    except DirectoryRefused as error:
        return problem(_FILES_TOPIC, f"{error}. No report is written.", remedy)
    except (OSError, RuntimeError) as error:
        return problem(_FILES_TOPIC, f"There can be no {directory} ({error}). No report is written.", remedy)
    if not writable:
        return problem(_FILES_TOPIC, f"This user can't write to {nearest}. No report is written.", remedy)
    return ok(_FILES_TOPIC, f"Reports go to {place.path}.")


def _idle(here: Surroundings, topic: str, variable: str, exporter: str) -> Iterator[Finding]:
    """Said of a *variable* for an exporter that is not chosen; a configuration file may choose it, unseen."""
    names = exporter_names(here, "traces")
    if variable and not configuration_file(here) and not isinstance(names, Finding):
        yield problem(
            topic,
            f"{variable} is set, but {exporter} is not among the exporters and does nothing.",
            f"OTEL_TRACES_EXPORTER={','.join([*names, exporter])}",
        )


def _is_chosen(here: Surroundings, name: str) -> bool:
    names = exporter_names(here, "traces")
    return not isinstance(names, Finding) and name in names


def _server(config: EmailConfig) -> Finding:
    host, port = server_of(config)
    target = Target(kind="tcp", host=host, port=port, seconds=SECONDS)
    shown = f"{host}:{port}"
    answer = reach.ask(target)
    if answer is None:
        return note(_TOPIC, f"{shown} could not be checked: the process that was to knock there ended without a word.")
    if isinstance(answer, str):
        return _unreachable(shown, f"{reach.WAITING_FOR[answer]} within {SECONDS:g} s")
    if answer.outcome in ("resolve", "connect"):
        return _unreachable(shown, answer.detail)
    return ok(_TOPIC, f"{shown} accepts connections (no more was tried); mails go to {config.to}")


def _unreachable(shown: str, why: str) -> Finding:
    return problem(
        _TOPIC,
        f"{shown} cannot be reached: {why}. {_LOST}",
        f"Say where the SMTP server is with {env.OTEL_PYTHON_INTROSPECT_EMAIL_HOST} and"
        f" {env.OTEL_PYTHON_INTROSPECT_EMAIL_PORT}.",
    )
