"""How one setting is read: from an environment variable or from code, under the same rules.

The environment is forgiven (a warning, once, and the default), code is held to account (``ConfigurationError``).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_introspect.errors import ConfigurationError
from otel_introspect.faults import tell_once

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_kwargs: object) -> Callable[[T], T]:
        """For type checkers only (in ``typing`` since 3.11)."""
        return lambda cls: cls


T = TypeVar("T")
Parser = Callable[[object], Any]
"""Turns text or an already typed value into the setting's value; raises ``ValueError`` with what was expected."""

_PARSER: Final = "otel_introspect.parser"
_VARIABLE: Final = "otel_introspect.variable"
_SECRET: Final = frozenset({"key", "password"})
_MAX_INTEGER: Final = 2**31 - 1
_MAX_SHOWN: Final = 60
# None of these is compiled here: each start of each process would pay for what few of them need.
_DOTTED_PATH: Final = r"[^\W\d]\w*(\.[^\W\d]\w*)*([.:][^\W\d]\w*)"
# By its suffix: without one, shop/views.late would be a template, and late.html a module with a callable in it.
_TEMPLATE: Final = r"[\w.-]+(/[\w.-]+)*\.(html?|txt|json|xml|jinja2?|j2)"
_ADDRESS: Final = r"[^\s@<>,;:\"()\\]+(@[^\s@<>,;:\"()\\]+)?"
_SENDER: Final = rf"{_ADDRESS}|[^<>@\x00-\x1f\x7f]*<{_ADDRESS}>"


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
                _warn(source, _shown(each.name, value), each.default, error)
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


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
class Settings:
    """Base of the frozen dataclasses that hold settings: checked, comparable, printable without their secrets.

    A subclass is a dataclass by being one. What ``dataclass`` would generate for each of them is written here once, as
    generating it would cost every start of every process 0.2 ms for each.

    Raises:
        ConfigurationError: If a value given in code is not one that the field can have.
        TypeError: If there is no such field.
    """

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False)(cls)

    def __init__(self, **values: object) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # its subclasses are dataclasses
            value = values.pop(each.name, each.default)
            if value is not each.default:
                try:
                    value = each.metadata[_PARSER](value)
                except ValueError as error:
                    msg = f"{each.name}={_shown(each.name, value)} is {error}"
                    raise ConfigurationError(msg) from None
            vars(self)[each.name] = value
        if values:
            msg = f"{type(self).__name__} has no field {', '.join(values)}; it has {', '.join(vars(self))}"
            raise TypeError(msg)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")  # noqa: EM102, TRY003 - as dataclasses say it

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")  # noqa: EM102, TRY003 - as above

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={'<set>' if value and name in _SECRET else repr(value)}" for name, value in vars(self).items()
        )
        return f"{type(self).__name__}({shown})"


def _shown(name: str, value: object) -> str:
    """*value* for a message: short, without a secret, whatever it is."""
    if name in _SECRET:
        return "<set>"
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - a number of more than 4,300 digits, or any object that code gives us
        return f"<{type(value).__name__}>"
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."


def _warn(source: str, shown: str, default: object, error: ValueError) -> None:
    tell_once(logging.WARNING, "%s=%s is %s. It is ignored; the default is %r.", source, shown, error, default)


def integer(minimum: int, maximum: int = _MAX_INTEGER) -> Parser:
    """A whole number between *minimum* and *maximum*, both included."""

    def parse(value: object) -> int:
        # int() takes "1_000", " 5 " and other scripts' digits, and raises on 5,000 digits; the specification takes
        # none.
        number = minimum - 1
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,15}", value):
            number = int(value)
        if minimum <= number <= maximum:
            return int(number)
        top = "" if maximum == _MAX_INTEGER else f" and {maximum} at most"
        msg = f"not a whole number of {minimum} at least{top}"
        raise ValueError(msg)

    return parse


def ratio(value: object) -> float:
    """A number from 0 to 1."""
    # float() takes "0_1" and other scripts' digits, too.
    is_text = isinstance(value, str) and value.isascii() and "_" not in value
    if isinstance(value, bool) or not (is_text or isinstance(value, (int, float))):
        number = -1.0
    else:
        try:
            number = float(value)  # type: ignore[arg-type]  # it is one of the three
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


def words(value: object) -> str:
    """A comma-separated list, or a sequence, of words, each with a letter or a digit in it; empty for none."""
    each = value.split(",") if isinstance(value, str) else value
    if isinstance(each, (list, tuple, set, frozenset)) and all(isinstance(word, str) for word in each):
        stripped = [word.strip() for word in each if word.strip()]
        if all(any(character.isalnum() for character in word) for word in stripped):
            return ",".join(stripped)
    msg = "not a comma-separated list of words, each with a letter or a digit in it"
    raise ValueError(msg)


def dotted_path(value: object) -> str:
    """Where a callable is found: ``package.module.name`` or ``package.module:name``; empty for none."""
    if isinstance(value, str) and (not value or re.fullmatch(_DOTTED_PATH, value)):
        return value
    msg = "not a dotted path such as package.module.callable"
    raise ValueError(msg)


def names_template(value: str) -> bool:
    """Whether *value* is the name of a template, such as ``errors/slow.html``, and not where a callable is found."""
    return re.fullmatch(_TEMPLATE, value) is not None


def view(value: object) -> str:
    """Where a callable is found, or the name of a template; empty for none."""
    if isinstance(value, str) and names_template(value):
        return value
    try:
        return dotted_path(value)
    except ValueError as error:
        msg = f"{error}, nor the name of a template such as errors/slow.html"
        raise ValueError(msg) from None


def url_patterns(value: object) -> str:
    """Comma-separated regular expressions, each of which compiles."""
    if not isinstance(value, str):
        msg = "not a comma-separated list of regular expressions"
        raise ValueError(msg)  # noqa: TRY004 - a parser says ValueError, whatever is wrong
    for pattern in value.split(","):
        try:
            re.compile(pattern.strip())
        except (re.error, RecursionError, OverflowError, Warning) as error:
            # How deep is said differently each time, and would be told each time.
            why = "nested too deeply" if isinstance(error, RecursionError) else error
            msg = f"not a comma-separated list of regular expressions ({pattern.strip()[:_MAX_SHOWN]!r}: {why})"
            raise ValueError(msg) from None
    return value


def addresses(value: object) -> str:
    """Comma-separated mail addresses, without names; empty for none."""
    if isinstance(value, str):
        found = [each.strip() for each in value.split(",") if each.strip()]
        if all(re.fullmatch(_ADDRESS, each) for each in found):
            return ",".join(found)
    msg = "not a comma-separated list of addresses such as oncall@example.com"
    raise ValueError(msg)


def sender(value: object) -> str:
    """One mail address, with a name or without; empty for none."""
    if isinstance(value, str) and (not value or re.fullmatch(_SENDER, value)):
        return value
    msg = "not an address such as web@example.com or Web <web@example.com>"
    raise ValueError(msg)


def trace_link(value: object) -> str:
    """A URL with ``{trace_id}`` in it, and ``{span_id}`` if need be; empty for none."""
    if isinstance(value, str) and (
        not value or (re.fullmatch(r"https?://[\x21-\x7e]+", value) and "{trace_id}" in value)
    ):
        return value
    msg = "not a URL such as http://localhost:16686/trace/{trace_id}"
    raise ValueError(msg)
