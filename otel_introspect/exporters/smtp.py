"""Mails by SMTP, with the server that the variables name."""

from __future__ import annotations

import smtplib
import socket
import ssl
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Final

from otel_introspect import faults
from otel_introspect.config import EmailConfig
from otel_introspect.exporters.carrier import Letter, NotSent

_PORTS: Final = {"none": 25, "starttls": 587, "tls": 465}


class SmtpCarrier:
    """One connection for each mail: there are few of them, and a server closes what is idle.

    Args:
        config: Where, who and how.
    """

    def __init__(self, config: EmailConfig) -> None:
        self._config = config

    def send(self, letter: Letter, seconds: float) -> None:
        """See ``Carrier``."""
        message = message_of(letter)
        try:
            client = self._connect(seconds)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise NotSent(why) from error
        try:
            refused = client.send_message(message, message["From"], list(letter.recipients))
        except smtplib.SMTPServerDisconnected:
            raise  # perhaps after it had taken all
        except smtplib.SMTPException as error:
            # It has answered, and said no.
            why = f"{type(error).__name__}: {error}"
            raise NotSent(why) from error
        finally:
            with suppress(Exception):
                client.putcmd("quit")  # whose answer nobody waits for
            client.close()
        if refused:
            faults.count("refused", "recipient of a mail")

    def _connect(self, seconds: float) -> smtplib.SMTP:
        config = self._config
        host, port = server_of(config)
        name = _host_name()  # or it would be looked up
        client = (
            smtplib.SMTP_SSL(host, port, name, timeout=seconds, context=ssl.create_default_context())
            if config.tls == "tls"
            else smtplib.SMTP(host, port, name, timeout=seconds)
        )
        try:
            if config.tls == "starttls":
                client.starttls(context=ssl.create_default_context())
            if config.user:
                client.login(config.user, config.password)
        except BaseException:
            client.close()
            raise
        return client


def server_of(config: EmailConfig) -> tuple[str, int]:
    """Its name and port, as they were set or as is usual."""
    return config.host or "localhost", config.port or _PORTS[config.tls]


def message_of(letter: Letter) -> EmailMessage:
    """The mail as it goes over the wire: headers of one line each, a body of any text in ASCII."""
    message = EmailMessage(policy=SMTP)
    message["From"] = letter.sender or f"otel-introspect@{_host_name()}"
    message["To"] = ", ".join(letter.recipients)
    message["Subject"] = letter.subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid("otel-introspect", _host_name())
    for name, value in letter.headers.items():
        message[name] = value
    # Some servers take only ASCII and lines of 998 characters.
    message.set_content(letter.body, cte="quoted-printable")
    return message


def _host_name() -> str:
    # Not the fully qualified one: that asks a name server.
    name = socket.gethostname()
    return name if name.isascii() and name.replace("-", "").replace(".", "").isalnum() else "localhost"
