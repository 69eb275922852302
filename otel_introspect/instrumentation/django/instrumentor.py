"""The instrumentor ``introspect_django``: puts middleware around OpenTelemetry's, follows requests into views.

Nothing of Django is imported here: its handler is patched when, and only if, the application imports it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from wrapt import register_post_import_hook

from otel_introspect.exporters import offers
from otel_introspect.faults import fail_open, failed
from otel_introspect.instrumentation.base import BaseInstrumentor
from otel_introspect.introspection import active

if TYPE_CHECKING:
    from otel_introspect.exporters.carrier import Carrier

_HANDLER_MODULE: Final = "django.core.handlers.base"
_OTEL_MIDDLEWARE: Final = "opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware"
_PACKAGE: Final = "otel_introspect.instrumentation.django"
_INSIDE_WSGI: Final = f"{_PACKAGE}.middleware.wsgi_middleware"
_INSIDE_ASGI: Final = f"{_PACKAGE}.middleware.asgi_middleware"
_OUTSIDE: Final = f"{_PACKAGE}.span_guard.span_guard_middleware"

# Settings are changed while a handler loads its middleware, and changed back: two handlers must not do that at once.
_settings_lock = threading.RLock()


class IntrospectDjangoInstrumentor(BaseInstrumentor):
    """Tells the watchdog about Django's requests; takes no settings of its own.

    Each handler that loads its middleware from now on has ours: one just inside OpenTelemetry's, one just outside it.
    Django's setting ``MIDDLEWARE`` reads the same before and after.
    """

    _hooked = False
    _handler: type[Any] | None = None
    _on = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing: without Django there is simply nothing to do."""
        return ()

    def _instrument(self, **_kwargs: Any) -> None:  # noqa: ANN401 - OpenTelemetry's signature
        # An exception from here would keep the launcher from running the instrumentors after this one.
        with fail_open("setting up for Django"):
            offers.offer(_carrier)
            self._on = True
            if self._handler is not None:
                self._patch(self._handler)
            elif not self._hooked:
                # Such a hook can't be taken back, so it asks whether it is still wanted.
                self._hooked = True  # of the singleton that this is
                register_post_import_hook(self._handler_imported, _HANDLER_MODULE)

    def _handler_imported(self, module: ModuleType) -> None:
        with fail_open("setting up for Django"):
            self._handler = module.BaseHandler
            if self._on:
                self._patch(module.BaseHandler)

    def _patch(self, handler: type[Any]) -> None:
        if not hasattr(handler.load_middleware, _ORIGINAL):
            handler.load_middleware = _loading(handler.load_middleware)
            handler.make_view_atomic = _calling(handler.make_view_atomic)

    def _uninstrument(self, **_kwargs: Any) -> None:  # noqa: ANN401 - as above
        with fail_open("switching off for Django"):
            offers.withdraw(_carrier)
            self._on = False
            for name in ("load_middleware", "make_view_atomic"):
                # If somebody has wrapped ours since, it stays, and does nothing without an active watchdog.
                original = getattr(getattr(self._handler, name, None), _ORIGINAL, None)
                if original is not None:
                    setattr(self._handler, name, original)
            _forget_deadlines()


def _carrier() -> Carrier | None:
    # Asked by who sends mails, when there is one to be sent. Looking at the settings would import and configure them.
    configuration = sys.modules.get("django.conf")
    if configuration is None or not configuration.settings.configured:
        return None
    from otel_introspect.instrumentation.django.mail import DjangoCarrier

    return DjangoCarrier()


_ORIGINAL: Final = "_otel_introspect_original"


def _loading(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def load_middleware(self: Any, is_async: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002 - Django's signature
        introspection = active()
        if introspection is not None:
            introspection.prepare()
        with _ours_in_settings(is_async=is_async):
            original(self, is_async)

    setattr(load_middleware, _ORIGINAL, original)
    return load_middleware


@cache
def _follow() -> Callable[..., Any]:
    # Late, as it imports Django; once, as an import statement costs each request 0.5 us even if all is imported.
    from otel_introspect.instrumentation.django.watched_request import follow

    return follow


def _forget_deadlines() -> None:
    # Not loaded before a handler has loaded its middleware.
    module = sys.modules.get(f"{_PACKAGE}.request_deadline")
    if module is not None:
        module.forget()


def _calling(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def make_view_atomic(self: Any, view: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ANN401 - as above
        atomic: Callable[..., Any] = original(self, view)
        try:
            # Django calls this just before the view, where the view is going to be called from.
            following: Callable[..., Any] = _follow()(view, atomic)
        except Exception as error:  # noqa: BLE001 - it would reach the application
            failed("following a request into its view", error)
            return atomic
        return following

    setattr(make_view_atomic, _ORIGINAL, original)
    return make_view_atomic


@contextmanager
def _ours_in_settings(*, is_async: bool) -> Iterator[None]:
    from django.conf import settings

    with _settings_lock:
        before = settings.MIDDLEWARE
        with fail_open("adding our middleware"):
            settings.MIDDLEWARE = with_ours(before, is_async=is_async)
        try:
            yield
        finally:
            settings.MIDDLEWARE = before


def with_ours(middleware: Collection[str], *, is_async: bool) -> list[str]:
    """*middleware* with ours around OpenTelemetry's; at the very outside if that is not there."""
    others = [path for path in middleware if path not in (_INSIDE_WSGI, _INSIDE_ASGI, _OUTSIDE)]
    inside = _if_importable(_INSIDE_ASGI if is_async else _INSIDE_WSGI)
    if _OTEL_MIDDLEWARE not in others:
        return [*inside, *others]
    place = others.index(_OTEL_MIDDLEWARE)
    outside = _if_importable(_OUTSIDE) if is_async else []
    return [*others[:place], *outside, _OTEL_MIDDLEWARE, *inside, *others[place + 1 :]]


def _if_importable(path: str) -> list[str]:
    """*path*, or nothing: Django would not start with one that it can't import."""
    from django.utils.module_loading import import_string

    try:
        import_string(path)
    except Exception as error:  # noqa: BLE001 - it would reach the application
        failed(f"importing {path}", error)
        return []
    return [path]
