"""Each view under its name: ``/name`` the synchronous ones, ``/async/name`` and ``/body/name`` the others."""

from __future__ import annotations

import inspect

import awaits
import bodies
import views
from django.urls import path
from django.views import View


def paths(prefix, module):
    for name, found in sorted(vars(module).items()):
        if inspect.isclass(found) and issubclass(found, View) and found is not View:
            yield path(f"{prefix}{name}", found.as_view())
        elif inspect.isfunction(found) and found.__module__ == module.__name__:
            first = next(iter(inspect.signature(found).parameters), "")
            if first.lstrip("_") == "request" and name != "seconds_of":
                yield path(f"{prefix}{name}", found)


urlpatterns = [
    *paths("", views),
    *paths("async/", awaits),
    *paths("body/", bodies),
    path("inner", views.inner_view),
    path("items/<int:item>/", lambda request, item: views.slow(request)),
]
