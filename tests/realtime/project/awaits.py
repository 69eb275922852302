"""Asynchronous views, each parked in a way of its own."""

from __future__ import annotations

import asyncio
import time

import views
from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpResponse
from django.utils.decorators import method_decorator
from django.views import View

from otel_introspect import exempt, snapshot


def seconds_of(request):
    return float(request.GET.get("seconds", "0.8"))


async def fast(_request):
    return HttpResponse("fast")


async def regex(request):
    """Keeps the GIL on the event loop's thread."""
    return views.regex(request)


async def innermost(seconds):
    await asyncio.sleep(seconds)


async def middle(seconds):
    await innermost(seconds)


async def nested(request):
    await middle(seconds_of(request))
    return HttpResponse("nested")


async def first_leg(seconds):
    await asyncio.sleep(seconds)


async def second_leg(seconds):
    await asyncio.sleep(seconds)


async def gather(request):
    await asyncio.gather(first_leg(seconds_of(request)), second_leg(seconds_of(request)))
    return HttpResponse("gather")


async def wait_for(request):
    await asyncio.wait_for(innermost(seconds_of(request)), 20)
    return HttpResponse("wait_for")


async def task(request):
    await asyncio.create_task(innermost(seconds_of(request)))
    return HttpResponse("task")


async def shield(request):
    await asyncio.shield(asyncio.create_task(innermost(seconds_of(request))))
    return HttpResponse("shield")


async def wait(request):
    await asyncio.wait([asyncio.create_task(innermost(seconds_of(request)))])
    return HttpResponse("wait")


async def numbers(seconds):
    yield 1
    await asyncio.sleep(seconds)
    yield 2


async def async_generator(request):
    async for _ in numbers(seconds_of(request)):
        pass
    return HttpResponse("async_generator")


async def asend(request):
    stream = numbers(seconds_of(request))
    await stream.asend(None)
    await stream.asend(None)
    await stream.aclose()
    return HttpResponse("asend")


async def anext_default(request):
    stream = numbers(seconds_of(request))
    await anext(stream, None)
    await anext(stream, None)
    await stream.aclose()
    return HttpResponse("anext_default")


class Door:
    def __init__(self, seconds):
        self.seconds = seconds

    async def __aenter__(self):
        await asyncio.sleep(self.seconds)

    async def __aexit__(self, *_):
        pass

    def __await__(self):
        yield from asyncio.sleep(self.seconds).__await__()


async def context_manager(request):
    async with Door(seconds_of(request)):
        pass
    return HttpResponse("context_manager")


async def awaitable(request):
    await Door(seconds_of(request))
    return HttpResponse("awaitable")


async def event(request):
    waiting = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds_of(request), waiting.set)
    await waiting.wait()
    return HttpResponse("event")


async def queue(request):
    line = asyncio.Queue()
    asyncio.get_running_loop().call_later(seconds_of(request), line.put_nowait, 1)
    await line.get()
    return HttpResponse("queue")


async def semaphore(request):
    limit = asyncio.Semaphore(1)
    await limit.acquire()
    asyncio.get_running_loop().call_later(seconds_of(request), limit.release)
    await limit.acquire()
    return HttpResponse("semaphore")


def blocking_helper(seconds):
    time.sleep(seconds)


async def to_thread(request):
    await asyncio.to_thread(blocking_helper, seconds_of(request))
    return HttpResponse("to_thread")


async def sensitive(request):
    await sync_to_async(blocking_helper, thread_sensitive=True)(seconds_of(request))
    return HttpResponse("sensitive")


async def insensitive(request):
    await sync_to_async(blocking_helper, thread_sensitive=False)(seconds_of(request))
    return HttpResponse("insensitive")


def back_to_async(request):
    """A synchronous view that waits for a coroutine."""
    async_to_sync(innermost)(seconds_of(request))
    return HttpResponse("back_to_async")


async def blocking(request):
    """What one must not do: the whole event loop stands still."""
    blocking_helper(seconds_of(request))
    return HttpResponse("blocking")


async def raising(request):
    await innermost(seconds_of(request))
    msg = "slow, and then this"
    raise ValueError(msg)


async def cancelled(request):
    await innermost(float(request.GET.get("seconds", "0")))
    raise asyncio.CancelledError


async def disconnected(request):
    """Runs longer than its client waits."""
    await innermost(seconds_of(request))
    return HttpResponse("disconnected")


async def with_snapshot(_request):
    return HttpResponse("true" if await take_it() else "false")


async def take_it():
    return snapshot()


class ByClass(View):
    async def get(self, request):
        await self.think(seconds_of(request))
        return HttpResponse("by class")

    async def think(self, seconds):
        await asyncio.sleep(seconds)


@exempt
async def exempted(request):
    await innermost(seconds_of(request))
    return HttpResponse("exempted")


@method_decorator(exempt, name="dispatch")
class ExemptedClass(View):
    async def get(self, request):
        await innermost(seconds_of(request))
        return HttpResponse("exempted class")


# As in views: names of their own, to tell a frame of another request.


async def delta(request):
    await delta_step(seconds_of(request))
    return HttpResponse("delta")


async def delta_step(seconds):
    await asyncio.sleep(seconds)


async def epsilon(request):
    await epsilon_step(seconds_of(request))
    return HttpResponse("epsilon")


async def epsilon_step(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0)
        time.sleep(0.005)


async def zeta(request):
    await asyncio.gather(zeta_step(seconds_of(request)), zeta_step(seconds_of(request)))
    return HttpResponse("zeta")


async def zeta_step(seconds):
    await asyncio.sleep(seconds / 2)
    await sync_to_async(zeta_blocking)(seconds / 2)


def zeta_blocking(seconds):
    time.sleep(seconds)


async def eta(request):
    await eta_step(seconds_of(request))
    return HttpResponse("eta")


async def eta_step(seconds):
    await asyncio.to_thread(eta_blocking, seconds)


def eta_blocking(seconds):
    time.sleep(seconds)
