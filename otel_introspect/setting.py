"""How one setting is read: from an environment variable or from code, under the same rules.

The environment is forgiven (a warning, once, and the default), code is held to account (``ConfigurationError``).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, Final, TypeVar

from otel_introspect.errors import ConfigurationError
from otel_introspect.faults import tell_once

T = TypeVar("T")
Parser = Callable[[object], Any]
"""Turns text or an already typed value into the setting's value; raises ``ValueError`` with what was expected."""

_PARSER: Final = "otel_introspect.parser"
_VARIABLE: Final = "otel_introspect.variable"
_MAX_INTEGER: Final = 2**31 - 1
_MAX_SHOWN: Final = 60
_DOTTED_PATH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*([.:][^\W\d]\w*)")


def setting(variable: str, parser: Parser, default: Any) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A dataclass field that also can be set by the environment *variable*."""
    return field(default=default, metadata={_VARIABLE: variable, _PARSER: parser})


def variables_of(config: type[Any]) -> dict[str, str]:
    """The environment variable of each field of a settings class."""
    return {each.name: each.metadata[_VARIABLE] for each in fields(config) if _VARIABLE in each.metadata}


def read(config: type[T], environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None) -> T:
    """Make a settings object: *overrides* before *environ* before the defaults.

    A value that is not understood is warned about once and ignored, wherever it came from: overrides reach us from a
    configuration file too, and must not stop the service that is starting.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for each in fields(config):  # type: ignore[arg-type]  # T has no bound that says "dataclass"
        if _VARIABLE not in each.metadata:
            continue
        variable, parser = each.metadata[_VARIABLE], each.metadata[_PARSER]
        override = (overrides or {}).get(each.name)
        candidates: list[tuple[str, object]] = [(each.name, override)] if override is not None else []
        raw = environ.get(variable, "").strip()
        if raw:
            candidates.append((variable, raw))
        for source, value in candidates:
            try:
                values[each.name] = parser(value)
            except ValueError as error:
                _warn(source, value, each.default, error)
                continue
            break
    return config(**values)


def problem(config: type[Any], variable: str, raw: str) -> str | None:
    """Why *raw* would not do as the value of *variable*, or None if it would."""
    for each in fields(config):
        if each.metadata.get(_VARIABLE) == variable and raw.strip():
            try:
                each.metadata[_PARSER](raw.strip())
            except ValueError as error:
                return str(error)
    return None


def check(instance: object) -> None:
    """Hold values given in code to account; for ``__post_init__`` of a frozen settings class.

    Raises:
        ConfigurationError: If a value is not one that the field can have.
    """
    for each in fields(instance):  # type: ignore[arg-type]  # as above
        if _PARSER not in each.metadata:
            continue
        value = getattr(instance, each.name)
        if value == each.default and each.default is not MISSING:
            continue
        try:
            parsed = each.metadata[_PARSER](value)
        except ValueError as error:
            msg = f"{each.name}={value!r} is {error}"
            raise ConfigurationError(msg) from None
        object.__setattr__(instance, each.name, parsed)


def _warn(source: str, value: object, default: object, error: ValueError) -> None:
    shown = repr(value)
    if len(shown) > _MAX_SHOWN:
        shown = shown[:_MAX_SHOWN] + "..."
    tell_once(logging.WARNING, "%s=%s is %s. It is ignored; the default is %r.", source, shown, error, default)


def integer(minimum: int, maximum: int = _MAX_INTEGER) -> Parser:
    """A whole number between *minimum* and *maximum*, both included."""

    def parse(value: object) -> int:
        # int() takes "1_000", " 5 " and other scripts' digits, and raises on 5,000 digits; the specification takes
        # none.
        text = value if isinstance(value, str) else repr(value) if type(value) is int else ""
        if re.fullmatch(r"[+-]?[0-9]{1,15}", text) and minimum <= int(text) <= maximum:
            return int(text)
        top = "" if maximum == _MAX_INTEGER else f" and {maximum} at most"
        msg = f"not a whole number of {minimum} at least{top}"
        raise ValueError(msg)

    return parse


def ratio(value: object) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        number = -1.0
    else:
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = -1.0
    if 0 <= number <= 1:
        return number
    msg = "not a number from 0 to 1"
    raise ValueError(msg)


def boolean(value: object) -> bool:
    """``true`` or ``false``, in any case."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    msg = "neither true nor false"
    raise ValueError(msg)


def one_of(*choices: str) -> Parser:
    """One word out of *choices*."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        msg = f"not one of {', '.join(choices)}"
        raise ValueError(msg)

    return parse


def any_of(*choices: str, alone: str | None = None) -> Parser:
    """A comma-separated list, or a sequence, of words out of *choices*; *alone* is a word for the empty list."""

    def parse(value: object) -> tuple[str, ...]:
        words = value.split(",") if isinstance(value, str) else value
        if isinstance(words, (list, tuple, set, frozenset)) and all(isinstance(word, str) for word in words):
            words = [word.strip().lower() for word in words if word.strip()]
            if alone is not None and words in ([], [alone]):
                return ()
            if words and set(words) <= set(choices):
                return tuple(choice for choice in choices if choice in words)
        msg = f"not a list of {', '.join(choices)}" + (f", nor {alone}" if alone else "")
        raise ValueError(msg)

    return parse


def text(value: object) -> str:
    """Any text."""
    if isinstance(value, str):
        return value
    msg = "not a text"
    raise ValueError(msg)


def dotted_path(value: object) -> str:
    """Where a callable is found: ``package.module.name`` or ``package.module:name``."""
    if isinstance(value, str) and _DOTTED_PATH.fullmatch(value):
        return value
    msg = "not a dotted path such as package.module.callable"
    raise ValueError(msg)


def url_patterns(value: object) -> str:
    """Comma-separated regular expressions, each of which compiles."""
    if not isinstance(value, str):
        msg = "not a comma-separated list of regular expressions"
        raise ValueError(msg)  # noqa: TRY004 - a parser says ValueError, whatever is wrong
    for pattern in value.split(","):
        try:
            re.compile(pattern.strip())
        except (re.error, RecursionError, OverflowError) as error:
            msg = f"not a comma-separated list of regular expressions ({pattern.strip()[:_MAX_SHOWN]!r}: {error})"
            raise ValueError(msg) from None
    return value
