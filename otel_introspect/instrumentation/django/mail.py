"""Mails by Django's own settings: its backend, server, password and sender."""

from __future__ import annotations

import smtplib
from contextlib import suppress

from django.core.mail import EmailMessage, get_connection

from otel_introspect.exporters.carrier import Letter, NotSent


class DjangoCarrier:
    """Sends by ``EMAIL_BACKEND``, with a connection of its own for each mail."""

    def send(self, letter: Letter, seconds: float) -> None:
        """See ``Carrier``."""
        try:
            connection = get_connection(fail_silently=False)
            # EMAIL_TIMEOUT is none by default: a silent server would be waited for without end.
            if getattr(connection, "timeout", seconds) is None:
                connection.timeout = seconds  # type: ignore[attr-defined]  # of the backends that connect to a server
            message = EmailMessage(
                letter.subject,
                letter.body,
                letter.sender or None,  # DEFAULT_FROM_EMAIL
                list(letter.recipients),
                headers=dict(letter.headers),
                connection=connection,
            )
            connection.open()
        except Exception as error:
            raise _not_sent(error) from error
        try:
            message.send(fail_silently=False)
        except smtplib.SMTPServerDisconnected:
            raise  # perhaps after it had taken all
        except smtplib.SMTPException as error:
            raise _not_sent(error) from error
        finally:
            with suppress(Exception):  # what was sent is sent
                connection.close()


def _not_sent(error: Exception) -> NotSent:
    return NotSent(f"{type(error).__name__}: {error}")
