"""Views that take longer than they may, each where another means interrupts it; and the whole site otherwise."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time

from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path
from urls import urlpatterns as others

from otel_introspect import timeout

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e12) SELECT sum(i) FROM n"


def worker(_request):
    """Which process this is, and what is going on in it."""
    return HttpResponse(json.dumps({"pid": os.getpid(), "connected": connection.connection is not None}))


def regex(_request):
    """One call of C's that keeps the GIL for hours."""
    re.match(r"(a+)+b", "a" * 60)
    return HttpResponse("regex")


def loop(_request):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass
    return HttpResponse("loop")


def query(_request):
    with connection.cursor() as cursor:
        cursor.execute(ENDLESS)
    return HttpResponse("query")


def prepare(_request):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS note (text TEXT)")
    return HttpResponse("prepared")


def writing(_request):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO note VALUES ('half done')")
        time.sleep(20)
    return HttpResponse("writing")


def writing_slowly(_request):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO note VALUES ('half done')")
        cursor.execute("SELECT pg_sleep(20)")
    return HttpResponse("writing slowly")


def notes(_request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM note")
        return HttpResponse(str(cursor.fetchone()[0]))


def sessions(_request):
    """What PostgreSQL is doing for others."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT state, query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'tester'")
        return HttpResponse(json.dumps(cursor.fetchall()))


@timeout(0.2)
def limited(_request):
    while True:
        pass


async def waiting(_request):
    await asyncio.sleep(20)
    return HttpResponse("waiting")


urlpatterns = [
    *(path(f"deadline/{view.__name__}", view) for view in (worker, regex, loop, query, prepare, writing)),
    *(path(f"deadline/{view.__name__}", view) for view in (writing_slowly, notes, sessions, limited, waiting)),
    *others,
]
