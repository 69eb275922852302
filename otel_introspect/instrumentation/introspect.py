"""The instrumentor ``introspect``: has the entry spans of the tracer provider watched."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakKeyDictionary

from opentelemetry import trace

from otel_introspect import environment_variables as env
from otel_introspect.config import INTROSPECT_SETTINGS, IntrospectConfig, introspect_options, option_of
from otel_introspect.faults import fail_open, tell_once
from otel_introspect.instrumentation import exits
from otel_introspect.instrumentation.base import BaseInstrumentor
from otel_introspect.introspection import START_SETTLES, Introspection, activate, active, on_first_use
from otel_introspect.metrics import publish
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.profiling import pools
from otel_introspect.setting import variables_of

if TYPE_CHECKING:
    from otel_introspect.processors.event_bridge import EventToSpanEventBridge

# What instrument() is given by OpenTelemetry itself or takes beside the settings.
_OTHER_ARGUMENTS: Final = frozenset({"config", "tracer_provider", "meter_provider", "logger_provider"})


class _Options:
    """A class attribute that is made when it is read."""

    def __get__(self, instance: object, owner: type[Any]) -> type[Any]:
        return introspect_options()


class IntrospectInstrumentor(BaseInstrumentor):
    """Adds the watchdog to the tracer provider.

    ``instrument()`` takes ``config`` (an ``IntrospectConfig``) or any setting by its name as a keyword
    (``watchdog_threshold``); what is not given comes from the environment. It also takes ``tracer_provider`` and
    ``logger_provider``; the global ones are used otherwise.
    """

    configuration: ClassVar[_Options] = _Options()
    """The dataclass of what a configuration file may say about it."""

    # A provider keeps its processors for good: one serves each time that we are switched on again.
    _processors: ClassVar[WeakKeyDictionary[Any, WatchdogSpanProcessor]] = WeakKeyDictionary()
    _bridges: ClassVar[WeakKeyDictionary[Any, EventToSpanEventBridge]] = WeakKeyDictionary()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing: it works with whatever is there."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:  # noqa: ANN401 - OpenTelemetry's signature
        # An exception from here would keep the launcher from running the instrumentors after this one.
        with fail_open("setting up"):
            config = kwargs.get("config") or IntrospectConfig.from_env(options=kwargs)
            _tell_what_is_unknown(kwargs)
            provider = kwargs.get("tracer_provider")
            introspection = Introspection(
                config, tracer_provider=provider, logger_provider=kwargs.get("logger_provider")
            )
            activate(introspection)
            with fail_open("setting up log records"):
                if config.evidence.events_bridge:
                    self._bridge(introspection.logger_provider())
                if introspection.records is not None:
                    introspection.records.has_listeners()  # says what to do if there are none
            publish(kwargs.get("meter_provider"))
            if introspection.dead_man is not None:
                introspection.dead_man.follow()
            if introspection.profiles:
                pools.follow()
            if introspection.watching and not self._attach(introspection, provider):
                tell_once(
                    logging.WARNING,
                    "otel_introspect found no tracer provider of the OpenTelemetry SDK, so nothing is watched yet. Set"
                    " one up before instrument() is called, or start with opentelemetry-instrument; it is looked for"
                    " again at the first request.",
                )
                on_first_use(lambda: self._attach(introspection, provider))

    def _attach(self, introspection: Introspection, provider: Any) -> bool:  # noqa: ANN401 - told by what it can do
        provider = trace.get_tracer_provider() if provider is None else provider
        add = getattr(provider, "add_span_processor", None)
        if add is None:
            return False
        processor = self._processors.get(provider)
        if processor is not None:
            processor.switch_to(introspection)
        else:
            processor = WatchdogSpanProcessor(introspection)
            add(processor)
            self._processors[provider] = processor  # only now, as one that was not taken would serve nobody
        exits.watch(introspection)
        # Those of processes that were killed, this one's forerunner perhaps.
        introspection.recover_soon(settle=START_SETTLES)
        return True

    def _bridge(self, provider: Any) -> None:  # noqa: ANN401 - as above
        from otel_introspect.processors.event_bridge import EventToSpanEventBridge

        add = getattr(provider, "add_log_record_processor", None)
        if add is None:
            tell_once(
                logging.WARNING,
                "%s=true, but there is no logger provider of the OpenTelemetry SDK, so no events of others are put on"
                " spans. Set one up before instrument() is called, or start with opentelemetry-instrument.",
                env.OTEL_PYTHON_INTROSPECT_EVENTS_BRIDGE,
            )
            return
        bridge = self._bridges.get(provider)
        if bridge is None:
            bridge = EventToSpanEventBridge()
            add(bridge)
            self._bridges[provider] = bridge
        bridge.is_on = True

    def _uninstrument(self, **_kwargs: Any) -> None:  # noqa: ANN401 - as above
        with fail_open("switching off"):
            introspection = active()
            activate(None)
            exits.watch_no_more()
            if introspection is not None:
                introspection.stop()
            pools.leave()
            for bridge in list(self._bridges.values()):
                bridge.is_on = False


def _tell_what_is_unknown(options: Mapping[str, object]) -> None:
    by_option = {
        option_of(variable) for settings in INTROSPECT_SETTINGS for variable in variables_of(settings).values()
    }
    for option in options.keys() - by_option - _OTHER_ARGUMENTS:
        nearest = difflib.get_close_matches(option, by_option, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else f" There are: {', '.join(sorted(by_option))}."
        tell_once(logging.WARNING, "otel_introspect knows no setting %r; it is ignored.%s", option, hint)
