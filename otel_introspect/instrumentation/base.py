"""OpenTelemetry's base class for instrumentors, with types: its own module has them switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abc import ABC, abstractmethod
    from collections.abc import Collection

    class BaseInstrumentor(ABC):
        """A singleton that is switched on and off; its ``__init__`` runs again at each call, so ours have none."""

        @property
        def is_instrumented_by_opentelemetry(self) -> bool: ...
        @abstractmethod
        def instrumentation_dependencies(self) -> Collection[str]: ...
        @abstractmethod
        def _instrument(self, **kwargs: Any) -> None: ...
        @abstractmethod
        def _uninstrument(self, **kwargs: Any) -> None: ...
        def instrument(self, **kwargs: Any) -> None: ...
        def uninstrument(self, **kwargs: Any) -> None: ...
else:
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

__all__ = ["BaseInstrumentor"]
