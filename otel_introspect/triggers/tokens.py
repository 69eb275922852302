"""Signed tokens: who has the key may have a request profiled, and the decision may travel with its trace.

A token is ``v1.<issued>.<ttl>.<nonce>.<mac>``: two decimal numbers of seconds, 16 random bytes and an HMAC-SHA256, the
last two in URL-safe base64 without padding. There is exactly one spelling of each token. The MAC is over what the token
is for, each part with its length before it, so that no two requests look the same to it.

A token is bound to method, path and query, not to a host: behind proxies a service does not know for sure what it is
called. So where two services share a key, a token for one counts once at the other, too, if that has the same page.
"""

# ruff: noqa: EM101 - the reason of a refusal is a word of the contract, not a message

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from otel_introspect.environment_variables import OTEL_PYTHON_INTROSPECT_PROFILER_KEY
from otel_introspect.errors import ConfigurationError
from otel_introspect.faults import tell_once
from otel_introspect.triggers.asking import divide
from otel_introspect.triggers.nonces import Nonces
from otel_introspect.triggers.refusal import refuse

DEFAULT_TTL: Final = 300
MAX_TTL: Final = 24 * 60 * 60
SKEW: Final = 30
"""By how many seconds the clock of who signs may be ahead. One that is behind makes tokens expire so much sooner."""
MIN_KEY_LENGTH: Final = 16
"""Who sees a token can try keys at leisure. A shorter one is warned about."""
NONCE_BYTES: Final = 16

_REQUEST: Final = b"request"
_TRAVEL: Final = b"travel"
_VERSION: Final = "v1"
_MAX_ISSUED: Final = 10**12
# Each last character of the base64 has bits to spare, which must be 0: otherwise there would be several spellings.
_TOKEN: Final = re.compile(
    rf"{_VERSION}\.(0|[1-9][0-9]{{0,11}})\.([1-9][0-9]{{0,4}})"
    r"\.([A-Za-z0-9_-]{21}[AQgw])\.([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])"
)


class _Stamp(NamedTuple):
    """What each token says about itself, apart from what it is for."""

    issued: int
    ttl: int
    nonce: bytes


def sign(  # noqa: PLR0913 - the request as the server knows it, and what only tests choose
    key: str,
    method: str,
    path: bytes,
    query: str,
    *,
    ttl: int = DEFAULT_TTL,
    now: float | None = None,
    nonce: bytes | None = None,
) -> str:
    """A token with which one request is profiled, once.

    Args:
        key: The secret, ``PROFILER_KEY`` of the service.
        method: The method of the request. HEAD is not GET.
        path: Its path, percent-decoded.
        query: Its query string, in any encoding that decodes to the same; our own parameters don't count.
        ttl: For how many seconds the token is valid.
        now: The time of day in seconds; the present if None is given.
        nonce: 16 bytes that no other token has; random ones if None is given.

    Raises:
        ConfigurationError: If the key is empty, or a number is out of its bounds.
    """
    return _signed(key, _REQUEST, _request(method, path, query), _stamp(ttl, now, nonce))


def sign_travel(key: str, trace_id: int, *, ttl: int, now: float | None = None, nonce: bytes | None = None) -> str:
    """A token with which every service that one trace gets to is profiled there.

    Args:
        key: The secret that these services share.
        trace_id: The trace.
        ttl: For how many seconds the token is valid.
        now: The time of day in seconds; the present if None is given.
        nonce: 16 bytes; random ones if None is given.

    Raises:
        ConfigurationError: If the key is empty, or a number is out of its bounds.
    """
    return _signed(key, _TRAVEL, _trace(trace_id), _stamp(ttl, now, nonce))


class Verifier:
    """Tells valid tokens from others.

    Args:
        key: The secret. Without one nothing is valid; that one is short is said once.
        nonces: Those that have been used.
        clock: The time of day in seconds.
    """

    def __init__(self, key: str, nonces: Nonces, *, clock: Callable[[], float] = time.time) -> None:
        self._secret = _secret(key) if key else None
        self._nonces = nonces
        self._clock = clock
        if 0 < len(key) < MIN_KEY_LENGTH:
            tell_once(
                logging.WARNING,
                "%s has fewer than %d characters, which can be guessed by whoever sees one token. Set a random one.",
                OTEL_PYTHON_INTROSPECT_PROFILER_KEY,
                MIN_KEY_LENGTH,
            )

    def verify(self, token: str, method: str, path: bytes, query: str) -> None:
        """Check that *token* is for this request, and use it up.

        Args:
            token: What came with the request.
            method: The method of the request.
            path: Its path, percent-decoded.
            query: Its query string, with our own parameters or without.

        Raises:
            Refused: If it is not valid, or not any more: ``no-key``, ``malformed``, ``bad-signature``, ``expired``,
                ``not-yet-valid``, ``replayed``; ``rate`` if more tokens are in use than can be remembered.
        """
        secret, stamp = self._check(token, _REQUEST, lambda: _request(method, path, query))
        digest = hmac.digest(secret, _joined((b"nonce", stamp.nonce)), "sha256")
        if not self._nonces.use(digest, stamp.issued + stamp.ttl + SKEW):
            raise refuse("replayed")

    def verify_travel(self, token: str, trace_id: int) -> None:
        """Check that *token* is for this trace. It may come many times: a service is called more than once in one.

        Args:
            token: What came in the baggage.
            trace_id: The trace of the request that it came with.

        Raises:
            Refused: If it is not valid: as ``verify``, but never ``replayed`` or ``rate``.
        """
        self._check(token, _TRAVEL, lambda: _trace(trace_id))

    def _check(self, token: str, purpose: bytes, subject: Callable[[], Iterable[bytes]]) -> tuple[bytes, _Stamp]:
        if self._secret is None:
            raise refuse("no-key")
        found = _TOKEN.fullmatch(token)
        if found is None or int(found[2]) > MAX_TTL:
            raise refuse("malformed")
        stamp = _Stamp(int(found[1]), int(found[2]), _from_text(found[3]))
        # Before all else: whoever does not have the key learns nothing about clocks and nonces.
        if not hmac.compare_digest(_mac(self._secret, purpose, subject(), stamp), _from_text(found[4])):
            raise refuse("bad-signature")
        now = self._clock()
        if now < stamp.issued - SKEW:
            raise refuse("not-yet-valid")
        if now > stamp.issued + stamp.ttl:
            raise refuse("expired")
        return self._secret, stamp


def canonical_query(query: str) -> list[bytes]:
    """What a query string says, however it is percent-encoded: names and values in their order, without our parameters.

    A value follows its name, after an ``=`` if there is one: ``?a`` and ``?a=`` are different queries.
    """
    rest = "&".join(divide(query)[0])
    if not rest:
        return []
    try:
        raw = rest.encode("latin-1")  # as WSGI passes bytes
    except UnicodeEncodeError:
        raw = rest.encode("utf-8", "surrogatepass")
    parts: list[bytes] = []
    for piece in raw.replace(b"+", b" ").split(b"&"):
        name, equals, value = piece.partition(b"=")
        parts += (unquote_to_bytes(name), equals + unquote_to_bytes(value))
    return parts


def _request(method: str, path: bytes, query: str) -> Iterable[bytes]:
    # Bytes, whose upper() knows only ASCII: to a string's there are more letters that become an "I".
    return method.encode("utf-8", "surrogatepass").upper(), path, *canonical_query(query)


def _trace(trace_id: int) -> Iterable[bytes]:
    return (f"{trace_id:032x}".encode(),)


def _stamp(ttl: int, now: float | None, nonce: bytes | None) -> _Stamp:
    stamp = _Stamp(
        issued=int(time.time() if now is None else now),
        ttl=ttl,
        nonce=os.urandom(NONCE_BYTES) if nonce is None else nonce,
    )
    problem = None
    if not 1 <= ttl <= MAX_TTL:
        problem = f"ttl={ttl!r} is not a whole number of seconds from 1 to {MAX_TTL}"
    elif not 0 <= stamp.issued < _MAX_ISSUED:
        problem = f"now={now!r} is not a time in seconds since 1970"
    elif len(stamp.nonce) != NONCE_BYTES:
        problem = f"the nonce has {len(stamp.nonce)} bytes instead of {NONCE_BYTES}"
    if problem:
        raise ConfigurationError(problem)
    return stamp


def _signed(key: str, purpose: bytes, subject: Iterable[bytes], stamp: _Stamp) -> str:
    if not key:
        msg = "there is no key to sign with"
        raise ConfigurationError(msg)
    mac = _mac(_secret(key), purpose, subject, stamp)
    return f"{_VERSION}.{stamp.issued:d}.{stamp.ttl:d}.{_to_text(stamp.nonce)}.{_to_text(mac)}"


def _secret(key: str) -> bytes:
    # Hashed: to HMAC itself a key is the same as that key with zero bytes after it, and a long one as its digest.
    return hashlib.sha256(b"otel_introspect key\0" + key.encode("utf-8", "surrogatepass")).digest()


def _mac(secret: bytes, purpose: bytes, subject: Iterable[bytes], stamp: _Stamp) -> bytes:
    numbers = (str(stamp.issued).encode(), str(stamp.ttl).encode())
    head = (b"otel_introspect", _VERSION.encode(), purpose, *numbers, stamp.nonce)
    return hmac.digest(secret, _joined((*head, *subject)), "sha256")


def _joined(parts: Iterable[bytes]) -> bytes:
    """*parts* as one, so that no other parts give the same."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _to_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _from_text(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
