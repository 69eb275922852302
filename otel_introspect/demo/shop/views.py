"""The shop's pages."""

# ruff: noqa: TID252 - the shop runs from a copy, under the name `shop`

from __future__ import annotations

import time

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404

from . import exports, invoices, newsletter, pricing, reports, stock, suppliers
from . import shipping as parcels
from .models import Product
from .workload import workload

CARRIER_SECONDS = 1.6


def home(_request: HttpRequest) -> HttpResponse:
    """Ten products to begin with."""
    return JsonResponse({"products": list(Product.objects.order_by("pk").values("id", "name")[:10])})


def product(_request: HttpRequest, pk: int) -> HttpResponse:
    """One product."""
    found = get_object_or_404(Product, pk=pk)
    return JsonResponse({"name": found.name, "price_cents": found.price_cents})


def cart(_request: HttpRequest) -> HttpResponse:
    """What the customer has chosen so far."""
    return JsonResponse({"articles": []})


def healthz(_request: HttpRequest) -> HttpResponse:
    """Whether the shop is open."""
    return HttpResponse("open\n", content_type="text/plain")


def import_subscribers(_request: HttpRequest) -> HttpResponse:
    """Subscribers from a file that somebody typed."""
    size = workload()
    addresses = [f"{'a' * size.address_length}{number}" for number in range(size.addresses)]
    return JsonResponse({"rejected": newsletter.rejected_addresses(addresses)})


def open_orders(_request: HttpRequest) -> HttpResponse:
    """What is to be shipped."""
    return JsonResponse({"orders": reports.open_orders(workload().open_orders)})


def similar_prices(_request: HttpRequest) -> HttpResponse:
    """The price report."""
    return JsonResponse({"pairs": reports.similar_prices(workload().report_lines)})


def reserve(_request: HttpRequest) -> HttpResponse:
    """The customer wants it; the stock is being recounted."""
    stock.start_maintenance()
    return JsonResponse({"left": stock.reserve("umbrella")})


def close_day(_request: HttpRequest) -> HttpResponse:
    """Answers at once; the work is done in the background."""
    invoices.start_closing_the_day()
    return JsonResponse({"closing": True}, status=202)


def invoice(_request: HttpRequest, pk: int) -> HttpResponse:
    """The invoice of an order."""
    return JsonResponse({"order": pk, "invoice": invoices.next_invoice_number()})


def shipping(_request: HttpRequest) -> HttpResponse:
    """What the parcel will cost."""
    return JsonResponse({"cents": parcels.cheapest_rate(1200)})


def carrier_rates(_request: HttpRequest) -> HttpResponse:
    """The parcel service, as the shop sees it: it takes its time."""
    time.sleep(CARRIER_SECONDS)
    return JsonResponse({"tortoise": 490, "hare": 1290})


def discounts(_request: HttpRequest) -> HttpResponse:
    """The bundle that brings the parcel for nothing, for each group of customers."""
    size = workload()
    prices = [199 + 37 * number for number in range(size.cart_items)]
    best = [pricing.best_bundle([price + group for price in prices]) for group in range(size.cart_rounds)]
    return JsonResponse({"cents": min(best, default=0)})


async def supplier_quote(_request: HttpRequest) -> HttpResponse:
    """What the supplier wants."""
    return JsonResponse({"cents": await suppliers.quote("umbrella")})


def export_orders(_request: HttpRequest) -> StreamingHttpResponse:
    """All orders, as a file."""
    return StreamingHttpResponse(exports.order_export(), content_type="text/csv")
