"""What an HTTP request asks for, and what the answer says about it: the same under every framework."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import unquote

from otel_introspect.triggers.refusal import Reason

PARAMETER: Final = "__introspect__"
OLD_PARAMETER: Final = "__geordi__"
"""What geordi's users are in the habit of typing."""
HEADER: Final = "X-Introspect"
"""Of the request: the token. Of the answer: what became of it."""
FORWARDING_HEADERS: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
"""Those whose values ``is_loopback`` wants."""

_PARAMETERS: Final = frozenset({PARAMETER, OLD_PARAMETER})


class Asked(NamedTuple):
    """A request that asks to be profiled.

    Args:
        token: What is to show that it may; empty if it only asks.
        query: The query string without our parameters: all else is byte for byte what was sent.
    """

    token: str
    query: str


def asked(query: str, header: str | None) -> Asked | None:
    """What a request asks for; None, at once, for one that asks nothing of us.

    A token in the header is before one in the query string. Of several parameters the first that has a value counts.

    Args:
        query: The query string as it was sent, without the question mark.
        header: The value of the header ``X-Introspect``; None if there is none.
    """
    # The name may be percent-encoded in part or as a whole: any character of it then begins with %5, %6 or %7.
    if (
        header is None
        and PARAMETER not in query
        and OLD_PARAMETER not in query
        and ("%" not in query or not ("%5" in query or "%6" in query or "%7" in query))
    ):
        return None
    kept, tokens = divide(query)
    if header is None and not tokens:
        return None
    return Asked(header or next(filter(None, tokens), ""), "&".join(kept))


def divide(query: str) -> tuple[list[str], list[str]]:
    """The pieces of a query string that are the application's, as they are, and the values of those that are ours."""
    kept: list[str] = []
    tokens: list[str] = []
    for piece in query.split("&"):
        name, _, value = piece.partition("=")
        # Latin-1, so that there is a character for every byte: such a token is refused later, in the usual way.
        if name in _PARAMETERS or ("%" in name and unquote(name, "latin-1") in _PARAMETERS):
            tokens.append(unquote(value, "latin-1"))
        else:
            kept.append(piece)
    return kept, tokens


def is_loopback(remote_address: str, forwarded: Iterable[str]) -> bool:
    """Whether a request comes from this machine, as far as anybody says.

    A proxy on this machine that adds none of ``FORWARDING_HEADERS`` cannot be told from a client on it: so this may
    decide for a developer's server, and for nothing else.

    Args:
        remote_address: The other end of the connection.
        forwarded: The values of those ``FORWARDING_HEADERS`` that the request has.
    """
    return _names_loopback(remote_address) and all(
        _names_loopback(_forwarded_for(element)) for value in forwarded for element in value.split(",")
    )


def _forwarded_for(element: str) -> str:
    """The address in one element of a forwarding header; empty if it has none that we understand."""
    element = element.strip()
    if "=" in element:  # RFC 7239: for="[::1]:4711";proto=https;by=...
        named = [each.partition("=") for each in element.split(";")]
        addresses = [value.strip() for name, _, value in named if name.strip().lower() == "for"]
        if len(addresses) != 1:
            return ""
        element = addresses[0]
        if len(element) > 1 and element[0] == element[-1] == '"':
            element = element[1:-1]
    if element.startswith("["):
        address, closed, port = element[1:].partition("]")
        return address if closed and (not port or _is_port(port)) else ""
    address, colon, port = element.partition(":")
    # More than one colon: an IPv6 address, which has no port unless it stands in brackets.
    return address if _is_port(colon + port) else element


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdigit()


def _names_loopback(address: str) -> bool:
    if "%" in address:  # an IPv6 scope, which may be any text, and which no loopback address needs
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    # Up to 3.12 an IPv4 address in IPv6's clothes is never a loopback address.
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def profiled_headers(trace_id: int, profile_id: str) -> list[tuple[str, str]]:
    """What the answer to a profiled request has in addition: where its profile is found."""
    return [
        (HEADER, f"profiled; trace_id={trace_id:032x}; profile_id={profile_id}"),
        ("Server-Timing", f'introspect;desc="profile {profile_id}"'),
    ]


def refused_headers(reason: Reason) -> list[tuple[str, str]]:
    """What the answer has in addition if there is no profile."""
    return [(HEADER, f"refused; reason={reason}")]
