"""Which pages the demo asks for, and what it expects to learn about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class SlowVisit:
    """A request that gets stuck.

    Args:
        title: Why it is slow, as a heading.
        path: What is asked for.
        route: How its trace is recognised.
        function: The function that must be on one of the stacks.
        look_at: What the reader should see in the trace.
        before: What is asked for just before, to set the scene.
        alone: Whether nothing else may be asked for meanwhile.
    """

    title: str
    path: str
    route: str
    function: str
    look_at: str
    before: str = ""
    alone: bool = False


SLOW_VISITS: Final = (
    SlowVisit(
        "a catastrophic regular expression",
        "/newsletter/import/",
        "newsletter/import/",
        "rejected_addresses",
        "`re` keeps the interpreter's lock while it matches, so a thread sees it only between two matches: mind how "
        "late each stack is. One match that took all the time would be seen only when it is over.",
    ),
    SlowVisit(
        "too many SQL queries",
        "/orders/open/",
        "orders/open/",
        "open_orders",
        "The tree shows hundreds of alike queries; the stacks show the line that makes them.",
    ),
    SlowVisit(
        "one slow SQL query",
        "/reports/similar-prices/",
        "reports/similar-prices/",
        "similar_prices",
        "The query's span says what, the stack says who asked.",
    ),
    SlowVisit(
        "a lock that another thread holds",
        "/checkout/reserve/",
        "checkout/reserve/",
        "reserve",
        "The other threads are listed below the stacks: one of them is inside `recount_shelves`.",
    ),
    SlowVisit(
        "a file lock that another process may hold",
        "/orders/17/invoice/",
        "orders/<int:pk>/invoice/",
        "invoice_file_lock",
        "No span of its own, no log line: only the stack knows.",
        before="/accounting/close-day/",
    ),
    SlowVisit(
        "somebody else's slow HTTP service",
        "/checkout/shipping/",
        "checkout/shipping/",
        "ask_carrier",
        "The HTTP client is not instrumented, and yet the stack shows whom we wait for.",
        alone=True,
    ),
    SlowVisit(
        "the parcel service itself (the other half of the same wait)",
        "",
        "carrier/rates/",
        "carrier_rates",
        "This is the request that the last one waited for.",
    ),
    SlowVisit(
        "a busy loop in Python",
        "/cart/discounts/",
        "cart/discounts/",
        "best_bundle",
        "Two stacks, two places within the same loop.",
    ),
    SlowVisit(
        "an async view parked on an await",
        "/suppliers/quote/",
        "suppliers/quote/",
        "supplier_reply",
        "The chain of awaits, down to the one that has not come back.",
    ),
    SlowVisit(
        "a streamed body that takes its time",
        "/orders/export/",
        "orders/export/",
        "archived_orders",
        "The request's own span ended before the body began; the stacks are on a span of the body's own.",
    ),
)
"""In the order in which they are made. One without a path is caused by the one before it."""

FAST_PATHS: Final = ("/", "/products/7/", "/cart/")
FAST_ROUTES: Final = frozenset({"", "products/<int:pk>/", "cart/", "accounting/close-day/"})
