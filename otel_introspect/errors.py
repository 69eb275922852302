"""What we raise: to those who call us, and into work that has outlived a limit which the user has set.

.. code-block:: text

    IntrospectError
    └── ConfigurationError (ValueError)     a setting given in code is wrong
    DeadlineExceeded (TimeoutError, RuntimeError)   work took longer than a ``timeout`` allows
    RequestInterrupted (BaseException)      the same for a whole request; never leaves our middleware
"""

from __future__ import annotations


class IntrospectError(Exception):
    """Base of all that this package raises."""


class ConfigurationError(IntrospectError, ValueError):
    """A setting given in code is wrong: says which, what was expected and what to do."""


class DeadlineExceeded(TimeoutError, RuntimeError):  # noqa: N818 - the name that gRPC made known
    """Work took longer than its ``timeout`` allows.

    A ``RuntimeError`` too, as that is what interruptingcow raises where no exception is named.
    """


class RequestInterrupted(BaseException):
    """A request has outlived its deadline.

    No ``Exception``, so that a view's ``except Exception`` does not swallow it; our middleware makes a response of it.
    """
