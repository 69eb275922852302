"""One view."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def view(_request: HttpRequest) -> HttpResponse:
    """Answer at once."""
    return HttpResponse(b"ok", content_type="text/plain")


urlpatterns = [path("", view)]
