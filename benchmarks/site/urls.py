"""A view that does nothing, one that makes many calls, and one that asks a database and then waits."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.template import Context, Engine
from django.urls import path


def view(_request: HttpRequest) -> HttpResponse:
    """Answer at once."""
    return HttpResponse(b"ok", content_type="text/plain")


_PAGE: Final = Engine().from_string(
    "{% for row in rows %}{% if row.name %}{{ row.name|upper|lower|title }} {{ row.more.number|default:'-' }}"
    "{% endif %}{% endfor %}"
)


def dense(_request: HttpRequest, rows: int) -> HttpResponse:
    """Render a page of so many rows: hundreds of thousands of calls, most of them short, as real views make them."""
    page = _PAGE.render(Context({"rows": [{"name": "abc", "more": {"number": row}} for row in range(rows)]}))
    return HttpResponse(page[:100], content_type="text/plain")


def waiting(_request: HttpRequest, milliseconds: int, depth: int) -> HttpResponse:
    """Ask a database five times, as a page does, and be slow under so many more frames."""
    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()
    for number in range(5):
        cursor.execute("SELECT ? AS id, 'umbrella' AS name, 12.5 AS price WHERE 1 = 1", [number]).fetchall()
    connection.close()
    _descend(milliseconds / 1e3, depth)
    return HttpResponse(b"ok", content_type="text/plain")


def _descend(seconds: float, depth: int) -> None:
    if depth > 0:
        _and_on(seconds, depth - 1)  # by turns: the same line twice in a row would be shown once
    else:
        time.sleep(seconds)


def _and_on(seconds: float, depth: int) -> None:
    _descend(seconds, depth - 1)


urlpatterns = [path("", view), path("dense/<int:rows>", dense), path("waiting/<int:milliseconds>/<int:depth>", waiting)]
