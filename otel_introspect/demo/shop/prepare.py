"""Makes the shop's database and measures how much work this machine does in a second and a half.

Run as ``python -m shop.prepare`` with ``DJANGO_SETTINGS_MODULE=shop.settings``.
"""

# ruff: noqa: TID252 - the shop runs from a copy, under the name `shop`

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from .workload import Workload

TARGET_SECONDS = 1.6
ADDRESS_SECONDS = 0.12
LONGEST_ADDRESS = 40
CUSTOMERS, PRODUCTS, ORDERS, LINES_AN_ORDER = 300, 400, 3000, 4


def main() -> None:
    """Everything that has to be there before the first customer comes."""
    django.setup()

    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)
    fill()
    measured().save()


def fill() -> None:
    """A few thousand rows that look like a shop's."""
    from .models import Customer, Order, OrderLine, Product

    Customer.objects.bulk_create(
        Customer(name=f"Customer {number}", email=f"customer{number}@example.com") for number in range(1, CUSTOMERS + 1)
    )
    Product.objects.bulk_create(
        Product(name=f"Article {number}", price_cents=199 + number * 17 % 5000) for number in range(1, PRODUCTS + 1)
    )
    Order.objects.bulk_create(
        Order(customer_id=number % CUSTOMERS + 1, shipped=number % 3 == 0) for number in range(ORDERS)
    )
    OrderLine.objects.bulk_create(
        OrderLine(
            order_id=number // LINES_AN_ORDER + 1,
            product_id=number % PRODUCTS + 1,
            price_cents=199 + number * 7919 % 90_000,
        )
        for number in range(ORDERS * LINES_AN_ORDER)
    )


def measured() -> Workload:
    """The workload that takes about ``TARGET_SECONDS`` in each of the views that depend on the machine."""
    from . import newsletter, pricing, reports
    from .workload import Workload

    length, one_address = 16, 0.0
    while one_address < ADDRESS_SECONDS and length < LONGEST_ADDRESS:
        length += 1
        one_address = seconds(partial(newsletter.is_address, "a" * length))

    items = 10
    one_round = seconds(lambda: pricing.best_bundle([199] * items))
    reports.open_orders(1)  # the first query of a connection is not like the others
    twenty_orders = seconds(lambda: reports.open_orders(20))
    thousand_lines = seconds(lambda: reports.similar_prices(1000))

    return Workload(
        addresses=within(TARGET_SECONDS / one_address, 3, 20),
        address_length=length - 1,  # a digit follows
        # Each of its queries gets a span, which is not free.
        open_orders=within(20 * 0.75 * TARGET_SECONDS / twenty_orders, 60, 350),
        report_lines=within(1000 * (TARGET_SECONDS / thousand_lines) ** 0.5, 1000, ORDERS * LINES_AN_ORDER),
        cart_items=items,
        cart_rounds=within(TARGET_SECONDS / one_round, 10, 10_000),
    )


def seconds(work: Callable[[], object]) -> float:
    """How long *work* takes, the better of two: the machine may be busy with something else."""
    return min(_seconds(work), _seconds(work))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return max(time.perf_counter() - start, 1e-6)


def within(value: float, least: int, most: int) -> int:
    """*value* as a whole number that is neither too small to be slow nor too big to end."""
    return int(min(max(value, least), most))


if __name__ == "__main__":
    main()
