"""Where a span's code runs: on a thread, or in a task of an event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from itertools import islice
from sys import modules
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol
from weakref import ref

from otel_introspect.engine.native import get_ident
from otel_introspect.engine.stacks import MAX_COUNTED, Capture, Position, outwards, positions_of, trimmed

if TYPE_CHECKING:
    from otel_introspect.engine.locals import TakenLocals

TaskState = Literal["running", "awaiting", "switched_out"]
_MAX_CHAIN: Final = 1000
_PARKABLE: Final = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
# Of which one is looked for that runs.
_MAX_TASKS: Final = 200


class Sighting(NamedTuple):
    """What was seen at a place: the stack, its thread, the task's state where there are tasks, and the variables."""

    capture: Capture
    thread_id: int
    task_state: TaskState | None = None
    locals: TakenLocals | None = None


TakeLocals = Callable[[Sequence[FrameType], Sequence[Position], Capture, Collection[FrameType]], "TakenLocals | None"]
"""Given frames, where each was, what was kept of that, and where the caller has frames, too; see ``LocalsTaker``."""


GREENLETS: Final = "gevent.monkey"
"""The module that whoever has threads replaced by greenlets has loaded."""


class Stack(NamedTuple):
    """The frames at a place, innermost first: let go of them soon, as each holds its local variables alive."""

    frames: Iterable[FrameType]
    thread_id: int
    task_state: TaskState | None = None


class Place(Protocol):
    """Something whose stack can be looked up from another thread."""

    @property
    def thread_id(self) -> int | None:
        """The thread on which its code runs when it runs; None if that is not known now."""
        ...

    def stack(self, frames: Mapping[int, FrameType]) -> Stack | None:
        """The stack now, given the innermost frame of each thread; None if there is none to be seen."""
        ...


def look(place: Place, frames: Mapping[int, FrameType], take_locals: TakeLocals | None = None) -> Sighting | None:
    """Take down the stack at *place* now, given the innermost frame of each thread; None if there is none.

    *take_locals* is asked for the variables, of the same frames.
    """
    stack = place.stack(frames)
    if stack is None:
        return None
    each, thread_id, task_state = stack
    found = list(islice(each, MAX_COUNTED))
    del stack, each  # who takes variables looks at who else holds the frames
    if isinstance(place, ThreadPlace) and _is_torn(found):
        return None
    positions = positions_of(found)
    seen = trimmed(positions)
    taken = None if take_locals is None else take_locals(found, positions, seen, frames.values())
    return Sighting(seen, thread_id, task_state, taken)


def _is_torn(found: Sequence[FrameType]) -> bool:
    """Whether the frames of a thread end where none begins: in a generator, which somebody calls while it runs.

    The thread has gone on since its innermost frame was looked up, and the generator is parked, without a caller.
    """
    return bool(found) and bool(found[-1].f_code.co_flags & _PARKABLE) and found[-1].f_back is None


class ThreadPlace:
    """A thread that does one thing at a time."""

    __slots__ = ("thread_id",)

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id

    def stack(self, frames: Mapping[int, FrameType]) -> Stack | None:
        """The stack of the thread."""
        frame = frames.get(self.thread_id)
        return None if frame is None else Stack(outwards(frame), self.thread_id)


class GreenletPlace:
    """A greenlet, which shares its thread with others.

    Args:
        greenlet: Whose stack it is.
        thread_id: The thread that runs it.
    """

    __slots__ = ("_greenlet", "thread_id")

    def __init__(self, greenlet: Any, thread_id: int) -> None:  # noqa: ANN401 - the package greenlet may not be there
        self._greenlet = ref(greenlet)  # weak for the same reason as a task's
        self.thread_id = thread_id

    def stack(self, frames: Mapping[int, FrameType]) -> Stack | None:
        """The stack of the greenlet, as it was left when another one took its turn, or as it runs. Never another's."""
        greenlet = self._greenlet()
        if greenlet is None or greenlet.dead:
            return None
        left_at = greenlet.gr_frame
        if left_at is not None:
            return Stack(list(outwards(left_at)), self.thread_id, "switched_out")
        frame = frames.get(self.thread_id)
        if frame is None:
            return None
        found = list(outwards(frame))
        if _is_torn(found):
            return None
        stack = Stack(found, self.thread_id, "running")
        # It has no frame to show while it runs; if it has one now, the thread's stack may have been another's already.
        return stack if greenlet.gr_frame is None and not greenlet.dead else None


class Handoff(NamedTuple):
    """How a framework lets a task's synchronous parts run on a thread of their own.

    Args:
        waiting: The code of the coroutine in which the task waits for that thread.
        serving: The code of the function in which that thread takes such work and does it.
    """

    waiting: CodeType
    serving: CodeType


class TaskPlace:
    """A task, which shares its event loop's thread with others and may wait for work of its own on another thread.

    Args:
        task: Whose stack it is.
        loop_thread_id: The thread that runs the task's event loop.
        worker_id: The thread that serves the task's synchronous parts, if it is known.
        handoff: How it is known that the task waits for that thread and that the thread works for it.
    """

    __slots__ = ("_task", "handoff", "thread_id", "worker_id")

    def __init__(
        self,
        task: asyncio.Task[Any],
        loop_thread_id: int,
        worker_id: int | None = None,
        handoff: Handoff | None = None,
    ) -> None:
        # Weak: a task that nobody else holds any more is to go, as it would without us.
        self._task = ref(task)
        self.thread_id: int = loop_thread_id
        self.worker_id = worker_id
        self.handoff = handoff

    def stack(self, frames: Mapping[int, FrameType]) -> Stack | None:
        """The stack of the task: of its thread while it runs, its chain of awaits while it is parked.

        Never a frame of another task: the loop's thread is shown only down from this task's own outermost frame.
        """
        task = self._task()
        if task is None:
            return None
        if is_current(task):
            return self._running(task, frames)
        if getattr(task.get_coro(), "cr_running", False):
            # A task that it has begun eagerly runs on top of it; or it has gone on to run just now.
            return self._running(task, frames)
        return self._parked(task, frames)

    def is_of(self, task: asyncio.Task[Any]) -> bool:
        """Whether this is the place of *task*."""
        return self._task() is task

    def _running(self, task: asyncio.Task[Any], frames: Mapping[int, FrameType]) -> Stack | None:
        outermost = _frame_of(task.get_coro())
        stack = []
        for frame in outwards(frames.get(self.thread_id)):
            stack.append(frame)
            if frame is outermost:
                return Stack(stack, self.thread_id, "running")
        # Its outermost frame is not there: the thread has gone on to something else since its frames were taken.
        return None

    def _parked(self, task: asyncio.Task[Any], frames: Mapping[int, FrameType]) -> Stack | None:
        running = current_task_of(task)
        waiting = _wait_of(task, running)
        chain = waiting.frames
        if not chain or is_current(task):
            return None  # it has ended, or runs again: what was walked may be torn
        if waiting.innermost is running and running is not None:
            # A task of its own, which it waits for, is what runs.
            inner = self._running(running, frames)
            if inner is not None:
                return Stack([*inner.frames, *reversed(chain[: waiting.begins])], self.thread_id, "running")
        if self.handoff is not None and self.worker_id is not None and chain[-1].f_code is self.handoff.waiting:
            served = _served_by(frames.get(self.worker_id), self.handoff.serving)
            if served:
                return Stack([*served, *reversed(chain)], self.worker_id, "running")
        return Stack(list(reversed(chain)), self.thread_id, "awaiting")


def here() -> int | Place:
    """Where the caller runs: in a task, in a greenlet; the thread's id if in neither."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented as meant for those who build on event loops
        task = asyncio.current_task()
        return get_ident() if task is None else TaskPlace(task, get_ident())
    greenlet = modules.get("greenlet") if GREENLETS in modules else None  # others load it, too
    return get_ident() if greenlet is None else GreenletPlace(greenlet.getcurrent(), get_ident())


def current_task_of(task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
    """The task that the event loop of *task* runs at this moment; from any thread."""
    try:
        return asyncio.current_task(task.get_loop())
    except RuntimeError:  # 3.14: the loop is closed or runs nowhere
        return None


def is_current(task: asyncio.Task[Any]) -> bool:
    """Whether *task* is the one that its event loop runs at this moment; from any thread."""
    return current_task_of(task) is task


def _served_by(frame: FrameType | None, serving: CodeType) -> list[FrameType]:
    """The frames of the work that a serving thread does now, innermost first; none if it waits for work."""
    inside: list[FrameType] = []
    for each in outwards(frame):
        if each.f_code is serving:
            # While it waits, what it calls is a queue or a lock; while it works, a work item from its own file.
            works = bool(inside) and inside[-1].f_code.co_filename == serving.co_filename
            return inside if works else []
        inside.append(each)
    return []


def await_chain(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames of a parked task from its outermost coroutine to the ``await`` it is parked on.

    Goes on into another task where the first one waits for it: directly, or through ``gather``, ``shield``,
    ``wait_for`` or ``wait``; of several, into the first that is not done.
    """
    return _wait_of(task, None).frames


class _Wait(NamedTuple):
    """What a parked task waits for.

    Args:
        frames: See ``await_chain``.
        innermost: The last task in it.
        begins: The index of that one's first frame.
    """

    frames: list[FrameType]
    innermost: asyncio.Task[Any]
    begins: int


def _wait_of(task: asyncio.Task[Any], running: asyncio.Task[Any] | None) -> _Wait:
    """See ``await_chain``; of several tasks that one waits for, goes on into the one that leads to *running*."""
    first: _Wait | None = None
    seen = {id(task)}
    # Depth first, the first of several first; each with what leads to it.
    rest: list[tuple[asyncio.Task[Any], list[FrameType]]] = [(task, [])]
    while rest:
        waiting, before = rest.pop()
        chain = [*before, *_own_chain(waiting, _MAX_CHAIN - len(before))]
        found = _Wait(chain, waiting, len(before))
        if waiting is running:
            return found
        behind: list[asyncio.Task[Any]] = []
        for each in _tasks_behind(getattr(waiting, "_fut_waiter", None), chain[-1] if chain else None):
            if id(each) not in seen and len(seen) < _MAX_TASKS:
                seen.add(id(each))
                behind.append(each)
        if first is None and not behind:
            first = found  # where nobody runs, it is the first of those that wait
        if running is None and first is not None:
            break
        rest += [(each, chain) for each in reversed(behind)]
    return first if first is not None else _Wait([], task, 0)


def _own_chain(task: asyncio.Task[Any], room: int) -> list[FrameType]:
    """The frames of a task itself, outermost first."""
    chain: list[FrameType] = []
    awaited: object = task.get_coro()
    while awaited is not None and len(chain) < room:
        frame = _frame_of(awaited)
        if frame is not None:
            chain.append(frame)
        awaited = _awaited_by(awaited)
    return chain


def _frame_of(awaitable: object) -> FrameType | None:
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        frame = getattr(awaitable, name, None)
        if isinstance(frame, FrameType):
            return frame
    return None


# They stand between two coroutines and have no attribute that leads on.
_OPAQUE: Final = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"})


def _awaited_by(awaitable: object) -> object:
    for name in ("cr_await", "gi_yieldfrom", "ag_await"):
        awaited: object = getattr(awaitable, name, None)
        if awaited is not None:
            return awaited
    if type(awaitable).__name__ in _OPAQUE:
        for referent in gc.get_referents(awaitable):
            if type(referent).__name__ in _OPAQUE or _frame_of(referent) is not None:
                result: object = referent
                return result
    return None


def _tasks_behind(future: object, parked_at: FrameType | None) -> list[asyncio.Task[Any]]:
    """The tasks that another one waits for, also where asyncio puts a plain future in between."""
    if isinstance(future, asyncio.Task):
        return [future]
    behind: list[object] = list(getattr(future, "_children", ()))  # of gather
    if parked_at is not None and any(parked_at.f_code is each for each in _WAITERS):
        # asyncio's own frames: the only ones whose locals we read.
        awaited = parked_at.f_locals.get("fut", parked_at.f_locals.get("fs", ()))
        behind += [awaited] if isinstance(awaited, asyncio.Future) else list(awaited)
    elif parked_at is not None and any(parked_at.f_code is each for each in _GROUPS):
        behind += list(getattr(parked_at.f_locals.get("self"), "_tasks", ()))
    for callback, *_ in getattr(future, "_callbacks", None) or ():  # of shield: the inner one is in its callback
        behind += [cell.cell_contents for cell in getattr(callback, "__closure__", None) or ()]
    return [each for each in behind if isinstance(each, asyncio.Task) and not each.done()]


# wait_for waits for a future of its own up to 3.11; wait always does.
_WAITERS: Final[tuple[CodeType, ...]] = tuple(
    code
    for name in ("wait_for", "_wait")
    if (code := getattr(getattr(asyncio.tasks, name, None), "__code__", None)) is not None
)
# A group waits for a future of its own: in ``__aexit__`` up to 3.12, then in what that calls.
_GROUPS: Final[tuple[CodeType, ...]] = tuple(
    code
    for name in ("__aexit__", "_aexit")
    if (code := getattr(getattr(getattr(asyncio, "TaskGroup", None), name, None), "__code__", None)) is not None
)
