"""``exempt``: this view is not watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from otel_introspect.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])
_MARK: Final = "_otel_introspect_exempt"


def exempt(view: F) -> F:
    """Mark a view as one that may take long: it is not watched while it runs, nor while the body that it streams does.

    It has no deadline either: ``OTEL_PYTHON_INTROSPECT_TIMEOUT`` does not apply to it, only a ``timeout`` of its own.

    Works on functions, coroutine functions and what ``View.as_view()`` returns; on a class through
    ``@method_decorator(exempt, name="dispatch")``. Put it outermost if the decorators beneath it drop attributes.

    Returns:
        The view itself.

    Raises:
        ConfigurationError: If it is something that can't be marked, such as a bound method.
    """
    try:
        setattr(view, _MARK, True)
    except (AttributeError, TypeError):  # TypeError: a class that is written in C
        msg = f"exempt can't mark {view!r}, which takes no attributes; apply it to the function that it is made from"
        raise ConfigurationError(msg) from None
    return view


def is_exempt(view: object) -> bool:
    """Whether *view* is marked."""
    return getattr(view, _MARK, False) is True
