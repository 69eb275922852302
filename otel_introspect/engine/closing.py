"""Having something closed before a span ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

from otel_introspect.faults import fail_open


class Closing(Protocol):
    """Something that writes to a span no more once it is closed."""

    def close(self) -> None:
        """Write what there is, and nothing after that."""
        ...


def close_before_end(span: Any, watch: Closing) -> None:  # noqa: ANN401 - any object with an end()
    """Have *watch* closed when ``span.end`` is called, before it does anything. Takes no lock.

    Only this one instance is touched, and only once it is slow. An ``end`` that is running already can't be caught:
    then the SDK may warn once that an ended span was written to.
    """
    earlier: Callable[..., None] | None = vars(span).get("end")
    reference = weakref.ref(span)  # a strong one would be a cycle, and keep a forgotten span until the collector runs

    def end(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they are
        with fail_open("closing a span's evidence"):
            watch.close()
        ending = reference()
        if ending is None:
            return
        if vars(ending).get("end") is end:
            if earlier is None:
                del ending.end
            else:
                ending.end = earlier
        if earlier is not None:
            earlier(*args, **kwargs)
        else:
            type(ending).end(ending, *args, **kwargs)

    span.end = end


def adopt(span: Any, watch: Any) -> None:  # noqa: ANN401 - a span, or what an adapter has in its place
    """The same, in the span's own way if it has one.

    Raises:
        Exception: If the span does not let itself be changed.
    """
    own = getattr(span, "close_before_end", None)
    if own is not None:
        own(watch)
    else:
        close_before_end(span, watch)
