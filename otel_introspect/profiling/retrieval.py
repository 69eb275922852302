"""The bytes of a profile or a trace, from a file, a web server or what fsspec knows, and never more than a bound."""

from __future__ import annotations

import gzip
import io
import re
import time
import zlib
from collections.abc import Callable
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request, urlopen

from otel_introspect.engine.stack_text import one_line
from otel_introspect.errors import IntrospectError

MAX_BYTES: Final = 512 * 1024 * 1024
"""No file may have more, unpacked."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 256 * 1024
_MEGABYTE: Final = 1024 * 1024
_WAIT_SECONDS: Final = 10.0
_TRANSFER_SECONDS: Final = 60.0
_MAX_SAID: Final = 300


class ReadError(IntrospectError):
    """A profile cannot be read: says what is wrong, what was expected and what to do."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def scheme_of(source: str) -> str:
    """The scheme of a URL, in lower case; empty for a path."""
    matched = _SCHEME.match(source)
    return matched.group(1).lower() if matched else ""


def fetch(source: str, max_bytes: int = MAX_BYTES) -> bytes:
    """What is at *source*, unpacked if it was packed by gzip.

    Args:
        source: A path, a ``file``, ``http`` or ``https`` URL, or any other URL if fsspec is installed.
        max_bytes: More is refused, packed or not.

    Raises:
        ReadError: If there is nothing, it cannot be had, or it is too large.
    """
    scheme = scheme_of(source)
    if scheme in ("", "file"):
        found = _from_file(source, _path(source), max_bytes)
    elif scheme in ("http", "https"):
        found = _from_web(source, max_bytes)
    else:
        found = _from_fsspec(source, scheme, max_bytes)
    return _unpacked(found, source, max_bytes) if found.startswith(_GZIP) else found


def parts_of_url(source: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        ReadError: If it is none.
    """
    try:
        return urlsplit(source)
    except ValueError as error:
        msg = f"{shown(source)} is no URL: {_said(error)}"
        raise ReadError(msg) from error


def shown(source: str) -> str:
    """*source* for a message: one line, not too long, without a password."""
    parts = source.split("@", 1)
    if scheme_of(source) and len(parts) > 1 and "/" not in parts[0].partition("://")[2]:
        source = f"{parts[0].partition('://')[0]}://***@{parts[1]}"
    return one_line(source)[:_MAX_SAID]


def _path(source: str) -> Path:
    if not scheme_of(source):
        return Path(source)
    return Path(unquote(parts_of_url(source).path))


def _from_file(source: str, path: Path, max_bytes: int) -> bytes:
    try:
        if path.is_dir():
            msg = f"{shown(source)} is a directory: name one of the files in it, such as <profile id>.pyisession.json"
            raise ReadError(msg)
        with path.open("rb") as file:
            return _bounded(file, source, max_bytes)
    except FileNotFoundError:
        msg = f"There is no file {shown(source)}"
        raise ReadError(msg) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        msg = f"{shown(source)} cannot be read: {_said(error)}"
        raise ReadError(msg) from error


def _from_web(source: str, max_bytes: int) -> bytes:
    until = time.monotonic() + _TRANSFER_SECONDS

    def in_time() -> None:
        if time.monotonic() > until:
            msg = f"not all of it came within {_TRANSFER_SECONDS:.0f} seconds"
            raise TimeoutError(msg)

    try:
        request = Request(source, headers={"User-Agent": "otel-introspect"})  # noqa: S310 - http or https, see above
        with urlopen(request, timeout=_WAIT_SECONDS) as response:  # noqa: S310 - as above; no redirection leads to a file
            return _bounded(response, source, max_bytes, in_time)
    except (OSError, ValueError, HTTPException) as error:  # ValueError: a URL that is none
        msg = f"{shown(source)} cannot be fetched: {_said(error)}"
        raise ReadError(msg) from error


def _from_fsspec(source: str, scheme: str, max_bytes: int) -> bytes:
    try:
        fsspec: Any = import_module("fsspec")
    except ImportError as error:
        msg = (
            f"{shown(source)}: to read from {scheme}: needs fsspec, which is not installed: "
            "pip install 'otel-introspect[store]', and the package for the scheme (s3fs, gcsfs, adlfs, ...)"
        )
        raise ReadError(msg) from error
    try:
        with fsspec.open(source, "rb") as file:
            return _bounded(file, source, max_bytes)
    except ReadError:
        raise
    except FileNotFoundError:
        msg = f"There is nothing at {shown(source)}"
        raise ReadError(msg) from None
    except Exception as error:  # each of fsspec's back ends raises what its own library does
        msg = f"{shown(source)} cannot be read: {_said(error)}"
        raise ReadError(msg) from error


def _bounded(file: _Readable, source: str, max_bytes: int, before_each: Callable[[], None] = lambda: None) -> bytes:
    found = io.BytesIO()
    while chunk := file.read(_CHUNK):
        found.write(chunk)
        if found.tell() > max_bytes:
            msg = f"{shown(source)} has more than {max_bytes / _MEGABYTE:.0f} MiB, the most that is read"
            raise ReadError(msg)
        before_each()
    return found.getvalue()


def _unpacked(packed: bytes, source: str, max_bytes: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            stream: BinaryIO = file  # type: ignore[assignment]  # it reads, which is all that is wanted
            return _bounded(stream, source, max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{shown(source)} begins as a gzip file, but cannot be unpacked: {_said(error)}"
        raise ReadError(msg) from error


def _said(error: BaseException) -> str:
    """What an error says, in one line; ``strerror`` alone where there is one, as the path has been said."""
    text = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
    return one_line(str(text))[:_MAX_SAID] or type(error).__name__
