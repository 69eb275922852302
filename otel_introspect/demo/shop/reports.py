"""What the back office wants to know."""

# ruff: noqa: TID252 - the shop runs from a copy, under the name `shop`

from __future__ import annotations

from typing import Any

from django.db import connection

from .models import Order, OrderLine

# No index helps with a comparison of differences, so every line is compared with every other.
SIMILAR_PRICES = """
    SELECT count(*)
    FROM shop_orderline AS one JOIN shop_orderline AS other
    ON abs(one.price_cents - other.price_cents) < 5
    WHERE one.id <= %s AND other.id <= %s
"""


def open_orders(count: int) -> list[dict[str, Any]]:
    """The next orders to ship, each with its customer and what is known of its articles."""
    return [summary(order) for order in Order.objects.filter(shipped=False).order_by("pk")[:count]]


def summary(order: Order) -> dict[str, Any]:
    """What the packer sees."""
    lines = list(OrderLine.objects.filter(order=order))
    return {
        "order": order.pk,
        "customer": order.customer.name,
        "total": sum(line.price_cents * line.quantity for line in lines),
        "often_bought": [line.product_id for line in lines if sales_at(line.price_cents) > 1],
    }


def sales_at(price_cents: int) -> int:
    """How many lines of all orders have that price, for which there is no index."""
    return OrderLine.objects.filter(price_cents=price_cents).count()


def similar_prices(lines: int) -> int:
    """How many pairs of order lines differ in price by a few cents only."""
    with connection.cursor() as cursor:
        cursor.execute(SIMILAR_PRICES, [lines, lines])
        (pairs,) = cursor.fetchone()
    return int(pairs)
