"""Which view answers what."""

# ruff: noqa: TID252 - the shop runs from a copy, under the name `shop`

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.home),
    path("products/<int:pk>/", views.product),
    path("cart/", views.cart),
    path("healthz/", views.healthz),
    path("newsletter/import/", views.import_subscribers),
    path("orders/open/", views.open_orders),
    path("orders/<int:pk>/invoice/", views.invoice),
    path("orders/export/", views.export_orders),
    path("reports/similar-prices/", views.similar_prices),
    path("checkout/reserve/", views.reserve),
    path("checkout/shipping/", views.shipping),
    path("cart/discounts/", views.discounts),
    path("suppliers/quote/", views.supplier_quote),
    path("accounting/close-day/", views.close_day),
    path("carrier/rates/", views.carrier_rates),
]
