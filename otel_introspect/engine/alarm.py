"""The alarm: the process's one interval timer with its POSIX signal handler, shared by all who wait in the main thread.

What is wanted: somebody can ask to be called at a point in time, on the main thread, on top of whatever runs there,
and whoever has asked pays nothing for being done before that.

What does not work: to set the timer at the start of each block and clear it at its end costs 0.9 us, with the handler
6 us, and loses the timer of whoever had set it before.

So the timer is left running: it is set only if it would ring too late, and a ring for which nothing is due any more
sets it anew, or gives timer and handler back if nobody waits at all. A running timer survives ``execve``, where
SIGALRM would end the new program: so ``os.execv`` and ``os.execve``, by which all of that module's functions go, are
wrapped while the handler is ours, and stop it. For others it is set no further ahead than one second, where it is not
watched over.

Somebody else may have SIGALRM. A one-shot timer that was running is run for its owner meanwhile, and a handler that
was set from Python is called when it is due; both are back as soon as nobody waits any more. A timer that repeats, and
a handler that Python does not know, can't be given back as they were: then SIGALRM is not taken.

Whoever wants to be called from now on but is on another thread *summons* it, by a POSIX signal to the main thread. For
that the handler must be there already, which only the main thread can set: so it may be told to stand by, with the
handler in place and no timer running.

Some want to interrupt what blocks, others only to look, many times a second. A system call that is cut short is begun
again by Python, but not by every library in C: so for the latter the alarm is *gentle*, system calls that can go on do
(SA_RESTART). And where nobody answers a gentle ring, because somebody waits in C, it stops until it is summoned again.

One wants to be called only if another thread is kept from coming: that thread puts the ring off each time that it
comes (``put_off``), so that as a rule there is none. It finds out then, too, if somebody has taken SIGALRM since,
before a ring of ours could be taken for theirs.

What can still fail: somebody who sets handler or timer while we wait. Then the ring is lost; we leave it to them.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from math import inf
from time import monotonic
from types import FrameType
from typing import Any, Final

from otel_introspect.engine.native import is_main_thread, main_thread_id
from otel_introspect.engine.safe_points import raise_in
from otel_introspect.faults import count

Listener = Callable[[float, FrameType | None], tuple[float, BaseException | None]]
"""Called at each ring with the time and the interrupted frame; says when to ring next, and what to raise there."""

LONGEST: Final = 1.0
"""How far ahead the timer is set at most, in seconds."""
LOST: Final = 0.02
"""A ring that is overdue by so many seconds will not come: somebody has set the timer."""
_SHORTEST: Final = 0.000_02
_SOON: Final = 0.02
# A ring that comes between CPython's look for POSIX signals and a system call is answered only after that: so it comes
# again, until it is answered. Not soon: who waits in C in turns of 0.1 s, as psycopg does, and looks for signals after
# each whole one, must come to that.
_AGAIN: Final = 0.5
# What is asked for so soon after a ring is likely to be asked for again; what differs by a fifth is the same rhythm.
_LEAST_RHYTHM: Final = 0.000_5
_MOST_RHYTHM: Final = 0.02
_ABOUT: Final = 0.8
# A timer that rings so little later than it should is not worth being set anew.
_ABOUT_THEN: Final = 0.005
# A ring that comes earlier than this before its time was sent by somebody else.
_EARLY: Final = 0.001

_REPEATS: Final = "somebody else has a repeating timer on SIGALRM"
_FOREIGN: Final = "somebody else has SIGALRM"

_SIGALRM: Final[int | None] = getattr(signal, "SIGALRM", None)


class Alarm:
    """Rings in the main thread. There is one for a process: ``ALARM``."""

    def __init__(self) -> None:
        self.rings = inf
        """When it rings next, by ``time.monotonic``; in the past or infinite if it is not set."""
        self.is_borrowed = False
        """Whether somebody else had SIGALRM, and wants it back as soon as nobody waits."""
        self._listeners: list[Listener] = []
        self._onlookers: list[Listener] = []
        self._looks: list[Callable[[], float]] = []
        self._dues: list[Callable[[], float]] = []
        self._handler: Final = self._ring  # one object, to be recognised
        self._is_ours = False
        self._previous: Any = None
        self._foreign_due = inf
        self._ringing = False
        self._missed = False
        self._hooked = False
        self.is_standing_by = False
        """Whether it is there for whoever will ``summon``."""
        self._is_summoned = False
        self._quiet_since = inf
        self._rhythm = _AGAIN
        self._is_gentle = False
        self._generation = 0
        self._is_leaving = False
        self._is_lent = False
        """Whether somebody is known to have set the timer while we stand by: their ring is theirs."""
        self.keeps_rhythm = False
        """Whether it may ring again and again, for who samples: that costs a fourth less than a timer that is set anew.
        Who sets this is to call ``fall_silent`` where nobody answers."""

    def stand_by(self) -> bool:
        """Be there for whoever will ``summon``, if nobody else has SIGALRM; False if it can't. Main thread only."""
        if not self._is_ours and self._take(monotonic(), polite=True) is not None:
            return False
        self.is_standing_by = not self.is_borrowed
        self._quiet_since = monotonic()
        return self.is_standing_by

    def dismiss(self) -> None:
        """No longer stand by. From the main thread; elsewhere the handler stays, and does nothing."""
        self.is_standing_by = False
        if self._is_ours and is_main_thread() and min(self._ask(monotonic(), None)[:2]) == inf and not self.is_borrowed:
            self.release()

    def summon(self) -> bool:
        """Ring at once, from any thread; False if there is nobody to ring."""
        if not self._is_ours or signal.getsignal(signal.SIGALRM) is not self._handler:
            return False
        main_thread = main_thread_id()
        if main_thread is None:
            return False
        self._is_summoned = True
        if self._next_due() == inf:
            self._be_gentle(gentle=True)
        ring, number = signal.pthread_kill, signal.SIGALRM
        # Asked again, with no call in between in which the main thread could give SIGALRM back, as it kills then.
        if self._is_ours:
            ring(main_thread, number)
            return True
        return False

    def listen(self, listener: Listener, next_due: Callable[[], float]) -> None:
        """Have *listener* called at each ring, from now on; *next_due* says from any thread when it wants the next."""
        self._listeners.append(listener)
        self._dues.append(next_due)

    def look_on(self, onlooker: Listener, next_look: Callable[[], float] | None = None) -> None:
        """The same for somebody who never raises, and for whom nothing that blocks is to be interrupted."""
        self._onlookers.append(onlooker)
        if next_look is not None:
            self._looks.append(next_look)

    def look_away(self, onlooker: Listener, next_look: Callable[[], float] | None = None) -> None:
        """Call *onlooker* no more."""
        with suppress(ValueError):
            self._onlookers.remove(onlooker)
        if next_look is not None:
            with suppress(ValueError):
                self._looks.remove(next_look)

    def _next_due(self) -> float:
        """When one of those wants to be called who may interrupt."""
        return min((due() for due in self._dues), default=inf)

    def _next_look(self) -> float:
        """When one of those wants to be called who only look, as far as they are not called in a rhythm."""
        return min((look() for look in self._looks), default=inf)

    def _be_gentle(self, *, gentle: bool) -> None:
        if self._is_gentle != gentle:
            self._is_gentle = gentle
            signal.siginterrupt(signal.SIGALRM, not gentle)

    def ring_by(self, when: float, now: float, *, polite: bool = False, gentle: bool = False) -> str | None:
        """Ring at *when* at the latest, or within a second: main thread only.

        Args:
            when: By ``time.monotonic``.
            now: The time.
            polite: Leave SIGALRM to whoever has it, even if it could be given back.
            gentle: For an onlooker.

        Returns:
            Why not; None if it will.
        """
        if not self._is_ours or signal.getsignal(signal.SIGALRM) is not self._handler:
            why_not = self._take(now, polite=polite)
            if why_not is not None:
                return why_not
        elif self.rings == inf or self._is_replaced(*signal.getitimer(signal.ITIMER_REAL)):
            why_not = self._make_way(now, polite=polite)
            if why_not is not None:
                return why_not
        if self.rings > when:
            self._be_gentle(gentle=gentle and self._next_due() > when)
            self._set(when, now)
        elif self.rings < now - LOST:
            self._set(now, now)  # at once: who else waits is known when it rings
        return None

    def _make_way(self, now: float, *, polite: bool) -> str | None:
        """While it stood by, somebody may have set the timer, to end the process: that is kept as in ``_take``."""
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if not left:
            return None
        if interval:
            return _REPEATS
        if polite:
            return _FOREIGN
        self._foreign_due = now + left
        self.is_borrowed, self.is_standing_by = True, False
        return None

    def _take(self, now: float, *, polite: bool) -> str | None:
        if _SIGALRM is None:
            return "this platform has no SIGALRM"
        current = signal.getsignal(_SIGALRM)
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if current is None:
            return "SIGALRM has a handler that was not set from Python"
        if interval:
            return _REPEATS
        if polite and (callable(current) or left):
            return _FOREIGN
        if not self._hooked:
            self._hooked = True
            os.register_at_fork(after_in_child=self._forked)
            # As the interpreter ends it takes all handlers off: a ring would then end the process its own way.
            atexit.register(self.release)
        try:
            signal.signal(_SIGALRM, self._handler)
        except ValueError:
            return "this is not the main thread of the main interpreter"
        self._is_gentle = False
        _wrap_exec()
        self._previous = current
        self._foreign_due = now + left if left else inf
        self.is_borrowed = callable(current) or left > 0
        self._is_ours = True
        return None

    def _set(self, when: float, now: float) -> None:
        # What is gentle is put off, and taken back as soon as nobody looks.
        longest = inf if self._is_gentle else LONGEST
        delay = min(max(min(when, self._foreign_due) - now, _SHORTEST), longest)
        # In this order: a ring in between sets a time of its own, which is then noted last.
        self._generation += 1
        signal.setitimer(signal.ITIMER_REAL, delay, _AGAIN)
        self._rhythm = _AGAIN
        self.rings = now + delay

    def nobody_looks(self) -> None:
        """An onlooker has nothing to look at any more; from any thread.

        Unless another has, the timer stops at once in the main thread, as a program that took this one's place would be
        ended by it.
        """
        if not is_main_thread():
            self.fall_silent()
        elif (
            self._is_ours
            and self._is_gentle
            and min(self._next_due(), self._foreign_due) == inf
            and signal.getsignal(signal.SIGALRM) is self._handler
            and signal.getitimer(signal.ITIMER_REAL)[1]
        ):
            look = self._next_look()
            if look == inf:
                self._rest()
            else:
                self._set(look, monotonic())

    def put_off(self, when: float) -> bool:
        """Have onlookers called at *when*, and not before, as far as it is up to them; from any thread.

        Returns:
            Whether they will be; not where SIGALRM is somebody else's.
        """
        if self._would_kill() or not self.is_standing_by:
            return False
        now = monotonic()
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if signal.getsignal(signal.SIGALRM) is not self._handler:
            # Whoever has it now would take a ring of ours for their own.
            if left and not self._is_replaced(left, interval):
                signal.setitimer(signal.ITIMER_REAL, 0)
            return False
        if self._is_replaced(left, interval):
            self.rings, self._is_lent = inf, True
            return False
        self._is_lent = False
        strict = min(self._next_due(), self._foreign_due)
        rings = now + left
        # What is due has rung, and does so again: if it did sooner, who waits in C in turns would never come to answer.
        if left and (strict <= now or self._rhythm != _AGAIN or (not self._is_gentle and rings <= when)):
            return True  # it rings sooner anyway, and asks everybody then
        target = min(when, strict)
        if left and self._is_gentle == (when < strict) and -_EARLY < rings - target < _ABOUT_THEN:
            return True
        generation = self._generation
        self._be_gentle(gentle=when < strict)
        # In this order: who has something due sooner puts that down first and looks at this then.
        self.rings = max(target, now + _SHORTEST)
        delay = max(target - now, _SHORTEST)
        signal.setitimer(signal.ITIMER_REAL, min(delay, inf if self._is_gentle else LONGEST), _AGAIN)
        if self._would_kill():
            signal.setitimer(signal.ITIMER_REAL, 0)
        elif self._generation != generation or min(self._next_due(), self._foreign_due) < strict:
            # The main thread has set it meanwhile, or has relied on its ringing sooner: that is to set it itself.
            signal.setitimer(signal.ITIMER_REAL, _SHORTEST, _AGAIN)
        return True

    @staticmethod
    def _is_replaced(left: float, interval: float) -> bool:
        """Whether that timer is one that somebody else has set: ours repeat."""
        return left > 0 and not (abs(interval - _AGAIN) < _EARLY or 0 < interval < 2 * _MOST_RHYTHM)

    def _is_somebody_else_s(self) -> bool:
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if self.is_borrowed:
            return False
        if self._is_replaced(left, interval):
            self.rings, self._is_lent = inf, True
        return self.rings == inf and left > 0

    def _would_kill(self) -> bool:
        """Whether the main thread has just given SIGALRM back, or gives its place to another program."""
        return self._is_leaving or not self._is_ours

    def is_unanswered(self, now: float, patience: float) -> bool:
        """Whether a gentle ring has been due for so many seconds; from any thread."""
        return self._is_gentle and self.rings < now - patience

    def fall_silent(self) -> None:
        """Ring no more for onlookers, until it is summoned; from any thread.

        Who waits in C in turns, and begins the turn anew each time that it is interrupted, would never come to look for
        POSIX signals: neither to be sampled nor to be interrupted.
        """
        if not self._is_ours or not self._is_gentle or signal.getsignal(signal.SIGALRM) is not self._handler:
            return
        if not signal.getitimer(signal.ITIMER_REAL)[1]:
            return  # none of ours, as they all repeat
        generation = self._generation
        self._rhythm = _AGAIN
        due = min(self._next_due(), self._foreign_due)
        look = self._next_look()
        if min(due, look) == inf:
            # A ring of ours may wait for the main thread to look: when it has, that is not to be taken for another's.
            now = monotonic()
            self._quiet_since = inf if self.rings < now + _EARLY else now
            self.rings = inf
            signal.setitimer(signal.ITIMER_REAL, 0)
        elif look < due:
            delay = max(look - monotonic(), _SOON)
            self.rings = monotonic() + delay
            signal.setitimer(signal.ITIMER_REAL, delay, _AGAIN)
        else:
            self._be_gentle(gentle=False)
            signal.setitimer(signal.ITIMER_REAL, min(max(due - monotonic(), _SOON), LONGEST), _AGAIN)
        if not self._is_ours:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the main thread has just given it back, and it would kill
        elif self._generation != generation:
            # The main thread has come back and has set the timer, which we may have undone: it is to do so again.
            self._rhythm = _AGAIN
            signal.setitimer(signal.ITIMER_REAL, _SHORTEST, _AGAIN)

    def release(self) -> None:
        """Give back handler and timer, the latter with the time that it has left. Main thread only."""
        if not self._is_ours:
            return
        self._is_ours = False  # from here on a ring is nobody's
        self.is_standing_by = False
        self.is_borrowed = False
        self.rings = inf
        previous, self._previous = self._previous, None
        due, self._foreign_due = self._foreign_due, inf
        _unwrap_exec()
        if signal.getsignal(signal.SIGALRM) is not self._handler:
            return  # it has been taken since, timer and all
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if due != inf:
            signal.setitimer(signal.ITIMER_REAL, max(due - monotonic(), _SHORTEST))

    def leave(self, take_our_place: Callable[[], None]) -> None:
        """Have no timer of ours running in the program that is to take this one's place."""
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if not self._is_ours or not interval:
            take_our_place()
            return
        self._is_leaving = True
        due = self._foreign_due
        signal.setitimer(signal.ITIMER_REAL, max(due - monotonic(), _SHORTEST) if due != inf else 0)
        try:
            take_our_place()
        finally:  # it could not
            self._is_leaving = False
            signal.setitimer(signal.ITIMER_REAL, max(left, _SHORTEST), interval)

    def _go_on(self, due: float, look: float, now: float) -> None:
        """Ring at *due*, when somebody may interrupt, and at *look* for onlookers."""
        strict = min(due, self._foreign_due)
        if min(strict, look) == inf:
            self._rest()
            return
        is_gentle = look < strict
        self._be_gentle(gentle=is_gentle)
        pause = look - now
        if not self.keeps_rhythm or not is_gentle or not _LEAST_RHYTHM <= pause <= _MOST_RHYTHM:
            self._set(min(due, look), now)
        elif self._rhythm * _ABOUT < pause < self._rhythm / _ABOUT:
            self.rings = now + self._rhythm
        else:
            self._rhythm = pause
            self._generation += 1
            signal.setitimer(signal.ITIMER_REAL, pause, pause)
            self.rings = look

    def _rest(self) -> None:
        """Nobody waits any more."""
        if self.is_standing_by and not self.is_borrowed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.rings, self._rhythm = inf, _AGAIN
            self._quiet_since = monotonic()
        else:
            self.release()

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        # Runs between two instructions of the main thread: takes no lock, logs nothing, calls nobody's code but that of
        # the owner whom SIGALRM had before us.
        if not self._is_ours:
            return
        if self._ringing:
            self._missed = True
            return
        self._ringing = True
        now = monotonic()
        is_summoned, self._is_summoned = self._is_summoned, False
        was_resting = self.rings == inf
        is_lent, self._is_lent = self._is_lent and not is_summoned, False
        if is_summoned and self._is_somebody_else_s():
            self._ringing = False  # set while it stood by: they are to have it
            return
        # Ours repeats until it is answered: what goes off once, and that late, was set by somebody else.
        is_late = not is_summoned and now - self.rings > LONGEST and not signal.getitimer(signal.ITIMER_REAL)[1]
        is_stray = is_late or (now < self.rings - _EARLY and not is_summoned)
        self.rings = inf
        due, look, error = self._ask(now, frame)
        is_owners = now >= self._foreign_due or (is_stray and self._foreign_due == inf)
        if is_owners:
            self._foreign_due = inf if error is None else now  # not both at once: it has the next ring
        # Nobody of ours has set a timer for long: somebody who has counted on what it does by default, ``alarm(60)``.
        is_quiet = is_late or (was_resting and now - self._quiet_since > LONGEST)
        is_foreign = is_stray and (is_lent or (is_quiet and min(due, look) == inf))
        previous = self._previous
        # Before anything is raised: whoever waits beside that still has their time.
        self._go_on(due, look, now)
        self._ringing = False
        # In this order: what rings between the two is answered, what rang before is asked again.
        if self._missed:
            self._missed = False
            if self._is_ours:
                self._set(now, now)
        if error is not None:
            raise_in(frame, error)
        elif is_owners and callable(previous):
            previous(signum, frame)
        elif is_owners and previous is signal.SIG_DFL and (not is_stray or is_foreign):
            # As it would have been without us: that timer was set to end the process.
            self.release()
            signal.raise_signal(signum)

    def _ask(self, now: float, frame: FrameType | None) -> tuple[float, float, BaseException | None]:
        due, look, error = inf, inf, None
        for listener in self._listeners:
            try:
                when, wanted = listener(now, frame)
            except Exception:  # noqa: BLE001 - it would come out of any line of the application
                count("failed", "answering the alarm")
            else:
                due = min(due, when)
                error = error or wanted
        for onlooker in tuple(self._onlookers):
            try:
                look = min(look, onlooker(now, frame)[0])
            except Exception:  # noqa: BLE001 - as above
                count("failed", "answering the alarm")
        return due, look, error

    def _forked(self) -> None:
        # The child has the handler, but no timer.
        self._foreign_due = inf
        self._ringing = self._missed = False
        with suppress(ValueError):
            self.release()


ALARM: Final = Alarm()
"""The process's own."""

_EXEC: Final = ("execv", "execve")
_wrapped: Final[dict[str, tuple[Callable[..., None], Callable[..., None]]]] = {}


def _wrap_exec() -> None:
    for name in _EXEC:
        original = getattr(os, name)
        if name not in _wrapped:
            _wrapped[name] = (original, _leaving_by(original))
            setattr(os, name, _wrapped[name][1])


def _unwrap_exec() -> None:
    for name in _EXEC:
        original, ours = _wrapped.get(name, (None, None))
        if ours is not None and getattr(os, name) is ours:  # else somebody has wrapped it since, and may call it
            setattr(os, name, original)
            del _wrapped[name]


def _leaving_by(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def exec_(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they are
        ALARM.leave(lambda: original(*args, **kwargs))

    return exec_
