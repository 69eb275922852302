"""Suppliers, asked asynchronously."""

from __future__ import annotations

import asyncio

REPLY_SECONDS = 1.7
PATIENCE_SECONDS = 10.0


async def quote(article: str) -> int:
    """What the supplier wants for *article*, in cents."""
    reply = await supplier_reply(article)
    return reply + 100


async def supplier_reply(article: str) -> int:
    """Wait for the message with the supplier's answer."""
    loop = asyncio.get_running_loop()
    message: asyncio.Future[int] = loop.create_future()
    loop.call_later(REPLY_SECONDS, message.set_result, 40 * len(article))
    return await asyncio.wait_for(message, PATIENCE_SECONDS)
