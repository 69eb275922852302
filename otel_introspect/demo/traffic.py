"""The customers: a bounded number of requests, some slow, most not, some at the same time."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from otel_introspect.demo.visits import FAST_PATHS, SlowVisit

REQUEST_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
_READ_AT_ONCE: Final = 65_536
_FAST_A_VISIT: Final = 3

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, timeout: float = REQUEST_SECONDS) -> str:
    """Ask for *url* and read all of the answer; what went wrong, empty if nothing did."""
    try:
        with _opener.open(url, timeout=timeout) as response:
            while response.read(_READ_AT_ONCE):
                pass
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP status {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", None) or error) or type(error).__name__
    return ""


def wait_until_open(url: str, running: Callable[[], bool], seconds: float) -> bool:
    """Whether the shop answers within *seconds*."""
    deadline = time.monotonic() + seconds
    while running() and time.monotonic() < deadline:
        if not fetch(f"{url}/healthz/", timeout=2):
            return True
        time.sleep(_POLL_SECONDS)
    return False


class Customers:
    """Ask for pages, up to four at a time.

    Two workers serve them, and the view that asks its own server for something needs the second of them: that visit is
    made alone, as otherwise two such views could wait for each other.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="customer")
        self.fast = 0
        self.problems: list[str] = []

    def make(self, visit: SlowVisit, meanwhile: Callable[[], None]) -> None:
        """Make *visit*, and some fast ones beside it; *meanwhile* is called several times a second."""
        if visit.before:
            self._wait_for([self._ask(visit.before)], meanwhile)
        asked = [self._ask(visit.path)]
        if not visit.alone:
            for number in range(_FAST_A_VISIT):
                asked.append(self._ask(FAST_PATHS[number % len(FAST_PATHS)]))
                self.fast += 1
        self._wait_for(asked, meanwhile)

    def leave(self) -> None:
        """Make no more requests."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, path: str) -> Future[None]:
        return self._pool.submit(self._fetch, path)

    def _fetch(self, path: str) -> None:
        problem = fetch(self._url + path)
        if problem:
            self.problems.append(f"{path}: {problem}")

    def _wait_for(self, asked: list[Future[None]], meanwhile: Callable[[], None]) -> None:
        while not all(future.done() for future in asked):
            meanwhile()
            time.sleep(_POLL_SECONDS)
        meanwhile()
