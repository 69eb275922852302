"""What we raise, to those who call us; nothing of it ever reaches an application that merely is watched.

.. code-block:: text

    IntrospectError
    └── ConfigurationError (ValueError)     a setting given in code is wrong
"""

from __future__ import annotations


class IntrospectError(Exception):
    """Base of all that this package raises."""


class ConfigurationError(IntrospectError, ValueError):
    """A setting given in code is wrong: says which, what was expected and what to do."""
