"""One run of the demo: the shop is opened, visited and closed, and traces are shown as they arrive."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from otel_introspect.demo.evidence import Arrival, Evidence
from otel_introspect.demo.forwarding import Forwarder, destination
from otel_introspect.demo.receiver import SpanReceiver
from otel_introspect.demo.screen import Screen
from otel_introspect.demo.server import Shop, ShopError
from otel_introspect.demo.summary import Outcome, conclude
from otel_introspect.demo.traffic import Customers, wait_until_open
from otel_introspect.demo.visits import SLOW_VISITS
from otel_introspect.exporters.span_view import from_otlp_json
from otel_introspect.exporters.trace_tree import render

_OPEN_SECONDS: Final = 30.0
_ARRIVE_SECONDS: Final = 12.0
_LAST_FAST_SECONDS: Final = 2.0
_FORWARD_SECONDS: Final = 6.0
_POLL_SECONDS: Final = 0.1


class Session:
    """Runs once.

    Args:
        output: Where the traces go as OTLP JSON lines.
        environ: The environment of the shop.
    """

    def __init__(self, screen: Screen, output: Path, environ: Mapping[str, str]) -> None:
        self._screen = screen
        self._output = output
        self._environ = environ
        self._arrived: queue.Queue[dict[str, Any]] = queue.Queue()
        self._evidence = Evidence(SLOW_VISITS)
        self._shown = 0

    def run(self) -> int:
        """The exit status."""
        to = destination(self._environ)
        forwarder = Forwarder(to) if to is not None else None
        try:
            return self._run(forwarder)
        finally:
            if forwarder is not None:
                forwarder.finish(0)

    def _run(self, forwarder: Forwarder | None) -> int:
        started = time.monotonic()
        try:
            receiver = SpanReceiver(self._output, self._arrived.put, forwarder)
        except OSError as error:
            self._screen.say(f"Can't write {self._output}: {error.strerror or error}", "error")
            return 1
        self._screen.say(
            "A Django shop under `opentelemetry-instrument gunicorn`, two sync workers, not one of its lines\n"
            "written for otel_introspect. Its slow requests say by themselves what they were stuck in.",
            "name",
        )
        self._screen.progress("making the shop's database")
        try:
            with receiver, Shop(receiver.endpoint, self._environ) as shop:
                problems = self._visit(shop)
                log = shop.log()
        except ShopError as error:
            self._screen.say("The shop did not open, or did not stay open. The last that it said:", "error")
            self._screen.say(str(error).rstrip() or "(nothing)", "dim")
            return 1
        if forwarder is not None:
            forwarder.finish(_FORWARD_SECONDS)
        outcome = Outcome(self._evidence, problems, self._output, forwarder, log, time.monotonic() - started)
        return conclude(self._screen, outcome)

    def _visit(self, shop: Shop) -> list[str]:
        self._screen.progress(f"opening the shop at {shop.url}")
        if not wait_until_open(shop.url, shop.running, _OPEN_SECONDS):
            raise ShopError(shop.log())
        customers = Customers(shop.url)
        try:
            visits = [visit for visit in SLOW_VISITS if visit.path]
            for number, visit in enumerate(visits, 1):
                self._screen.progress(f"{number} of {len(visits)}: GET {visit.path} ({visit.title})")
                customers.make(visit, self._show_arrivals)
                if not shop.running():
                    raise ShopError(shop.log())
                if self._screen.gone:
                    break
            self._screen.progress("waiting for the last spans")
            self._wait_while(self._evidence.missing, _ARRIVE_SECONDS)
            self._wait_while(lambda: self._evidence.fast < customers.fast, _LAST_FAST_SECONDS)
        finally:
            customers.leave()
        return customers.problems

    def _wait_while(self, lacking: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while lacking() and time.monotonic() < deadline and not self._screen.gone:
            self._show_arrivals()
            time.sleep(_POLL_SECONDS)

    def _show_arrivals(self) -> None:
        while True:
            try:
                request = self._arrived.get_nowait()
            except queue.Empty:
                return
            for arrival in self._evidence.add(from_otlp_json(request)):
                self._show(arrival)

    def _show(self, arrival: Arrival) -> None:
        self._shown += 1
        title = arrival.visit.title if arrival.visit else "a request that was meant to be fast: this machine is busy"
        self._screen.say(f"\n=== {self._shown}. {title} ===", "note")
        if arrival.visit:
            self._screen.say(arrival.visit.look_at, "dim")
        self._screen.say()
        self._screen.show(render(arrival.trace, self._screen.glyphs))
