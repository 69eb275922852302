"""Settings of the shop; what differs from one run to the next comes from the environment."""

from __future__ import annotations

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# Serves one machine's loopback interface for half a minute; there is nothing to protect.
SECRET_KEY = "not-a-secret"  # noqa: S105
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = ["shop"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

INVOICE_LOCK = BASE_DIR / "invoices.lock"
WORKLOAD = BASE_DIR / "workload.json"
CARRIER_URL = os.environ.get("SHOP_CARRIER_URL", "http://127.0.0.1:8000")
"""Where the parcel service answers: in the demo, the shop itself."""
