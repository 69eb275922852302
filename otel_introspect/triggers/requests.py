"""Decides whether a request that asks to be profiled is."""

# ruff: noqa: EM101 - the reason of a refusal is a word of the contract, not a message

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from otel_introspect.config import ProfilerConfig
from otel_introspect.faults import failed
from otel_introspect.triggers.asking import Asked
from otel_introspect.triggers.nonces import Nonces
from otel_introspect.triggers.refusal import refuse
from otel_introspect.triggers.tokens import Verifier, sign_travel

_TRAVEL_TTL: Final = 300


class RequestTrigger:
    """The trigger ``request``.

    Args:
        config: The settings.
    """

    def __init__(self, config: ProfilerConfig) -> None:
        self.has_allow: Final = bool(config.allow)
        """Whether somebody else may admit a request."""
        self._config = config
        self._verifier = Verifier(config.key, Nonces())

    def check(  # noqa: PLR0913 - facts about the request, each by its name
        self,
        asked: Asked,
        method: str,
        path: bytes,
        query: str,
        *,
        is_developer: Callable[[], bool],
        may_allow: bool | None = None,
    ) -> bool:
        """Decide as far as it can be decided now.

        Args:
            asked: What the request says.
            method: Of the request.
            path: Its path, percent-decoded.
            query: Its query string, as it came.
            is_developer: Whether it comes from somebody who has this machine before them, and need not sign.
            may_allow: Whether somebody else may admit it; what the settings say if None is given.

        Returns:
            Whether it is to be profiled; if not, ``allow`` is to be asked, when there is a user.

        Raises:
            Refused: If it is not to be.
        """
        if "request" not in self._config.triggers:
            raise refuse("off")
        # What has no full stop in it, as in ``?__geordi__=1``, is only a way of asking.
        if "." not in asked.token:
            if is_developer():
                return True
            if self.has_allow if may_allow is None else may_allow:
                return False
        if not asked.token:
            raise refuse("unsigned" if self._config.key else "no-key")
        self._verifier.verify(asked.token, method, path, query)
        return True

    def check_allowed(self, allow: Callable[[], object]) -> None:
        """Ask the application.

        Raises:
            Refused: If it says no, or can't say.
        """
        try:
            is_allowed = allow()
        except Exception as error:  # noqa: BLE001 - the application's; its request is not to fail for it
            failed("asking what PROFILER_ALLOW names", error)
            is_allowed = False
        if is_allowed is not True:
            raise refuse("not-allowed")

    def check_travel(self, token: str, trace_id: int) -> None:
        """Check what the calling service has decided.

        Raises:
            Refused: If it was not one that has our key.
        """
        self._verifier.verify_travel(token, trace_id)

    def travel_token(self, trace_id: int) -> str | None:
        """What tells the next services to profile this trace, too; None without a key."""
        return sign_travel(self._config.key, trace_id, ttl=_TRAVEL_TTL) if self._config.key else None
