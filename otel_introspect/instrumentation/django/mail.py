"""Mails by Django's own settings: its backend, server, password and sender."""

from __future__ import annotations

import smtplib
from contextlib import suppress
from typing import Any

from django.core import mail

from otel_introspect.exporters.carrier import Letter, NotSent


class DjangoCarrier:
    """Sends by ``EMAIL_BACKEND``, or from Django 6.1 on by the default one of ``MAILERS``.

    Each mail has a connection of its own.
    """

    def send(self, letter: Letter, seconds: float) -> None:
        """See ``Carrier``."""
        try:
            connection = _connection()
            # EMAIL_TIMEOUT is none by default: a silent server would be waited for without end.
            if getattr(connection, "timeout", seconds) is None:
                connection.timeout = seconds
            message = mail.EmailMessage(
                letter.subject,
                letter.body,
                letter.sender or None,  # DEFAULT_FROM_EMAIL
                list(letter.recipients),
                headers=dict(letter.headers),
            )
            connection.open()
        except Exception as error:
            raise _not_sent(error) from error
        try:
            connection.send_messages([message])
        except smtplib.SMTPServerDisconnected:
            raise  # perhaps after it had taken all
        except smtplib.SMTPException as error:
            raise _not_sent(error) from error
        finally:
            with suppress(Exception):  # what was sent is sent
                connection.close()


def _connection() -> Any:  # noqa: ANN401 - of whatever backend
    mailers = getattr(mail, "mailers", None)  # since 6.1, where the other way warns
    return mail.get_connection(fail_silently=False) if mailers is None else mailers.default


def _not_sent(error: Exception) -> NotSent:
    return NotSent(f"{type(error).__name__}: {error}")
