"""The traces exporter ``introspect_email``: mails about slow requests, grouped, and only so many an hour."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from otel_introspect import environment_variables as env
from otel_introspect import faults
from otel_introspect.config import EmailConfig
from otel_introspect.engine.native import allocate_lock
from otel_introspect.exporters.carrier import Carrier, Letter, NotSent
from otel_introspect.exporters.letters import letter_of, letter_without_report
from otel_introspect.exporters.offers import offered
from otel_introspect.exporters.outbox import Batch, Outbox
from otel_introspect.exporters.reporting import EXIT_SECONDS, ReportExporter
from otel_introspect.exporters.smtp import SmtpCarrier
from otel_introspect.exporters.span_view import SpanView


class IntrospectEmailExporter(ReportExporter):
    """Mails slow, interrupted and recovered requests, grouped and limited; see ``outbox``.

    Args:
        clock: Seconds since some fixed point; for tests.
        options: Of ``EmailConfig``; what is not given is read from the environment.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:  # noqa: ANN401 - checked there
        super().__init__("otel-introspect-mail")
        self._config = config = EmailConfig.from_env(overrides=options)
        self._clock = clock
        self._start_afresh()
        if not config.to:
            faults.tell_once(
                logging.WARNING,
                "introspect_email sends no mail: set %s to the addresses that are to get them.",
                env.OTEL_PYTHON_INTROSPECT_EMAIL_TO,
            )

    def _start_afresh(self) -> None:
        self._lock = allocate_lock()
        self._inbox: deque[SpanView] = deque()
        self._outbox = Outbox(self._config.max_per_hour)
        self._sending = 0
        self._said = False

    def _take(self, span: SpanView) -> bool:
        if not self._config.to:
            return False
        # The lock is only tried: its holder may be this very thread, if a finaliser has ended a span. Whoever holds it
        # looks into the inbox afterwards.
        self._inbox.append(span)
        while self._inbox and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()
        return True

    def _fold(self) -> None:
        now = self._clock()
        while self._inbox:
            self._outbox.add(self._inbox.popleft(), now)

    def _outstanding(self) -> int:
        return len(self._inbox) + self._outbox.waiting + self._sending

    # What follows runs on the thread.

    def _work(self) -> float | None:
        while True:
            is_last = self._stopped
            with self._lock:
                self._fold()
                now = self._clock()
                batch = self._outbox.take_all(now) if is_last else self._outbox.take(now)
                if batch is None:
                    return self._outbox.due_in(now)
                self._sending = batch.count
            self._send(batch, min(self._config.timeout / 1000, EXIT_SECONDS if is_last else float("inf")))
            if is_last:
                return None

    def _send(self, batch: Batch, seconds: float) -> None:
        error: Exception | None = None
        try:
            self._carrier().send(self._letter(batch), seconds)
        except Exception as caught:  # noqa: BLE001 - a server may do, and a framework's mail raise, whatever it likes
            error = caught
        with self._lock:
            self._sending = 0
            if error is None:
                self._outbox.sent(self._clock())
            else:
                self._outbox.not_sent(batch, self._clock(), maybe=not isinstance(error, NotSent))
        if error is None:
            self._said = False
        else:
            self._tell_failure(error)

    def _letter(self, batch: Batch) -> Letter:
        try:
            return letter_of(batch, self._config)
        except Exception as error:  # noqa: BLE001 - whatever a span holds, its number must not be lost
            faults.failed("writing a mail", error)
            return letter_without_report(batch, self._config, error)

    def _carrier(self) -> Carrier:
        config = self._config
        return (None if config.host else offered()) or SmtpCarrier(config)

    def _tell_failure(self, error: Exception) -> None:
        faults.count("failed", "sending a mail")
        if self._said:  # once for each time that mails stop getting through
            return
        self._said = True
        cause = error.__cause__ if isinstance(error, NotSent) else error
        # What can't be encoded may be a part of the password.
        why = type(cause).__name__ if isinstance(cause, UnicodeError) else f"{type(cause).__name__}: {cause}"
        if self._config.password:
            why = why.replace(self._config.password, "<password>")
        faults.warn(
            "A mail about slow requests could not be sent (%s). It is tried again, with what comes meanwhile.", why
        )
