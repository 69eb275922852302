"""Synchronous views, each slow in a way of its own."""

from __future__ import annotations

import contextvars
import ctypes
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
import time

from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.utils.decorators import method_decorator
from django.views import View
from opentelemetry import trace

from otel_introspect import exempt, snapshot


def seconds_of(request):
    return float(request.GET.get("seconds", "0.8"))


def sleeping_helper(seconds):
    time.sleep(seconds)  # the line that sleeps


def fast(_request):
    return HttpResponse("fast")


def slow(request):
    sleeping_helper(seconds_of(request))
    return HttpResponse("slow")


def busy(request):
    end = time.monotonic() + seconds_of(request)
    turns = 0
    while time.monotonic() < end:
        turns += 1
    return HttpResponse("busy")


def regex(request):
    """Keeps the GIL in one call for about that long, or twice that."""
    seconds = seconds_of(request)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        re.match(r"^(a+)+$", "a" * 14 + "!")
        took.append(time.perf_counter() - began)
    length = 14 + math.ceil(math.log2(seconds / min(took)))  # each letter more takes twice as long
    re.match(r"^(a+)+$", "a" * length + "!")
    return HttpResponse("regex")


def decorated(request):
    """Has events and attributes of its own."""
    span = trace.get_current_span()
    span.set_attribute("shop.basket", 3)
    span.set_attribute("shop.tags", ["a", "b"])
    span.add_event("reserved", {"shop.item": "kettle"})
    sleeping_helper(seconds_of(request))
    span.add_event("paid", {"shop.amount": 9.5})
    return HttpResponse("decorated")


def variables(request):
    """Has variables of which some would ask the database, some are nobody's business; says how often it was asked."""
    from django.contrib.auth.models import User
    from django.db.backends.utils import CursorWrapper
    from django.utils.functional import SimpleLazyObject

    asked = []
    execute = CursorWrapper.execute

    def counting(cursor, *given, **named):
        asked.append(given)
        return execute(cursor, *given, **named)

    CursorWrapper.execute = counting  # for every connection: whoever else reads them does so on another thread
    try:
        customers = User.objects.filter(is_active=True)
        customer = SimpleLazyObject(customers.get)
        user = User(id=7, username="bob", password="hunter2zzz")
        deferred = User.from_db("default", ["id"], [8])
        session_key = credentials = "hunter2zzz"
        environ = {"HTTP_AUTHORIZATION": "Bearer hunter2zzz", "REQUEST_METHOD": "GET"}
        url = "postgres://shop:hunter2zzz@db/shop"
        sleeping_helper(seconds_of(request))
        del customers, customer, user, deferred, session_key, credentials, environ, url
    finally:
        CursorWrapper.execute = execute
    return HttpResponse(str(len(asked)))


def crowded(request):
    """Fills its span to the last event and nearly to the last attribute."""
    span = trace.get_current_span()
    for n in range(128):
        span.add_event(f"event {n}")
    for n in range(200):
        span.set_attribute(f"own.{n}", n)
    sleeping_helper(seconds_of(request))
    return HttpResponse("crowded")


def descend(levels, seconds):
    if levels:
        descend(levels - 1, seconds)
    else:
        time.sleep(seconds)


def deep(request):
    descend(200, seconds_of(request))
    return HttpResponse("deep")


def raising(request):
    sleeping_helper(seconds_of(request))
    msg = "slow, and then this"
    raise ValueError(msg)


def with_sql(request):
    """A query that takes long, in a transaction if the settings say so."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        sleeping_helper(seconds_of(request))
    return HttpResponse(json.dumps({"atomic": connection.in_atomic_block}))


class ByClass(View):
    def get(self, request):
        self.think(seconds_of(request))
        return HttpResponse("by class")

    def think(self, seconds):
        time.sleep(seconds)


def inner_view(request):
    sleeping_helper(seconds_of(request))
    return HttpResponse("inner")


def nested(request):
    """Asks its own site within the process, as some applications' tests and prefetchers do."""
    answer = Client().get(f"/inner?seconds={request.GET.get('inner', '0')}")
    after_inner(float(request.GET.get("after", "0.8")))
    return HttpResponse(answer.content)


def after_inner(seconds):
    time.sleep(seconds)


def with_snapshot(_request):
    return HttpResponse(json.dumps(take_it()))


def take_it():
    return snapshot()


class Odd(BaseException):
    """No ``Exception``, so that nobody catches it."""


def aborted(request):
    sleeping_helper(float(request.GET.get("seconds", "0")))
    raise {"odd": Odd, "exit": SystemExit, "interrupt": KeyboardInterrupt}[request.GET["by"]]("the view was aborted")


def exiting_thread(_request):
    sys.exit("from within a request")


@exempt
def exempted(request):
    sleeping_helper(seconds_of(request))
    return HttpResponse("exempted")


@method_decorator(exempt, name="dispatch")
class ExemptedClass(View):
    def get(self, request):
        sleeping_helper(seconds_of(request))
        return HttpResponse("exempted class")


def excluded(request):
    sleeping_helper(seconds_of(request))
    return HttpResponse("excluded")


# Two requests at once: each has its own function names, so that a frame of another one is told at a glance.


def alpha(request):
    alpha_step(seconds_of(request))
    return HttpResponse("alpha")


def alpha_step(seconds):
    time.sleep(seconds)


def beta(request):
    beta_step(seconds_of(request))
    return HttpResponse("beta")


def beta_step(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)


def gamma(request):
    gamma_step(seconds_of(request))
    return HttpResponse("gamma")


def gamma_step(seconds):
    threading.Event().wait(seconds)


_till = threading.Lock()


def contended(request):
    with _till:
        holding_the_lock(float(request.GET.get("seconds", "0.2")))
    return HttpResponse("contended")


def holding_the_lock(seconds):
    time.sleep(seconds)


_pool_lock = threading.Lock()


def contention(request):
    """Five threads wait for one lock, which this request holds."""

    def waiting_for_the_lock():
        with _pool_lock:
            pass

    threads = [threading.Thread(target=waiting_for_the_lock, name=f"waiter-{n}") for n in range(5)]
    with _pool_lock:
        for each in threads:
            each.start()
        sleeping_helper(seconds_of(request))
    for each in threads:
        each.join()
    return HttpResponse("contention")


def forking(request):
    """A forked child makes a slow entry span of its own, and this one goes on."""
    child = os.fork()
    if not child:
        status = 1
        try:
            in_forked_child(request.GET["marker"], seconds_of(request))
            status = 0
        finally:
            os._exit(status)
    sleeping_helper(seconds_of(request))
    return HttpResponse(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


def in_forked_child(marker, seconds):
    from opentelemetry.context import Context

    tracer = trace.get_tracer("child")
    with tracer.start_as_current_span(f"child {marker}", context=Context()):
        child_work(seconds)
    trace.get_tracer_provider().force_flush()


def child_work(seconds):
    time.sleep(seconds)


def with_multiprocessing(request):
    process = multiprocessing.get_context("fork").Process(
        target=in_forked_child, args=(request.GET["marker"], seconds_of(request))
    )
    process.start()
    process.join(20)
    return HttpResponse(str(process.exitcode))


def many_forks(request):
    """Forks again and again while the introspector is busy with this request."""
    statuses = []
    for _ in range(int(request.GET.get("times", "200"))):
        child = os.fork()
        if not child:
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
    sleeping_helper(0.5)
    return HttpResponse(str(statuses.count(0)))


def who(_request):
    """About this process."""
    return HttpResponse(
        json.dumps(
            {
                "pid": os.getpid(),
                "threads": [each.name for each in threading.enumerate()],
                "trace": format(trace.get_current_span().get_span_context().trace_id, "032x"),
            }
        )
    )


def die(request):
    """Ends the process, after a while, in a way that Python hears nothing of."""
    before_the_end(seconds_of(request))
    by = request.GET["by"]
    if by == "segfault":
        ctypes.string_at(0)
    elif by == "exit":
        os._exit(3)
    elif by == "abort":
        ctypes.CDLL(None).signal(signal.SIGABRT, None)  # from any thread, where gunicorn has a handler of its own
        os.abort()
    else:
        out_of_memory()


def before_the_end(seconds):
    time.sleep(seconds)


def out_of_memory():
    """What the kernel does to a process that wants more than there is, where Python itself can still say so."""
    resource.setrlimit(resource.RLIMIT_AS, (256 * 1024 * 1024, resource.RLIM_INFINITY))
    kept = []
    try:
        while True:
            kept.append(bytearray(16 * 1024 * 1024))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


def adding(_request):
    """Keeps the GIL in one call."""
    sum(range(10**10))
    return HttpResponse("adding")


def stubborn(request):
    sleeping_helper(seconds_of(request))
    return HttpResponse("stubborn")


def late(_request):
    """Answers at once; what it has begun takes a snapshot when the request's span has ended."""
    threading.Thread(target=contextvars.copy_context().run, args=(after_its_end,)).start()
    return HttpResponse("late")


def after_its_end():
    time.sleep(0.5)
    snapshot()
