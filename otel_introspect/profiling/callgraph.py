"""The graph of who calls whom, coloured by time: as DOT by gprof2dot, drawn by Graphviz."""

from __future__ import annotations

import io
import shutil
import subprocess
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_introspect.engine.stack_text import one_line
from otel_introspect.errors import IntrospectError
from otel_introspect.profiling.function_stats import NO_SAMPLES, Function, Stats, function_stats

if TYPE_CHECKING:
    from pyinstrument.session import Session

_PROGRAM: Final = "dot"
# The options and the seconds that Graphviz gets. Where everybody calls everybody it takes minutes to lay out fine
# curves; then plain lines have to do.
_EFFORTS: Final[tuple[tuple[tuple[str, ...], float], ...]] = (
    ((), 20.0),
    (("-Gnslimit=2", "-Gnslimit1=2", "-Gmclimit=0.1", "-Gsplines=line"), 60.0),
)
_MAX_SAID: Final = 500
# gprof2dot's own defaults: what takes less of the time than this is not drawn.
_MIN_NODE: Final = 0.005
_MIN_EDGE: Final = 0.001
# Beyond these the smallest go too.
_MAX_FUNCTIONS: Final = 1_000
_MAX_CALLS: Final = 1_000
# Graphviz reads no string of more than 16 KiB, and a box as wide as a novel hides the others.
_MAX_NAME: Final = 120
_MAX_TOOLTIP: Final = 1_000
_ELSE: Final = (
    "Another way: --format html or speedscope (https://www.speedscope.app), which need nothing installed, "
    "or --format dot and any viewer of DOT files"
)


class RenderError(IntrospectError):
    """A profile cannot be rendered in this format here: says what is missing, how to get it, and another way."""


class _Loaded:
    """What ``pstats.Stats`` takes in place of a file."""

    def __init__(self, stats: Stats) -> None:
        self.stats = stats

    def create_stats(self) -> None:
        """Nothing to do: they are there."""


def dot_file(session: Session) -> bytes:
    """The call graph in the DOT language.

    Raises:
        RenderError: If gprof2dot is not installed.
    """
    try:
        gprof2dot: Any = import_module("gprof2dot")
    except ImportError as error:
        msg = (
            "The call graph needs gprof2dot, which is not installed: pip install 'otel-introspect[render]'. "
            "Another way: --format html, speedscope or pstats, which do without"
        )
        raise RenderError(msg) from error
    parser = gprof2dot.PstatsParser(_Loaded(_largest(function_stats(session))))
    profile = parser.parse()
    for function, number in parser.function_ids.items():
        _label(profile.functions[number], function, session)
    profile.prune(_MIN_NODE, _MIN_EDGE, None, False)  # noqa: FBT003 - gprof2dot's signature
    text = io.StringIO()
    writer = gprof2dot.DotWriter(text)
    # Not how often: nobody has counted.
    writer.show_edge_events = [gprof2dot.TOTAL_TIME_RATIO]
    writer.graph(profile, gprof2dot.TEMPERATURE_COLORMAP)
    return text.getvalue().encode()


def drawing(session: Session, format: Literal["svg", "pdf"]) -> bytes:  # noqa: A002 - what the command calls it too
    """The call graph, drawn by Graphviz.

    Raises:
        RenderError: If gprof2dot or Graphviz is not installed, or Graphviz fails or does not come to an end.
    """
    graph = dot_file(session)
    program = shutil.which(_PROGRAM)
    if program is None:
        msg = (
            f"{format} needs Graphviz's program {_PROGRAM}, which is not on the PATH: install the package graphviz "
            f"(apt install graphviz, dnf install graphviz, brew install graphviz). {_ELSE}"
        )
        raise RenderError(msg)
    done = None
    for options, seconds in _EFFORTS:
        try:
            done = subprocess.run(  # noqa: S603 - the user's own program; what it reads is on its standard input
                [program, f"-T{format}", *options], input=graph, capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            continue
        except OSError as error:
            msg = f"{program} cannot be started ({error.strerror}). {_ELSE}"
            raise RenderError(msg) from error
        break
    if done is None:
        msg = f"Graphviz has not drawn the graph within {_EFFORTS[-1][1]:.0f} seconds. {_ELSE}"
        raise RenderError(msg)
    if done.returncode or not done.stdout:
        said = one_line(done.stderr.decode("utf-8", "replace").strip())[:_MAX_SAID] or f"exit status {done.returncode}"
        msg = f"Graphviz could not draw the graph ({said}). {_ELSE}"
        raise RenderError(msg)
    return done.stdout


def _largest(stats: Stats) -> Stats:
    """The functions with the most time, and of the calls between these those with the most."""
    kept = sorted(stats, key=lambda function: stats[function][3], reverse=True)[:_MAX_FUNCTIONS]
    known = frozenset(kept)
    calls = [
        (times[3], caller, function)
        for function in kept
        for caller, times in stats[function][4].items()
        if caller in known
    ]
    calls.sort(key=lambda call: call[0], reverse=True)
    drawn = {(caller, function) for _, caller, function in calls[:_MAX_CALLS]}
    smaller: Stats = {}
    for function in kept:
        count, primitive, own, total, callers = stats[function]
        callers = {caller: times for caller, times in callers.items() if (caller, function) in drawn}
        smaller[function] = (count, primitive, own, total, callers)
    return smaller


def _label(node: Any, function: Function, session: Session) -> None:  # noqa: ANN401 - gprof2dot is not typed
    """What the box says: where, what, and how much time; not how often, which nobody has counted."""
    file, line, name = function
    node.called = None
    if function == NO_SAMPLES:
        node.name, node.filename = "No samples were recorded.", None
        return
    node.name = _shown(name, _MAX_NAME) or " "
    if file == "~":
        node.filename = None
        return
    place = f":{line}" if line else ""
    node.module = _shown(f"{session.shorten_path(file)}{place}", _MAX_NAME)
    # Never a bare word: those that DOT has a meaning for are not put in quotes.
    node.filename = _shown(f"{file}:{line}", _MAX_TOOLTIP)


def _shown(text: str, length: int) -> str:
    text = one_line(text)
    if len(text) > length:
        text = f"{text[: length // 2]}…{text[-length // 2 :]}"
    # Graphviz reads HTML's entities in every label.
    return text.replace("&", "&amp;")
