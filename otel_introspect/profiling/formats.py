"""The formats in which a profile can be had: which there are, and who makes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from otel_introspect.profiling.callgraph import RenderError, dot_file, drawing
from otel_introspect.profiling.function_stats import pstats_file
from otel_introspect.profiling.html import write_html
from otel_introspect.profiling.renderable import renderable
from otel_introspect.profiling.speedscope import speedscope_file

if TYPE_CHECKING:
    from pyinstrument.session import Session

__all__ = ["FORMATS", "KINDS", "Format", "Kind", "RenderError", "render"]

Format = Literal["html", "text", "json", "speedscope", "pstats", "dot", "svg", "pdf"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


class Kind(NamedTuple):
    """What one has to know of a format to put it somewhere.

    Args:
        suffix: Of a file in this format.
        binary: Whether it is no text, and so nothing for a terminal.
    """

    suffix: str
    binary: bool = False


KINDS: Final[Mapping[Format, Kind]] = {
    "html": Kind(".html"),
    "text": Kind(".txt"),
    "json": Kind(".pyisession.json"),
    "speedscope": Kind(".speedscope.json"),
    "pstats": Kind(".pstats", binary=True),
    "dot": Kind(".dot"),
    "svg": Kind(".svg"),
    "pdf": Kind(".pdf", binary=True),
}


def render(session: Session, format: Format) -> bytes:  # noqa: A002 - what the command calls it too
    """A profile in another format, as the contents of a file.

    Args:
        session: Any session of pyinstrument's, an empty one too; it is not changed.
        format: One of ``FORMATS``. ``json`` is the session itself, which ``read`` and pyinstrument load again.

    Raises:
        RenderError: If there is no such format, or what it needs is not installed here, or fails.
    """
    make = _MAKERS.get(format)
    if make is None:
        msg = f"There is no format {format!r}: expected one of {', '.join(FORMATS)}"
        raise RenderError(msg)
    return make(session)


def _text(session: Session) -> bytes:
    from pyinstrument.renderers import ConsoleRenderer

    text = ConsoleRenderer(unicode=True, color=False, show_all=True).render(
        renderable(session, timeline=False, plain=True)
    )
    return text.encode()


def _json(session: Session) -> bytes:
    from pyinstrument.renderers.session import SessionRenderer

    return SessionRenderer().render(session).encode()


def _html(session: Session) -> bytes:
    """The page that the store keeps, too.

    Raises:
        RenderError: If this version of pyinstrument makes its page differently.
    """
    page = BytesIO()
    try:
        write_html(renderable(session, timeline=True), page.write)
    except RuntimeError as error:
        msg = "This version of pyinstrument makes its page in a way that is not known here. Use --format speedscope"
        raise RenderError(msg) from error
    return page.getvalue()


_MAKERS: Final[Mapping[Format, Callable[[Session], bytes]]] = {
    "html": _html,
    "text": _text,
    "json": _json,
    "speedscope": speedscope_file,
    "pstats": pstats_file,
    "dot": dot_file,
    "svg": partial(drawing, format="svg"),
    "pdf": partial(drawing, format="pdf"),
}
