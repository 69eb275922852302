"""A small Django site in this process, whose views take longer than they may, each in a way of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import tempfile
import threading
import time
from pathlib import Path

import django
from asgiref.sync import sync_to_async
from django.conf import settings

FOREVER = 5.0
SUM = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT sum(i) FROM n"
FOLDER = Path(tempfile.mkdtemp(prefix="deadline-site-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

settings.configure(
    SECRET_KEY="only-for-these-tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(FOLDER / "site.sqlite3")}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [str(FOLDER)]}],
    LOGGING_CONFIG=None,
)
django.setup()
(FOLDER / "late.html").write_text("<p>{{ request.path }} was too slow</p>")
(FOLDER / "lazy.html").write_text("{{ slow }}")

from django.db import connection, transaction  # noqa: E402 - asks for the settings
from django.http import HttpResponse, StreamingHttpResponse  # noqa: E402
from django.template.response import TemplateResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402

from otel_introspect import exempt, timeout  # noqa: E402

said = []
"""What views have done on their way out."""


def spin(seconds=FOREVER):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)


def fast(_request):
    return HttpResponse("fast")


def leisurely(_request):
    """As long as several deadlines."""
    spin(0.3)
    return HttpResponse("leisurely")


def busy(_request):
    end = time.monotonic() + FOREVER
    while time.monotonic() < end:
        pass
    return HttpResponse("busy")


def sleeping(_request):
    time.sleep(FOREVER)
    return HttpResponse("sleeping")


def stubborn(_request):
    with contextlib.suppress(Exception):
        spin()
    return HttpResponse("stubborn")


def tidy(_request):
    try:
        spin()
    finally:
        said.append("finally")
    return HttpResponse("tidy")


def writing(_request):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO note VALUES ('half done')")
        spin()
    return HttpResponse("writing")


def writes_and_spins(_request):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO note VALUES ('half done')")
    spin()
    return HttpResponse("writes_and_spins")


def lost_in_transaction(_request):
    """Leaves Django in the belief to be in a transaction, as an interruption at a bad moment could."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.in_atomic_block = True
    spin()
    return HttpResponse("lost_in_transaction")


def endless_query():
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e9) SELECT sum(i) FROM n"
        )
        return cursor.fetchone()


def querying(_request):
    return HttpResponse(endless_query())


def interrupted_by_itself(_request):
    from django.db.utils import OperationalError

    raise OperationalError("interrupted")


@timeout(0.06)
def limited(_request):
    spin()
    return HttpResponse("limited")


@timeout(0.06)
def querying_within_its_own(_request):
    return HttpResponse(endless_query())


@timeout(FOREVER)
def patient(_request):
    spin(0.3)
    return HttpResponse("patient")


@timeout(0.06)
async def limited_async(_request):
    await asyncio.sleep(FOREVER)
    return HttpResponse("limited_async")


@timeout(FOREVER)
async def patient_async(_request):
    await asyncio.sleep(0.3)
    return HttpResponse("patient_async")


@exempt
def exempted(_request):
    spin(0.3)
    return HttpResponse("exempted")


@exempt
async def exempted_async(_request):
    await asyncio.sleep(0.3)
    return HttpResponse("exempted_async")


async def waiting(_request):
    try:
        await asyncio.sleep(FOREVER)
    finally:
        said.append("finally")
    return HttpResponse("waiting")


async def waiting_for_a_query(_request):
    return HttpResponse(await sync_to_async(endless_query)())


def outer(_request):
    answer = Client().get("/busy")
    return HttpResponse(answer.content)


class Slow:
    def __str__(self):
        spin()
        return "slow"


def rendering(request):
    return TemplateResponse(request, "lazy.html", {"slow": Slow()})


def chunks():
    yield b"one "
    time.sleep(0.3)
    yield b"two"


def streaming(_request):
    return StreamingHttpResponse(chunks())


stuck = threading.Event()


def uninterruptible(_request):
    """As a call of C's that blocks."""
    stuck.wait(1.0)
    said.append("over")
    return HttpResponse("uninterruptible")


# Who answers for an interrupted request.


def late_callable(request):
    return HttpResponse(f"{request.path} was too slow", status=504)


async def late_coroutine(request):
    await asyncio.sleep(0)
    return HttpResponse(f"{request.path} was too slow", status=504)


def late_with_template(request):
    return TemplateResponse(request, "late.html", {"request": request}, status=504)


def late_with_query(_request):
    with connection.cursor() as cursor:
        cursor.execute(SUM % 1e6)  # long enough for SQLite to ask whether it may go on
        cursor.execute("SELECT count(*) FROM note")
        return HttpResponse(str(cursor.fetchone()[0]), status=504)


def late_and_broken(_request):
    raise ValueError("who answers fails")


def late_and_nothing(_request):
    return None


def sync_only(get_response):
    """A middleware that makes Django run all that is outside it on a thread, under ASGI too."""

    def middleware(request):
        return get_response(request)

    return middleware


def slow_middleware(get_response):
    def middleware(request):
        if "slow" in request.GET:
            spin()
        return get_response(request)

    return middleware


urlpatterns = [
    path(view.__name__, view)
    for view in (
        *(fast, leisurely, busy, sleeping, stubborn, tidy, writing, writes_and_spins, lost_in_transaction, querying),
        *(interrupted_by_itself, limited, querying_within_its_own, patient, limited_async, patient_async),
        *(exempted, exempted_async, waiting, waiting_for_a_query, outer, rendering, streaming, uninterruptible),
    )
]
