"""The formats in which a profile can be had: which there are, and who makes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from otel_introspect.profiling.callgraph import RenderError, dot_file, drawing
from otel_introspect.profiling.function_stats import pstats_file
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

# From here on pyinstrument takes fewer samples too, as browsers struggle.
_MAX_RECORDS_IN_HTML: Final = 100_000
_RESOLUTION: Final = 10_000


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
    """The page of pyinstrument, with the data written so that no name in it can end the script that it stands in.

    The page is made around an empty session, whose place the real one then takes: a request's path can be part of the
    description, and is anybody's to choose.

    Raises:
        RenderError: If this version of pyinstrument makes its page differently.
    """
    from pyinstrument.renderers.html import HTMLRenderer, JSONForHTMLRenderer

    whole = renderable(session, timeline=True)
    if len(whole.frame_records) > _MAX_RECORDS_IN_HTML and whole.duration > 0:
        whole = whole.resample(whole.duration / _RESOLUTION)
    empty = renderable(session, timeline=True)
    empty.frame_records, empty.target_description = [], ""
    empty.start_call_stack, empty.sys_path, empty.sys_prefixes = [""], [], []
    before, placeholder, after = HTMLRenderer().render(empty).partition(JSONForHTMLRenderer().render(empty))
    if not placeholder:
        msg = "This version of pyinstrument makes its page in a way that is not known here. Use --format speedscope"
        raise RenderError(msg)
    data = JSONForHTMLRenderer().render(whole).replace("<", "\\u003c")
    # A lone surrogate has no UTF-8; its escape is what it is in JavaScript too.
    return f"{before}{data}{after}".encode("utf-8", "backslashreplace")


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
