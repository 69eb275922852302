"""``sign``: what it prints is taken by a server, and what it cannot sign it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from otel_introspect.cli import main
from otel_introspect.triggers.asking import asked
from otel_introspect.triggers.nonces import Nonces
from otel_introspect.triggers.refusal import Refused
from otel_introspect.triggers.tokens import Verifier

COMMAND = Path(sysconfig.get_path("scripts")) / "otel-introspect"
KEY = "a key that is long enough"
VARIABLE = "OTEL_PYTHON_INTROSPECT_PROFILER_KEY"


@pytest.fixture(name="verifier")
def _verifier(tmp_path):
    return Verifier(KEY, Nonces(tmp_path / "nonces"))


def run(*arguments, key=KEY):
    return CliRunner().invoke(main, ["sign", *arguments], env={VARIABLE: key})


def lines(*arguments):
    """The URL, and curl's arguments."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    url, command = result.output.splitlines()[:2]
    return url, shlex.split(command)


def show(verifier, method, url, token=None):
    """Send *url* to the verifier, as a server would."""
    split = urlsplit(url)
    wanted = asked(split.query, token)
    verifier.verify(wanted.token, method, unquote_to_bytes(split.path), wanted.query)
    return wanted.query


def test_both_lines_work_once(verifier):
    """
    The URL is taken once, and so is what curl is told to send.
    """
    url, curl = lines("https://shop.example/report?a=1")

    assert show(verifier, "GET", url) == "a=1"
    assert curl[:2] == ["curl", "-H"]
    assert curl[3:] == ["https://shop.example/report?a=1"]
    name, _, token = curl[2].partition(": ")
    assert name == "X-Introspect"
    show(verifier, "GET", curl[3], token)
    for again in (None, token):
        with pytest.raises(Refused, match="replayed"):
            show(verifier, "GET", url, again)


def test_the_first_line_is_nothing_but_the_url():
    """
    A script finds the URL on the first line of standard output and the command on the second; the rest is said apart.
    """
    done = subprocess.run(
        [COMMAND, "sign", "https://shop.example/"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {VARIABLE: KEY},
    )

    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"https://shop\.example/\?__introspect__=v1\.[\w.-]+", first)
    assert re.fullmatch(r"curl -H 'X-Introspect: v1\.[\w.-]+' 'https://shop\.example/'", second)
    assert done.stderr.endswith("Each of the two works once, for 300 seconds from now on.\n")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://shop.example", "https://shop.example/"),
        ("  https://shop.example/a  ", "https://shop.example/a"),
        ("HTTPS://Shop.example:8443/A", "https://Shop.example:8443/A"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
        ("http://user:pass@h/", "http://user:pass@h/"),
        ("https://h?a=1", "https://h/?a=1"),
        ("https://h/a b?c d", "https://h/a%20b?c%20d"),
        ("https://h/ö?ü=€", "https://h/%C3%B6?%C3%BC=%E2%82%AC"),
        ("https://h/%c3%b6?a=%2f+", "https://h/%c3%b6?a=%2f+"),
        ("https://h/50%?a=%zz", "https://h/50%25?a=%25zz"),
        ("https://h/a/../b/./c", "https://h/b/c"),
        ("https://h/a/b/..", "https://h/a/"),
        ("https://h/a/%2E%2e/../../b/.", "https://h/b/"),
        ("https://h//a//b", "https://h//a//b"),
        ("https://h/a'b\"c?d='e'", "https://h/a%27b%22c?d=%27e%27"),
        ("https://h/[1]{2}?x=[3]{4}", "https://h/%5B1%5D%7B2%7D?x=%5B3%5D%7B4%7D"),
        ("https://h/?a=1&&b&c=", "https://h/?a=1&&b&c="),
        ("https://h/?a=http://x/?y", "https://h/?a=http://x/?y"),
        ("https://h/?__introspect__=old&a=1", "https://h/?a=1"),
        ("https://h/?a=1&__geordi__", "https://h/?a=1"),
        ("https://h/?__introspect__", "https://h/"),
    ],
)
def test_the_url_is_spelled_as_it_is_sent(verifier, given, sent):
    """
    Whatever the spelling, what is signed is what browsers, curl and servers make of it; a parameter of ours that was
    there is replaced.
    """
    url, curl = lines(given)

    assert curl[-1] == sent
    assert re.fullmatch(re.escape(sent) + r"[?&]__introspect__=v1\.[\w.-]+", url)
    show(verifier, "GET", url)


@pytest.mark.parametrize(
    ("method", "option"), [("POST", ["-X", "POST"]), ("delete", ["-X", "DELETE"]), ("HEAD", ["--head"]), ("get", [])]
)
def test_another_method(verifier, method, option):
    """
    With --method both are for that method, and curl is told it.
    """
    url, curl = lines("https://h/", "--method", method)

    assert curl[1:-3] == option
    show(verifier, method.upper(), url)
    with pytest.raises(Refused, match="bad-signature"):
        show(verifier, "PATCH", url)


@pytest.mark.parametrize(
    ("given", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("300", 300), ("24h", 86_400), ("1", 1), ("007", 7)]
)
def test_how_long_it_is_valid(given, seconds):
    """
    --ttl is a number of seconds, minutes or hours.
    """
    url, curl = lines("https://h/", "--ttl", given)

    assert url.split(".")[-3] == curl[2].split(".")[-3] == str(seconds)


@pytest.mark.parametrize("given", ["", "0", "0m", "-5", "5 m", "5min", "1d", "1.5h", "m", "\u0665m", "1_0", "five"])
def test_what_is_no_duration(given):
    """
    Another --ttl is refused with an example of what would do.
    """
    result = run("https://h/", "--ttl", given)

    assert result.exit_code == 2
    assert "is not a duration: write 30s, 5m, 1h, or a number of seconds." in " ".join(result.output.split())


@pytest.mark.parametrize("given", ["25h", "86401", "1441m", "999999999h"])
def test_too_long(given):
    """
    A --ttl over a day is refused with the limit.
    """
    result = run("https://h/", "--ttl", given)

    assert result.exit_code == 2
    assert f"{given} is too long: 24h at most." in result.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/report", "does not say where the service is: write it as https://"),
        ("shop.example/report", "does not say where the service is"),
        ("//shop.example/report", "does not say where the service is"),
        ("", "does not say where the service is"),
        ("https:///report", "does not say where the service is"),
        ("https://:80/report", "does not say where the service is"),
        ("https://h/report#top", "has a fragment"),
        ("https://h/#", "has a fragment"),
        ("ftp://h/report", "begins with ftp: only requests by http and https"),
        ("localhost:8000/report", "begins with localhost: only requests by http and https"),
        ("javascript:alert(1)", "begins with javascript"),
        ("https://h:port/", "is not a URL"),
        ("https://h:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://h/\\..\\x", "has a backslash"),
        ("https://h/\x1b[31m", "has invisible characters"),
        ("https://h/a\nb", "has invisible characters"),
        ("https://münchen.example/", "xn--"),
        ("https://a'b/", "has a host that is not sent as it is"),
        ("https://a b/", "has a host that is not sent as it is"),
    ],
)
def test_what_is_no_url_of_a_page(url, said):
    """
    A URL that cannot be signed is refused with what is wrong with it, on one harmless line.
    """
    result = run(url)

    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert "\x1b" not in result.output
    assert "v1." not in result.output


@pytest.mark.parametrize("method", ["", "GET /", "G\nET", "GÉT", "-X"])
def test_what_is_no_method(method):
    """
    A --method that could be no request's, or would be more than one word to a shell, is refused.
    """
    result = run("https://h/", f"--method={method}")

    assert result.exit_code == 2
    assert "is not a method: write GET, POST, ..." in result.output


def test_without_a_key():
    """
    Without a key it says where it looks for one.
    """
    for key in ("", "  "):
        result = run("https://h/", key=key)

        assert result.exit_code == 1
        assert f"There is no key. Set {VARIABLE}, or name a file with --key-file" in result.output


def test_a_key_that_can_be_guessed(tmp_path):
    """
    A short key is warned about with the way to make a better one, and is not shown.
    """
    (tmp_path / "key").write_text("hunter2")
    for result in (run("https://h/", key="hunter2"), run("https://h/", "--key-file", str(tmp_path / "key"))):
        assert result.exit_code == 0
        assert "is shorter than 16 characters, which can be guessed" in result.output
        assert "secrets.token_urlsafe()" in result.stderr
        assert "hunter2" not in result.output


@pytest.mark.parametrize("contents", [KEY, f"{KEY}\n", f"\n {KEY}\r\n"])
def test_the_key_from_a_file(verifier, tmp_path, contents):
    """
    The key may be in a file, whose line end does not count, and which is before the environment.
    """
    (tmp_path / "key").write_bytes(contents.encode())
    result = run("https://h/", "--key-file", str(tmp_path / "key"), key="another one, which would not do")

    show(verifier, "GET", result.output.splitlines()[0])


def test_the_key_is_what_the_service_reads():
    """
    Blanks around the variable do not count, as for the service.
    """
    assert run("https://h/", key=f" {KEY} ").exit_code == 0


def test_bytes_that_are_no_text_are_a_key_too(tmp_path):
    """
    A key with bytes that are no UTF-8 is the same from a file and from the environment.
    """
    raw = bytes(range(128, 160))
    (tmp_path / "key").write_bytes(raw)
    url = run("https://h/", "--key-file", str(tmp_path / "key")).output.splitlines()[0]

    show(Verifier(os.fsdecode(raw), Nonces(tmp_path / "nonces")), "GET", url)


@pytest.mark.parametrize(
    ("contents", "said"), [(None, "cannot be read"), ("", "is empty"), ("x" * 70_000, "is too long")]
)
def test_a_file_that_holds_no_key(tmp_path, contents, said):
    """
    A --key-file that is missing, empty or no key by its size is said so, by its name.
    """
    file = tmp_path / "key"
    if contents is not None:
        file.write_text(contents)
    result = run("https://h/", "--key-file", str(file))

    assert result.exit_code == 1
    assert said in result.output
    assert str(file) in result.output


def test_it_is_listed():
    """
    The command's own list has it.
    """
    assert "  sign " in CliRunner().invoke(main, []).output


def test_a_real_server_takes_it(verifier):
    """
    Sent over HTTP, URL and header are taken by what a server makes of the request.
    """
    answers = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path, _, query = self.path.partition("?")
            wanted = asked(query, self.headers.get("X-Introspect"))
            try:
                verifier.verify(wanted.token, self.command, unquote_to_bytes(path), wanted.query)
                answers.append(wanted.query)
            except Refused as refusal:
                answers.append(refusal.reason)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url, curl = lines(f"http://127.0.0.1:{server.server_port}/a b/../ö%?q=[é+1]&x")
        for request in (url, url, Request(curl[-1], headers=dict([curl[2].split(": ")]))):
            urlopen(request, timeout=10).close()
        server.shutdown()
        thread.join()

    assert answers == ["q=%5B%C3%A9+1%5D&x", "replayed", "q=%5B%C3%A9+1%5D&x"]
