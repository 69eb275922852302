"""A view that does nothing, and one that makes many calls."""

from __future__ import annotations

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


urlpatterns = [path("", view), path("dense/<int:rows>", dense)]
