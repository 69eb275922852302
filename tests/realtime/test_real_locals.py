"""Local variables of real requests, under gunicorn and uvicorn."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.realtime

LOCALS = "otel_introspect.stack.locals"
ON = {"OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS": "true"}


def test_a_view_s_variables(services):
    """
    A view's variables are on its span, without secrets and without a query; the request's own data is not changed.
    """
    service = services("gthread", **ON)
    headers = {"Cookie": "sessionid=hunter2zzz", "Authorization": "Basic hunter2zzz"}
    answer = service.get("/variables?token=hunter2zzz", headers=headers)
    snapshot = service.entry(answer.trace_id).snapshots[0]
    (view,) = [text for text in snapshot.attributes[LOCALS] if text.startswith("in variables (")]
    lines = [line.strip() for line in view.split("\n")[1:]]

    assert (answer.status, answer.body) == (200, "0")
    assert "customers = <django.db.models.query.QuerySet" in view
    assert "customer = <django.utils.functional.SimpleLazyObject object>" in lines
    assert any(line.startswith("user = <django.contrib.auth.models.User id=7, password=<redacted>") for line in lines)
    assert "deferred = <django.contrib.auth.models.User id=8>" in lines
    assert {"session_key = <redacted>", "credentials = <redacted>", "url = 'postgres://<redacted>@db/shop'"} <= {*lines}
    assert "environ = {'HTTP_AUTHORIZATION': <redacted>, 'REQUEST_METHOD': 'GET'}" in lines
    assert "hunter2" not in str(snapshot.attributes[LOCALS])
    assert snapshot.attributes[LOCALS][0].startswith("in sleeping_helper (")


def test_an_async_view_s_variables(services):
    """
    Of a view that awaits, its own coroutine's variables are shown.
    """
    service = services("uvicorn", **ON)
    snapshot = service.ask("/async/nested?seconds=0.8").snapshots[0]
    shown = [text.split("\n") for text in snapshot.attributes[LOCALS]]

    assert [lines[0].split(" (")[0] for lines in shown[:3]] == ["in innermost", "in middle", "in nested"]
    assert [lines[1] for lines in shown[:2]] == ["    seconds = 0.8", "    seconds = 0.8"]
    assert shown[2][1].startswith("    request = <django.core.handlers.asgi.ASGIRequest ")


def test_off_by_default(services):
    """
    Nobody who has not asked for them has variables on a span.
    """
    span = services("gthread").ask("/slow")

    assert span.snapshots
    assert all(LOCALS not in each.attributes for each in span.snapshots)
