"""The project's settings with the URLs of what gets stuck: ``/stuck_in_...``."""

from __future__ import annotations

from django.http import HttpResponse
from django.urls import path
from settings import *  # noqa: F403 - all of them, as Django's own documentation does it
from stuck import WAYS

ROOT_URLCONF = __name__


def get_stuck(_request, way):
    WAYS[way]()
    return HttpResponse("not stuck")


urlpatterns = [
    path("fast", lambda _request: HttpResponse("fast")),
    path("<str:way>", get_stuck),
]
