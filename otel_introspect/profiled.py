"""``profile`` as a decorator: what stands between a caller and a function that is profiled.

In a file of its own, as the engine lets what stands here be interrupted while it waits for the function.
"""

# ruff: noqa: ANN401 - arguments and results are handed on as they are

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from otel_introspect.profiles import Profile

F = TypeVar("F", bound=Callable[..., Any])


def profiled(function: F, pattern: Profile) -> F:
    """*function* with each call in a profile like *pattern*.

    Raises:
        TypeError: If it can't be called.
    """
    if inspect.isasyncgenfunction(function):
        wrapper: Callable[..., Any] = _async_generator(function, pattern)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function, pattern)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, pattern)
    elif callable(function) and not isinstance(function, (type, staticmethod)):  # type: ignore[redundant-expr]
        wrapper = _function(function, pattern)
    else:
        msg = f"profile decorates functions and methods, not {function!r}; under classmethod, staticmethod and property"
        raise TypeError(msg)
    return cast("F", wrapper)


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _function(function: Callable[..., Any], pattern: Profile) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with pattern.another(_name_of(function)):
            return function(*args, **kwargs)

    return call


def _coroutine(function: Callable[..., Any], pattern: Profile) -> Callable[..., Any]:
    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with pattern.another(_name_of(function)):
            return await function(*args, **kwargs)

    return call


def _generator(function: Callable[..., Any], pattern: Profile) -> Callable[..., Any]:
    @wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with pattern.another(_name_of(function)):
            return (yield from function(*args, **kwargs))

    return generate


def _async_generator(function: Callable[..., Any], pattern: Profile) -> Callable[..., Any]:
    @wraps(function)
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with pattern.another(_name_of(function)):
            generator: AsyncGenerator[Any, Any] = function(*args, **kwargs)
            try:
                value = await anext(generator)
                while True:
                    try:
                        sent = yield value
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - it is the generator's
                        value = await generator.athrow(error)
                    else:
                        value = await generator.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await generator.aclose()

    return generate
