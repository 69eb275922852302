"""Views whose body is made while it is sent."""

from __future__ import annotations

import asyncio
import tempfile
import time

from django.http import FileResponse, StreamingHttpResponse

from otel_introspect import exempt


def seconds_of(request):
    return float(request.GET.get("seconds", "0.8"))


def sync_chunks(seconds):
    yield b"first "
    time.sleep(seconds)
    yield b"second"


def sync_body(request):
    return StreamingHttpResponse(sync_chunks(seconds_of(request)))


async def sync_body_of_async_view(request):
    return StreamingHttpResponse(sync_chunks(seconds_of(request)))


async def async_chunks(seconds):
    yield b"first "
    await chunk_source(seconds)
    yield b"second"


async def chunk_source(seconds):
    await asyncio.sleep(seconds)


async def async_body(request):
    return StreamingHttpResponse(async_chunks(seconds_of(request)))


def async_body_of_sync_view(request):
    return StreamingHttpResponse(async_chunks(seconds_of(request)))


def raising_chunks(seconds):
    yield b"first "
    time.sleep(seconds)
    msg = "in the middle of the body"
    raise ValueError(msg)


def raising_body(request):
    return StreamingHttpResponse(raising_chunks(seconds_of(request)))


async def raising_async_chunks(seconds):
    yield b"first "
    await chunk_source(seconds)
    msg = "in the middle of the body"
    raise ValueError(msg)


async def raising_async_body(request):
    return StreamingHttpResponse(raising_async_chunks(seconds_of(request)))


def endless_chunks():
    for n in range(200):
        yield b"x" * 65536
        time.sleep(0.02 if n else 0.8)


def long_body(_request):
    return StreamingHttpResponse(endless_chunks())


async def endless_async_chunks():
    for n in range(200):
        yield b"x" * 65536
        await asyncio.sleep(0.02 if n else 0.8)


async def long_async_body(_request):
    return StreamingHttpResponse(endless_async_chunks())


class NeverIterated:
    """A body that a HEAD request leaves untouched."""

    def __iter__(self):
        return iter([b"body"])


def head_body(_request):
    return StreamingHttpResponse(NeverIterated())


def file_body(_request):
    file = tempfile.TemporaryFile()
    file.write(b"z" * 100_000)
    file.seek(0)
    return FileResponse(file)


class SlowFile:
    def __init__(self):
        self.left = 2

    def read(self, _size=-1):
        self.left -= 1
        if self.left < 0:
            return b""
        self.read_slowly()
        return b"file"

    def read_slowly(self):
        time.sleep(0.5)

    def close(self):
        pass


def slow_file_body(_request):
    return FileResponse(SlowFile())


@exempt
def exempted_body(request):
    return StreamingHttpResponse(sync_chunks(seconds_of(request)))
