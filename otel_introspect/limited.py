"""``timeout`` as a decorator: what stands between a caller and a function whose time is limited.

In a file of its own, as the engine lets what stands here be interrupted while it waits for the function.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from otel_introspect.timeouts import timeout

F = TypeVar("F", bound=Callable[..., Any])

MARK: Final = "__otel_introspect_timeout__"
"""The attribute by which adapters know that a function has a limit of its own; its value is the ``timeout``."""


def limited(limit: timeout, function: F) -> F:
    """*function* with each call under *limit*.

    Raises:
        TypeError: If it can't be called.
    """
    if inspect.isasyncgenfunction(function):
        wrapper: Callable[..., Any] = _async_generator(limit, function)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(limit, function)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(limit, function)
    elif callable(function) and not isinstance(function, type):  # type: ignore[redundant-expr]
        wrapper = _function(limit, function)
    else:
        msg = f"timeout limits functions and methods, not {function!r}; limit the ones that take long"
        raise TypeError(msg)
    setattr(wrapper, MARK, limit)
    return cast("F", wrapper)


def _function(limit: timeout, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they are
        with limit.again():
            return function(*args, **kwargs)

    return call


def _coroutine(limit: timeout, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
        async with limit.again():
            return await function(*args, **kwargs)

    return call


def _generator(limit: timeout, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401 - as above
        running = limit.running_time()
        generator: Generator[Any, Any, Any] = function(*args, **kwargs)
        try:
            with running:
                value = next(generator)
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the generator's
                    with running:
                        value = generator.throw(error)
                else:
                    with running:
                        value = generator.send(sent)
        except StopIteration as stop:
            return stop.value
        finally:
            generator.close()

    return generate


def _async_generator(limit: timeout, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:  # noqa: ANN401 - as above
        running = limit.running_time()
        generator: AsyncGenerator[Any, Any] = function(*args, **kwargs)
        try:
            async with running:
                value = await anext(generator)
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - as above
                    async with running:
                        value = await generator.athrow(error)
                else:
                    async with running:
                        value = await generator.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await generator.aclose()

    return generate
