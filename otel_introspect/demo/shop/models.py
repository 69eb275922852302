"""What the shop knows: customers, products, and who ordered what."""

from __future__ import annotations

from django.db import models


class Customer(models.Model):
    """Somebody who ordered at least once."""

    name: models.CharField[str, str] = models.CharField(max_length=100)
    email: models.EmailField[str, str] = models.EmailField()

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    """Something that can be ordered."""

    name: models.CharField[str, str] = models.CharField(max_length=100)
    price_cents: models.PositiveIntegerField[int, int] = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """What one customer ordered at one time."""

    customer: models.ForeignKey[Customer, Customer] = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="orders"
    )
    shipped: models.BooleanField[bool, bool] = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"order {self.pk}"


class OrderLine(models.Model):
    """One product of an order."""

    order: models.ForeignKey[Order, Order] = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product: models.ForeignKey[Product, Product] = models.ForeignKey(
        Product, on_delete=models.CASCADE, related_name="lines"
    )
    product_id: int
    quantity: models.PositiveSmallIntegerField[int, int] = models.PositiveSmallIntegerField(default=1)
    price_cents: models.PositiveIntegerField[int, int] = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.quantity} of product {self.product_id}"
