"""Middleware that is slow when the request says so: ``?slow_in=sync_only``."""

from __future__ import annotations

import asyncio
import time

from asgiref.sync import iscoroutinefunction
from django.contrib.sessions.middleware import SessionMiddleware
from django.utils.decorators import async_only_middleware, sync_and_async_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin

SECONDS = 0.8


def wanted(request, name):
    return request.GET.get("slow_in") == name


def dawdle_in_sync_only():
    time.sleep(SECONDS)


@sync_only_middleware
def sync_only(get_response):
    def middleware(request):
        if wanted(request, "sync_only"):
            dawdle_in_sync_only()
        response = get_response(request)
        if wanted(request, "sync_only_response"):
            dawdle_in_sync_only()
        return response

    return middleware


async def park_in_async_capable():
    await asyncio.sleep(SECONDS)


def dawdle_in_async_capable():
    time.sleep(SECONDS)


@sync_and_async_middleware
def async_capable(get_response):
    if iscoroutinefunction(get_response):

        async def middleware(request):
            if wanted(request, "async_capable"):
                await park_in_async_capable()
            response = await get_response(request)
            if wanted(request, "async_capable_response"):
                await park_in_async_capable()
            return response
    else:

        def middleware(request):
            if wanted(request, "async_capable"):
                dawdle_in_async_capable()
            response = get_response(request)
            if wanted(request, "async_capable_response"):
                dawdle_in_async_capable()
            return response

    return middleware


@async_only_middleware
def async_only(get_response):
    async def middleware(request):
        if wanted(request, "async_only"):
            await park_in_async_capable()
        return await get_response(request)

    return middleware


class Mixin(MiddlewareMixin):
    def process_request(self, request):
        if wanted(request, "mixin"):
            self.dawdle_in_mixin()

    def process_response(self, request, response):
        if wanted(request, "mixin_response"):
            self.dawdle_in_mixin()
        return response

    def process_view(self, request, view, args, kwargs):
        if wanted(request, "mixin_view"):
            self.dawdle_in_mixin()

    def dawdle_in_mixin(self):
        time.sleep(SECONDS)


class SlowSession(SessionMiddleware):
    """Django's own, which under ASGI runs on a thread; its store is slow."""

    def process_response(self, request, response):
        if wanted(request, "session"):
            self.save_slowly()
        return super().process_response(request, response)

    def save_slowly(self):
        time.sleep(SECONDS)
