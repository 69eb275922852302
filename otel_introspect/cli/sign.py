"""``otel-introspect sign``: makes the URL with which one request on a running service is profiled."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

import click

from otel_introspect.environment_variables import OTEL_PYTHON_INTROSPECT_PROFILER_KEY
from otel_introspect.triggers import tokens
from otel_introspect.triggers.asking import HEADER, PARAMETER, divide

_DURATION: Final = re.compile(r"([0-9]{1,9})([smh]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_METHOD: Final = re.compile(r"[A-Za-z]+(-[A-Za-z]+)*")
_MAX_KEY_FILE: Final = 64 * 1024
# What a browser leaves as it is in both path and query, less what curl takes for a pattern ([]{}) and a shell for a
# quote. An escape that is one stays; a lone % becomes one, as some proxies refuse it.
_SAFE: Final = "/:@!$&()*+,;=-._~|?%"
_LONE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOT: Final = re.compile(r"%2e", re.IGNORECASE)


class _Page(NamedTuple):
    """What is to be profiled."""

    origin: str
    path: str
    query: str

    @property
    def url(self) -> str:
        return f"{self.origin}{self.path}" + (f"?{self.query}" if self.query else "")

    def with_token(self, token: str) -> str:
        parameter = f"{PARAMETER}={token}"
        return self._replace(query=f"{self.query}&{parameter}" if self.query else parameter).url


def _duration(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """Seconds, out of ``30s``, ``5m``, ``1h`` or ``300``."""
    found = _DURATION.fullmatch(value)
    if found is None or not int(found[1]):
        msg = f"{value!r} is not a duration: write 30s, 5m, 1h, or a number of seconds."
        raise click.BadParameter(msg)
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds > tokens.MAX_TTL:
        msg = f"{value} is too long: {tokens.MAX_TTL // 3600}h at most."
        raise click.BadParameter(msg)
    return seconds


def _method(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if _METHOD.fullmatch(value) is None:
        msg = f"{value!r} is not a method: write GET, POST, ..."
        raise click.BadParameter(msg)
    return value.upper()


def _page(_ctx: click.Context, _param: click.Parameter, value: str) -> _Page:
    """The page, spelled as browsers, curl and servers spell it."""
    text = value.strip()
    try:
        split = urlsplit(text)
        _ = split.port  # raises for a bad one
    except ValueError as error:
        msg = f"{text!r} is not a URL: {error}."
        raise click.BadParameter(msg) from None
    problem = _problem(text, split)
    if problem:
        msg = f"{text!r} {problem}"
        raise click.BadParameter(msg)
    kept, _tokens = divide(split.query)
    return _Page(f"{split.scheme}://{split.netloc}", _without_dots(_escaped(split.path)), _escaped("&".join(kept)))


def _problem(text: str, split: SplitResult) -> str | None:
    unsendable = any(each in split.netloc for each in " '\"<>^`{|}")
    problems = (
        (not text.isprintable(), "has invisible characters in it: type it again."),
        (
            bool(split.scheme) and split.scheme not in ("http", "https"),
            f"begins with {split.scheme}: only requests by http and https can be profiled.",
        ),
        (
            not split.scheme or not split.hostname,
            "does not say where the service is: write it as https://shop.example/report.",
        ),
        ("#" in text, "has a fragment, which is never sent to the server: leave out # and what follows."),
        ("\\" in text, "has a backslash in it, which browsers and servers read differently: write / or %5C."),
        (
            not split.netloc.isascii() or unsendable,
            "has a host that is not sent as it is: write an international name in its form that begins with xn--.",
        ),
    )
    return next((message for applies, message in problems if applies), None)


def _escaped(text: str) -> str:
    return quote(_LONE_PERCENT.sub("%25", text), safe=_SAFE)


def _without_dots(path: str) -> str:
    """*path* as it is sent: browsers and curl resolve ``.`` and ``..`` themselves."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments):
        plain = _DOT.sub(".", segment)
        if plain not in (".", ".."):
            kept.append(segment)
            continue
        if plain == ".." and kept:
            kept.pop()
        if place == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _key(key_file: Path | None) -> str:
    """The secret, without the line end that an editor leaves: as the service reads it."""
    if key_file is None:
        key, source = os.environ.get(OTEL_PYTHON_INTROSPECT_PROFILER_KEY, "").strip(), "The key"
        if not key:
            msg = (
                f"There is no key. Set {OTEL_PYTHON_INTROSPECT_PROFILER_KEY}, or name a file with --key-file:"
                " the same key that the service has."
            )
            raise click.ClickException(msg)
    else:
        try:
            with key_file.open("rb") as file:
                raw = file.read(_MAX_KEY_FILE + 1)
        except OSError as error:
            msg = f"The key cannot be read from {key_file}: {error.strerror or error}."
            raise click.ClickException(msg) from error
        key, source = os.fsdecode(raw).strip(), f"The key in {key_file}"
        if not key or len(raw) > _MAX_KEY_FILE:
            msg = f"{source} is {'too long' if key else 'empty'}. The file is to hold the key that the service has."
            raise click.ClickException(msg)
    if len(key) < tokens.MIN_KEY_LENGTH:
        click.echo(
            f"Warning: {source[0].lower()}{source[1:]} is shorter than {tokens.MIN_KEY_LENGTH} characters, which can be"
            " guessed. Take a random one: python -c 'import secrets; print(secrets.token_urlsafe())'",
            err=True,
        )
    return key


@click.command()
@click.argument("page", metavar="URL", callback=_page)
@click.option(
    "--ttl", callback=_duration, default="5m", show_default=True, help="How long it is valid: 30s, 5m, 1h, 300."
)
@click.option("--method", callback=_method, default="GET", show_default=True, help="The method of the request.")
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where the key is, instead of {OTEL_PYTHON_INTROSPECT_PROFILER_KEY}.",
)
def sign(page: _Page, ttl: int, method: str, key_file: Path | None) -> None:
    """Make a URL that has one request of a running service profiled.

    The first line printed is that URL, the second a command for curl that does the same by a header. Each of the two
    works once. The answer is the usual page; its header X-Introspect says where the profile is, or why there is none.

    The key is the service's own: OTEL_PYTHON_INTROSPECT_PROFILER_KEY, or the contents of --key-file. There is no option
    for the key itself, as other users of the machine could see it.
    """
    key = _key(key_file)
    path = unquote_to_bytes(page.path)
    # A token counts once, so whoever opens the one and then tries the other needs two.
    in_url, in_header = (tokens.sign(key, method, path, page.query, ttl=ttl) for _ in range(2))
    option = {"GET": "", "HEAD": "--head "}.get(method, f"-X {method} ")
    click.echo(page.with_token(in_url))
    click.echo(f"curl {option}-H '{HEADER}: {in_header}' '{page.url}'")
    click.echo(f"Each of the two works once, for {ttl} seconds from now on.", err=True)
