"""Database connections of a request that is interrupted: queries that end in time, transactions that leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.utils import OperationalError

from otel_introspect.faults import fail_open

IsOver = Callable[[], bool]

# SQLite asks after so many instructions of its virtual machine, and waits for the GIL each time: 1 ms of most queries.
_INSTRUCTIONS: Final = 100_000
_RECEIVER: Final = "otel_introspect.cut_queries"


def cut_queries(is_over: IsOver) -> None:
    """Have SQLite end a query as soon as *is_over*, on all connections from now on: no POSIX signal interrupts one."""

    def watch(connection: BaseDatabaseWrapper, **_of_the_signal: Any) -> None:  # noqa: ANN401 - whatever Django sends
        with fail_open("having SQLite end queries in time"):
            if connection.vendor == "sqlite" and connection.connection is not None:
                connection.connection.set_progress_handler(is_over, _INSTRUCTIONS)

    with fail_open("having SQLite end queries in time"):
        connection_created.connect(watch, weak=False, dispatch_uid=_RECEIVER)
        for each in connections.all(initialized_only=True):
            watch(each)


def cut_no_more() -> None:
    """Take back what ``cut_queries`` has set up; open connections keep what they have, which does nothing more."""
    connection_created.disconnect(dispatch_uid=_RECEIVER)


def was_cut(error: BaseException) -> bool:
    """Whether *error* is that of a query that SQLite has ended for us."""
    return isinstance(error, OperationalError) and str(error) == "interrupted"


def drop_connections() -> None:
    """Close every open database connection of this thread, whatever state an interruption has left it in.

    So the database rolls back what is not committed, and who comes next gets a new connection.
    """
    for connection in connections.all(initialized_only=True):
        if connection.connection is None or any(
            getattr(each, "_from_testcase", False) for each in connection.atomic_blocks
        ):
            continue  # there is none, or the transaction is that of a test which goes on
        with fail_open("closing a database connection"):
            connection.validate_thread_sharing()
            # Interrupted while it left a transaction, Django believes to be still in one, and opens no other connection
            connection.in_atomic_block = connection.closed_in_transaction = False
            connection.close()
