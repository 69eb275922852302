"""Where code may be interrupted by an exception without anything being left half done, and how to raise it there.

An exception that arrives between any two instructions finds a lock's own code between taking the lock and saying so,
``__exit__`` before it has cleaned up, an import with half of a module. Where such code runs, from the interrupted frame
up to the block that is limited, the interruption has to wait.

And at a loop's jump backwards CPython 3.11 to 3.13 look the exception up in the wrong row of the exception table: it
escapes the ``try`` or ``with`` around the loop (python/cpython#130279, python/cpython#108214). There it is raised at
the next instruction.
"""

from __future__ import annotations

import _weakrefset
import gc
import logging
import opcode
import os
import queue
import sys
import threading
import weakref
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Final

from otel_introspect.engine.ownership import OUR_DIRECTORY

# Verdicts on a code object.
_SAFE: Final = 0
_UNSAFE: Final = 1  # wherever it stands on the stack
_UNSAFE_INNERMOST: Final = 2  # only while nothing of somebody else's runs inside it
_LOCK: Final = 3  # likewise, and it may be interrupted while it is blocked

PROTECTED: Final = frozenset({"__enter__", "__exit__", "__aenter__", "__aexit__", "__del__"})
"""Methods that set up or clean up: never interrupted, by name."""
# These can be left by an exception while they are blocked: what they wait for has not been taken yet.
_MAY_BE_BLOCKED: Final = frozenset({"wait", "acquire", "join", "_wait_for_tstate_lock"})

_LOGGING: Final = os.path.dirname(logging.__file__) + os.sep
_LOCKS: Final = frozenset({threading.__file__, queue.__file__})
# What is raised in a weak reference's callback is printed and discarded.
_DISCARDING: Final = frozenset({weakref.__file__, _weakrefset.__file__})
_DOORWAYS: Final = (
    os.path.join(OUR_DIRECTORY, "instrumentation") + os.sep,
    os.path.join(OUR_DIRECTORY, "limited.py"),
    os.path.join(OUR_DIRECTORY, "profiled.py"),
)
_SDK: Final = os.path.join("", "opentelemetry", "sdk", "")
_OTEL: Final = os.path.join("", "opentelemetry", "")
_OTEL_WRAPPERS: Final = os.path.join("", "opentelemetry", "instrumentation", "")

# By id, as to hash a code object reads all of it; the code object beside it keeps the id its own.
_verdicts: Final[dict[int, tuple[CodeType, int]]] = {}
_MAX_VERDICTS: Final = 4096


def _verdict(code: CodeType) -> int:
    known = _verdicts.get(id(code))
    if known is not None:
        return known[1]
    verdict = _judge(code)
    if len(_verdicts) >= _MAX_VERDICTS:
        _verdicts.clear()
    _verdicts[id(code)] = (code, verdict)
    return verdict


def _judge(code: CodeType) -> int:
    file = code.co_filename
    if code.co_name in PROTECTED or file.startswith(("<frozen importlib", _LOGGING)) or _SDK in file:
        return _UNSAFE
    if file in _LOCKS:
        return _LOCK
    if file.startswith(OUR_DIRECTORY):
        return _UNSAFE_INNERMOST if file.startswith(_DOORWAYS) else _UNSAFE
    if file in _DISCARDING or (_OTEL in file and _OTEL_WRAPPERS not in file):
        return _UNSAFE_INNERMOST
    return _SAFE


def unsafe_code(frame: FrameType, owner: FrameType | None, *, is_blocked: bool) -> CodeType | None:
    """What must not be interrupted, of all that runs from *frame* outwards to *owner*; None if nothing.

    Args:
        frame: The innermost one.
        owner: The frame that is limited; what lies outside it does not matter.
        is_blocked: Whether the innermost frame has been at the same instruction for a while, so waits for something.
    """
    has_hooks = bool(gc.callbacks) or sys.gettrace() is not None or sys.getprofile() is not None
    innermost: bool = True
    inner: FrameType | None = frame
    while inner is not None and inner is not owner:
        code = inner.f_code
        verdict = _verdict(code)
        if verdict == _UNSAFE:
            return code
        if verdict == _SAFE:
            innermost = False
        elif innermost and not (verdict == _LOCK and is_blocked and frame.f_code.co_name in _MAY_BE_BLOCKED):
            return code
        if has_hooks and _is_hook(inner):
            return code
        inner = inner.f_back
    return None


def _is_hook(frame: FrameType) -> bool:
    """Whether *frame* is a trace or profile function at work, or a callback of the collector's.

    CPython takes off the former if they raise, and discards what the latter raise.
    """
    outer = frame.f_back
    hooks = (sys.gettrace(), sys.getprofile(), outer.f_trace if outer is not None else None, *gc.callbacks)
    return any(_code_of(each) is frame.f_code for each in hooks if each is not None)


def _code_of(function: object) -> object:
    """The code of a function, a method or an object that can be called; None if it is not Python's."""
    for each in (function, getattr(function, "__func__", None), vars(type(function)).get("__call__")):
        code = getattr(each, "__code__", None)
        if code is not None:
            return code
    return None


def is_in_event_loop(frame: FrameType | None) -> bool:
    """Whether an event loop runs on this thread and is at work, and not only waiting for something to do."""
    events = sys.modules.get("asyncio.events")
    if events is None or events._get_running_loop() is None:  # noqa: SLF001 - the documented one raises
        return False
    return frame is None or not frame.f_code.co_filename.endswith(f"{os.sep}selectors.py")


def is_debugged() -> bool:
    """Whether a debugger is attached to this thread."""
    tracer = sys.gettrace()
    bdb = sys.modules.get("bdb")
    if bdb is not None and isinstance(getattr(tracer, "__self__", None), bdb.Bdb):
        return True
    module = getattr(tracer, "__module__", None) or type(tracer).__module__
    if isinstance(module, str) and module.lstrip("_").startswith(("pydevd", "debugpy")):
        return True
    monitoring: Any = getattr(sys, "monitoring", None)
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None


_ESCAPES: Final = (3, 11) <= sys.version_info < (3, 15)
_BACKWARDS: Final = frozenset(
    number for number, name in enumerate(opcode.opname) if _ESCAPES and "JUMP_BACKWARD" in name
)
# A loop of one instruction jumps to itself: every instruction of it is a jump.
_MAX_JUMPS: Final = 2


def is_at_back_edge(frame: FrameType) -> bool:
    """Whether *frame* is at a jump backwards, where an exception would escape."""
    return bool(_BACKWARDS) and frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] in _BACKWARDS


def would_escape(frame: FrameType) -> bool:
    """Whether an exception raised in *frame* from outside would miss the ``try`` that it is in.

    For who can't ambush it: CPython then looks the exception up at the instruction before the jump's target (3.11,
    3.12), or at the jump itself, which no row of the table covers (3.13 on).
    """
    if not is_at_back_edge(frame):
        return False
    code, jump = frame.f_code, frame.f_lasti
    target = _target(code.co_code, jump)
    looked_up = target - 2 if sys.version_info < (3, 13) else jump
    table: bytes = code.co_exceptiontable  # type: ignore[attr-defined,unused-ignore] # from 3.11 on
    return _handler(table, looked_up) != _handler(table, target)


def _target(instructions: bytes, jump: int) -> int:
    distance, factor, at = instructions[jump + 1], 1 << 8, jump - 2
    while at >= 0 and instructions[at] == opcode.EXTENDED_ARG:
        distance += instructions[at + 1] * factor
        factor, at = factor << 8, at - 2
    caches = 1 if sys.version_info >= (3, 13) else 0
    return jump + 2 * (1 + caches - distance)


def _handler(table: bytes, offset: int) -> int | None:
    """Where an exception at *offset* is handled (CPython's Objects/exception_handling_notes.txt has the format)."""
    values = _varints(table)
    for start in values:
        length, target, _depth = next(values), next(values), next(values)
        if start * 2 <= offset < (start + length) * 2:
            return target * 2
    return None


def _varints(table: bytes) -> Iterator[int]:
    value = 0
    for byte in table:
        value = value << 6 | byte & 0x3F
        if not byte & 0x40:
            yield value
            value = 0


def raise_in(frame: FrameType | None, error: BaseException) -> None:
    """Raise *error* in *frame*, whose POSIX signal handler calls this: at once, or at its next instruction.

    Raises:
        BaseException: *error*.
    """
    if frame is None or not is_at_back_edge(frame):
        raise error
    Ambush(frame, error, threading.get_ident()).lay()


def is_out_of_reach(frame: FrameType) -> bool:
    """Whether *frame* is where an exception would escape, and somebody else's trace function is in the way."""
    return sys.gettrace() is not None and _MONITORING is None and would_escape(frame)


_MONITORING: Final[Any] = getattr(sys, "monitoring", None)
# Those that PEP 669 has set aside for nobody.
_FREE_TOOLS: Final = (3, 4)


def clear_ambush() -> None:
    """Take away a trace function of ours that has not been called."""
    if sys.gettrace() is _trace_nothing:
        sys.settrace(None)


def _trace_nothing(_frame: FrameType, _event: str, _argument: object) -> None:
    return None


class Ambush:
    """Raises at the next instruction of one frame.

    By ``sys.monitoring``, which 3.12 and later have. Before that, in this thread, by a trace function: as CPython takes
    off one that raises, there must be no other.

    Args:
        frame: Where to raise.
        error: What.
        thread_id: Which thread runs it.
    """

    def __init__(self, frame: FrameType, error: BaseException, thread_id: int) -> None:
        self._frame = frame
        self._error: BaseException = error
        self._thread_id = thread_id
        self._jumps = 0
        self._tool: int | None = None

    def lay(self) -> None:
        """Lay it in this thread.

        Raises:
            BaseException: The error, where there is no way to lay it.
        """
        if self.monitor():
            return
        if sys.gettrace() is not None:
            raise self._error
        self._trace()

    def _is_over_the_edge(self) -> bool:
        if is_at_back_edge(self._frame) and self._jumps < _MAX_JUMPS:
            self._jumps += 1
            return False
        return True

    def _trace(self) -> None:
        def at_event(_frame: FrameType, event: str, _argument: object) -> object:
            if event == "opcode" and self._is_over_the_edge():
                self._frame.f_trace_opcodes = False
                raise self._error
            return at_event

        self._frame.f_trace = at_event
        self._frame.f_trace_opcodes = True
        # Without one for the thread that of the frame is not called.
        sys.settrace(_trace_nothing)

    def monitor(self) -> bool:
        """Lay it in whichever thread; says whether that is possible."""
        if _MONITORING is None:
            return False
        free = [number for number in _FREE_TOOLS if _MONITORING.get_tool(number) is None]
        if not free:
            return False
        self._tool = free[0]
        _MONITORING.use_tool_id(self._tool, "otel_introspect")
        _MONITORING.register_callback(self._tool, _MONITORING.events.INSTRUCTION, self._at_instruction)
        _MONITORING.set_local_events(self._tool, self._frame.f_code, _MONITORING.events.INSTRUCTION)
        return True

    def _at_instruction(self, _code: CodeType, _offset: int) -> None:
        is_it = threading.get_ident() == self._thread_id and sys._getframe(1) is self._frame  # noqa: SLF001 - documented
        if is_it and self._tool is not None and self._is_over_the_edge():
            self.withdraw()
            raise self._error

    def withdraw(self) -> None:
        """Take it away, if it is still there."""
        tool, self._tool = self._tool, None
        if tool is not None:
            _MONITORING.set_local_events(tool, self._frame.f_code, 0)
            _MONITORING.register_callback(tool, _MONITORING.events.INSTRUCTION, None)
            _MONITORING.free_tool_id(tool)
