"""A view that calls another service as an instrumented client does; and the whole site otherwise."""

from __future__ import annotations

import urllib.request

from django.http import HttpResponse
from django.urls import path
from opentelemetry.propagate import inject
from urls import urlpatterns as others


def calling(request):
    headers = {}
    inject(headers)
    asking = urllib.request.Request(request.GET["url"], headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asking, timeout=20) as answer:
        return HttpResponse(answer.read())


urlpatterns = [path("calling", calling), *others]
