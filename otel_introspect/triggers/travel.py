"""How the decision to profile travels to the next service: a signed token in W3C baggage.

Baggage goes wherever the application's requests go, to other people's services too. So what travels is bound to its
trace and expires soon, and is worth nothing to whoever does not have the key of the service that it is shown to.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.baggage import get_baggage, set_baggage
from opentelemetry.context import Context

BAGGAGE_KEY: Final = "otel_introspect.profile"


def send(token: str, context: Context | None = None) -> Context:
    """A context whose outgoing requests carry *token*, which ``sign_travel`` has made.

    Args:
        token: What ``Verifier.verify_travel`` of the next service is to check.
        context: The one to begin with; the current one if None is given.
    """
    return set_baggage(BAGGAGE_KEY, token, context)


def received(context: Context | None = None) -> str | None:
    """The token that came in with *context*, unchecked; None if there is none."""
    token = get_baggage(BAGGAGE_KEY, context)
    return token if isinstance(token, str) and token else None
