"""Has what is submitted to pools of threads tell which request it works for; see ``engine.handover``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from wrapt import FunctionWrapper, register_post_import_hook, resolve_path

from otel_introspect.engine import handover
from otel_introspect.faults import fail_open

_MODULE: Final = "concurrent.futures.thread"
_SUBMIT: Final = "ThreadPoolExecutor.submit"

_wanted = False
_hooked = False


def follow() -> None:
    """Wrap what is submitted to a ``ThreadPoolExecutor`` from now on, as soon as there are any. Safe to call again."""
    global _wanted, _hooked  # noqa: PLW0603 - such a hook can't be taken back, so it asks whether it is still wanted
    _wanted = True
    if not _hooked:
        _hooked = True
        register_post_import_hook(lambda _module: _wrap(), _MODULE)
    else:
        _wrap()


def leave() -> None:
    """Undo that. If somebody else has wrapped ours since, it stays, and does nothing."""
    global _wanted  # noqa: PLW0603 - as above
    _wanted = False
    with fail_open("no longer following requests into pools"):
        executor, name, submit = resolve_path(_MODULE, _SUBMIT)
        if isinstance(submit, _Submit):
            setattr(executor, name, submit.__wrapped__)


if TYPE_CHECKING:
    _Wrapper = FunctionWrapper[..., Any]
else:
    _Wrapper = FunctionWrapper  # which older versions of wrapt don't have as a generic


class _Submit(_Wrapper):
    """The wrapped ``submit``, to be recognised."""


def _wrap() -> None:
    with fail_open("following requests into pools"):
        executor, name, submit = resolve_path(_MODULE, _SUBMIT)
        if _wanted and not isinstance(submit, _Submit):
            setattr(executor, name, _Submit(submit, _submit))


def _submit(wrapped: Callable[..., Any], _pool: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - a future
    # On the request's path. There is no origin where nothing is profiled.
    origin = handover.origin_here() if _wanted and args else None
    if origin is None:
        return wrapped(*args, **kwargs)
    return wrapped(handover.handed_over(args[0], origin), *args[1:], **kwargs)
