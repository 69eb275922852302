"""Any object as a short text, without running a line of anybody's code.

What is wanted: what a variable holds, as a person would like to read it, whatever it is.

What does not work: ``repr``, which runs the application's code, on our thread, with its locks, its queries and its
bugs; nor ``isinstance``, which asks ``__class__``, which may be a property; nor ``obj.attribute``, which runs
``__getattribute__``; nor ``in`` and ``==`` on anything that is not a plain built-in, which run ``__eq__``.

So: ``type(obj)`` decides, which cannot lie. What is exactly of a built-in type is read through that type's own methods;
what is derived from one, through the methods of the built-in type, called on the type. Of all else the type's name is
shown, and of what has an instance dictionary or slots what is in there, found through the descriptors that the
interpreter itself has made. Each step looks at so many elements at most, however many there are, and between two steps
the clock is looked at.

What can still fail: another thread changes what is read. Then the text shows some of the old and some of the new, or
says that it could not be shown.
"""

from __future__ import annotations

import datetime as dt
import types
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import islice
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from time import monotonic
from typing import Any, Final, cast
from uuid import UUID

from otel_introspect.engine.redaction import REDACTED, Redaction, is_card
from otel_introspect.engine.stack_text import one_line
from otel_introspect.faults import count

MAX_CHARACTERS: Final = 250
MAX_ITEMS: Final = 10
MAX_DEPTH: Final = 3
UNSHOWN: Final = "<could not be shown>"
ELLIPSIS: Final = "..."
# More of a text than is shown, so that what is cut off still tells what it belongs to.
_WINDOW: Final = 4 * MAX_CHARACTERS
_MAX_TYPE_NAME: Final = 100
_MAX_BITS: Final = 256
_MAX_DECIMAL_BYTES: Final = 400
# A container that takes more memory is not gone into: it may be all holes, which are passed over one by one.
_MAX_CONTAINER_BYTES: Final = 32 * 1024 * 1024
_ATTEMPTS: Final = 5
_MAX_CLASSES: Final = 50
_MAX_CLASS_NAMES: Final = 2000
_MAX_NAME: Final = 100
_CARD_DIGITS: Final = range(13, 20)
_CARD_BEGINS: Final = "23456"

# The getters that ``type`` itself has, which no metaclass can replace.
_QUALIFIED: Final[Any] = type.__dict__["__qualname__"]
_MODULE: Final[Any] = type.__dict__["__module__"]
_MRO: Final[Any] = type.__dict__["__mro__"]
_CLASS_DICT: Final[Any] = type.__dict__["__dict__"]
_ARGS: Final[Any] = BaseException.__dict__["args"]
_FUNCTION: Final[Any] = types.MethodType.__dict__["__func__"]
_PATHS: Final = (PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)
# What a path was made of: since 3.12 as it was given, before that in parts.
_PATH: Final[Any] = PurePath.__dict__.get("_raw_paths", PurePath.__dict__.get("_parts"))
_UUID_INT: Final[Any] = UUID.__dict__["int"]

_NAMED: Final = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
)
# Under which a name may stand whose value stands beside it: {"name": "password", "value": ...}.
_NAMING: Final = frozenset({"name", "key", "field", "header", "variable", "param", "parameter", "label", "id"})


class OutOfTimeError(Exception):
    """There is no time left to show anything."""


class _FullError(Exception):
    """There is no room left in this text."""


class Representer:
    """Shows values, until its time is over.

    Args:
        redaction: What is not to be shown.
        seconds: How long it may take, all in all.
        clock: What time it is, in seconds.
    """

    def __init__(self, redaction: Redaction, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._redaction = redaction
        self._clock = clock
        self._end = clock() + seconds

    def check(self) -> None:
        """See whether there is time left.

        Raises:
            OutOfTimeError: If there is none.
        """
        if self._clock() >= self._end:
            raise OutOfTimeError

    def show(self, name: str, value: object) -> str:
        """*value*, which stands under *name*, in one line of at most ``MAX_CHARACTERS``.

        Raises:
            OutOfTimeError: If the time is over.
        """
        self.check()
        if self._redaction.hides(name):
            return REDACTED
        text = _Text(self._redaction, self.check)
        try:
            text.show(value, 0)
        except _FullError:
            return text.text() + ELLIPSIS
        except OutOfTimeError:
            raise
        except Exception:  # noqa: BLE001 - changed by another thread meanwhile, half made, no memory
            count("failed", "showing a local variable")
            return UNSHOWN
        return text.text()


class _Text:
    """One value's text."""

    def __init__(self, redaction: Redaction, check: Callable[[], None]) -> None:
        self._redaction = redaction
        self._check = check
        self._pieces: list[str] = []
        self._room = MAX_CHARACTERS - len(ELLIPSIS)
        self._open: list[object] = []
        """What is being shown just now, outermost first, to know a circle by."""
        self._in_object = False

    def text(self) -> str:
        return "".join(self._pieces)

    def _write(self, piece: str) -> None:
        piece = one_line(piece)
        if len(piece) > self._room:
            self._pieces.append(piece[: self._room])
            self._room = 0
            raise _FullError
        self._pieces.append(piece)
        self._room -= len(piece)

    def show(self, value: object, depth: int) -> None:
        self._check()
        kind = type(value)
        if value is None or value is True or value is False or value is Ellipsis or value is NotImplemented:
            self._write(repr(value))
        elif kind is int:
            self._integer(cast("int", value))
        elif kind is float or kind is complex:
            self._write(repr(value))
        elif issubclass(kind, str):  # asks ``str``, whose class is ``type`` itself
            self._string(cast("str", value), kind)
        elif issubclass(kind, (bytes, bytearray)):
            self._bytes(cast("bytes", value), kind)
        elif not self._shown_as_plain(value, kind):
            self._contents(value, kind, depth)

    def _integer(self, value: int) -> None:
        bits = int.bit_length(value)
        if bits > _MAX_BITS:  # its digits take quadratic time
            self._write(f"<int of {bits} bits>")
            return
        digits = int.__repr__(value)
        is_number = len(digits) in _CARD_DIGITS and digits[0] in _CARD_BEGINS and is_card(digits)
        self._write(REDACTED if is_number else digits)

    def _string(self, value: str, kind: type) -> None:
        length = str.__len__(value)
        window = str.__getitem__(value, slice(0, _WINDOW))  # a plain one, whatever it was
        if kind is not str and self._redaction.hides(type_name(kind)):
            self._write(f"<{type_name(kind)}>")
            return
        shown = self._redaction.without_secrets(window)
        if shown == REDACTED:
            self._write(REDACTED)
            return
        self._quoted(repr(shown[:MAX_CHARACTERS]), kind is str, kind)
        if length > MAX_CHARACTERS:
            self._write(f" ({length} characters)")

    def _bytes(self, value: bytes, kind: type) -> None:
        base: Any = bytearray if issubclass(kind, bytearray) else bytes
        length = base.__len__(value)
        window = bytes(base.__getitem__(value, slice(0, _WINDOW))).decode("latin-1")
        shown = self._redaction.without_secrets(window)
        if shown == REDACTED or (kind is not bytes and self._redaction.hides(type_name(kind))):
            self._write(REDACTED)
            return
        self._quoted(repr(shown[:MAX_CHARACTERS].encode("latin-1")), kind is bytes, kind)
        if length > MAX_CHARACTERS:
            self._write(f" ({length} bytes)")

    def _quoted(self, text: str, is_plain: bool, kind: type) -> None:  # noqa: FBT001 - one caller each
        # What follows is worth more than the end of a long text.
        room = max(self._room - 30, 0)
        shortened = text if len(text) <= room else text[:room] + ELLIPSIS
        self._write(shortened if is_plain else f"<{type_name(kind)} {shortened}>")

    def _shown_as_plain(self, value: Any, kind: type) -> bool:  # noqa: ANN401 - whatever an application has
        """Show what has no parts; False if it is something else."""
        if kind is dt.datetime or kind is dt.time:
            # Without its zone, whose offset its own class works out.
            zone = "" if value.tzinfo is None else f" {type_name(type(value.tzinfo))}"
            self._write(f"<{kind.__name__} {value.replace(tzinfo=None).isoformat()}{zone}>")
        elif kind is dt.date:
            self._write(f"<date {value.isoformat()}>")
        elif kind is dt.timedelta:
            self._write(f"<timedelta {value.days} d {value.seconds + value.microseconds / 1e6} s>")
        elif kind is Decimal:
            is_short = value.__sizeof__() <= _MAX_DECIMAL_BYTES
            self._write(f"Decimal({str(value)!r})" if is_short else "<Decimal of very many digits>")
        elif kind is UUID:
            number = _UUID_INT.__get__(value)
            self._write(f"<UUID {number:032x}>" if type(number) is int else "<UUID>")
        elif any(kind is each for each in _NAMED):  # not ``in``, which asks a metaclass whether it is equal
            self._write(f"<{kind.__name__} {plain(value.__qualname__)}>")
        elif kind is types.MethodType:
            function: Any = _FUNCTION.__get__(value)
            name = f" {plain(function.__qualname__)}" if type(function) is types.FunctionType else ""
            self._write(f"<method{name}>")
        elif issubclass(kind, type):
            self._write(f"<class {type_name(value)}>")
        elif issubclass(kind, types.ModuleType):
            self._write("<module>")
        else:
            return False
        return True

    def _contents(self, value: Any, kind: type, depth: int) -> None:  # noqa: ANN401 - as above
        if any(each is value for each in self._open):
            self._write(f"<{type_name(kind)}: circular>")
            return
        if self._redaction.hides(type_name(kind, module=False)):
            self._write(f"<{type_name(kind)}>")
            return
        self._open.append(value)
        try:
            self._container(value, kind, depth)
        finally:
            self._open.pop()

    def _container(self, value: Any, kind: type, depth: int) -> None:  # noqa: ANN401 - as above
        for base, marks in _CONTAINERS:
            if not issubclass(kind, base):
                continue
            length = base.__len__(value)
            if depth >= MAX_DEPTH or base.__sizeof__(value) > _MAX_CONTAINER_BYTES:
                self._write(f"<{type_name(kind)} of {length}>")
            else:
                is_literal = kind is base and base in _LITERAL
                self._write(marks[0] if is_literal else f"<{type_name(kind)} {marks[0]}")
                if base is dict:
                    self._mapping(_first(dict.items, value), length, depth)
                else:
                    fields = _fields_of(kind) if base is tuple else ()
                    self._elements(_first(base.__iter__, value), length, depth, kind, fields)
                self._write(marks[1] if is_literal else f"{marks[1]}>")
            return
        inside = _ARGS if issubclass(kind, BaseException) else _PATH if any(kind is each for each in _PATHS) else None
        if inside is not None:
            self._write(f"<{type_name(kind)} ")
            self.show(inside.__get__(value), depth + 1)
            self._write(">")
            return
        self._object(value, kind, depth)

    def _elements(self, elements: list[Any], length: int, depth: int, kind: type, fields: tuple[str, ...]) -> None:
        if fields:
            self._attributes(list(zip(fields, elements, strict=False)), length, depth, "", ", ")
            return
        hide = False
        for place, element in enumerate(elements):
            if place:
                self._write(", ")
            if hide:
                self._write(REDACTED)
                hide = False
                continue
            self.show(element, depth + 1)
            # A pair, ("authorization", ...), or an option and what follows it.
            hide = self._names_secret(element)
        if kind is tuple and length == 1:
            self._write(",")
        self._left_out(length - len(elements), comma=bool(elements))

    def _mapping(self, items: list[tuple[Any, Any]], length: int, depth: int) -> None:
        named = any(_name_of(key).lower() in _NAMING and self._names_secret(value) for key, value in items)
        for place, (key, value) in enumerate(items):
            if place:
                self._write(", ")
            self.show(key, depth + 1)
            self._write(": ")
            name = _name_of(key)
            if self._redaction.hides(name) or (named and name.lower() not in _NAMING):
                self._write(REDACTED)
            else:
                self.show(value, depth + 1)
        self._left_out(length - len(items), comma=bool(items))

    def _object(self, value: Any, kind: type, depth: int) -> None:  # noqa: ANN401 - as above
        if depth >= MAX_DEPTH or self._in_object:
            self._write(f"<{type_name(kind)} object>")
            return
        pairs, length = _attributes_of(value, kind)
        if not pairs:
            self._write(f"<{type_name(kind)} object>")
            return
        self._in_object = True
        try:
            self._write(f"<{type_name(kind)}")
            self._attributes(pairs, length, depth, " ", ",")
            self._write(">")
        finally:
            self._in_object = False

    def _attributes(self, pairs: list[tuple[str, Any]], length: int, depth: int, first: str, then: str) -> None:
        named = any(name.lower() in _NAMING and self._names_secret(value) for name, value in pairs)
        for place, (name, value) in enumerate(pairs):
            self._write(f"{then if place else ''}{first}{self._redaction.without_secrets(name)}=")
            if self._redaction.hides(name) or (named and name.lower() not in _NAMING):
                self._write(REDACTED)
            else:
                self.show(value, depth + 1)
        self._left_out(length - len(pairs), comma=True)

    def _left_out(self, number: int, *, comma: bool) -> None:
        if number > 0:
            self._write(f"{', ' if comma else ''}{ELLIPSIS} {number} more")

    def _names_secret(self, value: object) -> bool:
        kind = type(value)
        if not issubclass(kind, (str, bytes)):
            return False
        name = _name_of(value)
        return len(name) < _MAX_NAME and " " not in name.strip() and self._redaction.hides(name)


# As they are written in Python, if they are of that very type.
_LITERAL: Final = (dict, list, tuple, set)
_CONTAINERS: Final[tuple[tuple[Any, tuple[str, str]], ...]] = (
    (dict, ("{", "}")),
    (list, ("[", "]")),
    (tuple, ("(", ")")),
    (set, ("{", "}")),
    (frozenset, ("{", "}")),
    (deque, ("[", "]")),
)
# Everybody knows where their types are from.
_BUILTIN_MODULES: Final = ("builtins", "collections")


def _first(elements: Callable[[Any], Iterable[Any]], value: object) -> list[Any]:
    """The first elements of a container, which others may change meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            return list(islice(elements(value), MAX_ITEMS))
        except RuntimeError:
            continue
    return list(islice(elements(value), MAX_ITEMS))


def plain(text: object) -> str:
    """*text* as a plain and short string, whatever it is."""
    return str.__getitem__(cast("str", text), slice(0, _MAX_TYPE_NAME)) if issubclass(type(text), str) else "?"


def type_name(kind: type, *, module: bool = True) -> str:
    """The name of a class with its module, as the class itself has it, whatever its metaclass says."""
    name = plain(_QUALIFIED.__get__(kind))
    where = plain(_MODULE.__get__(kind)) if module else ""
    return name if where in ("", "?", *_BUILTIN_MODULES) else f"{where}.{name}"


def _name_of(key: Any) -> str:  # noqa: ANN401 - whatever is a dictionary's key
    """The text by which *key* is known, if it has any."""
    kind = type(key)
    if issubclass(kind, str):
        return str.__getitem__(key, slice(0, _MAX_NAME))
    if issubclass(kind, bytes):
        return bytes.__getitem__(key, slice(0, _MAX_NAME)).decode("latin-1")
    if kind is tuple:
        return " ".join(_name_of(each) for each in islice(key, MAX_ITEMS) if type(each) is not tuple)
    inside = _instance_dict(key, kind)  # of an enumeration, say
    return "" if inside is None else _named_in(inside)


def _named_in(inside: dict[str, Any]) -> str:
    return " ".join(
        str.__getitem__(value, slice(0, _MAX_NAME))
        for name, value in islice(dict.items(inside), MAX_ITEMS)
        if type(name) is str and name in ("_name_", "_value_", "name") and issubclass(type(value), str)
    )


def _classes(kind: type) -> Iterable[tuple[type, Iterable[tuple[Any, Any]]]]:
    """The classes that *kind* consists of, each with the names in its body."""
    for each in _MRO.__get__(kind)[:_MAX_CLASSES]:
        # Gone through and not looked up in: a name may be any object, with an __eq__ of its own.
        yield each, list(islice(_CLASS_DICT.__get__(each).items(), _MAX_CLASS_NAMES))


def _fields_of(kind: type) -> tuple[str, ...]:
    """The names of a named tuple's fields."""
    if kind is tuple:
        return ()
    for _, names in _classes(kind):
        for name, value in names:
            if type(name) is str and name == "_fields" and type(value) is tuple:
                return tuple(plain(each) for each in value[:MAX_ITEMS])
    return ()


def _instance_dict(value: object, kind: type) -> dict[str, Any] | None:
    """The instance dictionary, through the descriptor that the interpreter has made for it and no other."""
    for each, names in _classes(kind):
        for name, descriptor in names:
            if type(name) is str and name == "__dict__":
                inside = descriptor.__get__(value) if _is_plain_getter(descriptor, each) else None
                return inside if issubclass(type(inside), dict) else None
    return None


# Which the interpreter gives to the getter that it makes for a class: one written in C for a type of its own may do
# anything, and a proxy's asks what it stands for.
_GETTER_SAYS: Final = type("_Plain", (), {}).__dict__["__dict__"].__doc__


def _is_plain_getter(descriptor: Any, owner: type) -> bool:  # noqa: ANN401 - whatever stands in a class
    if type(descriptor) is types.MemberDescriptorType:  # which only reads memory
        return descriptor.__objclass__ is owner
    if type(descriptor) is not types.GetSetDescriptorType or descriptor.__objclass__ is not owner:
        return False
    return bool(descriptor.__doc__ == _GETTER_SAYS)


def _attributes_of(value: object, kind: type) -> tuple[list[tuple[str, Any]], int]:
    """The first attributes that are the object's own and not private, and how many there are."""
    found: list[tuple[str, Any]] = []
    total = 0
    inside = _instance_dict(value, kind)
    if inside is not None and dict.__sizeof__(inside) <= _MAX_CONTAINER_BYTES:
        for name, each in list(islice(dict.items(inside), _MAX_CLASS_NAMES)):
            if type(name) is str and not name.startswith("_"):
                total += 1
                if len(found) < MAX_ITEMS:
                    found.append((name[:_MAX_NAME], each))
    for _, names in _classes(kind):
        for slot, descriptor in names:
            if type(descriptor) is types.MemberDescriptorType and type(slot) is str and not slot.startswith("_"):
                # Slots, and what a type written in C says of itself.
                getter: Any = descriptor
                try:
                    held = getter.__get__(value)
                except (AttributeError, TypeError):  # not set yet; another type's
                    continue
                total += 1
                if len(found) < MAX_ITEMS:
                    found.append((slot[:_MAX_NAME], held))
    return found, total
