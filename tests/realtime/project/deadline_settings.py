"""The same site with views that take longer than they may, on PostgreSQL if there is one."""

from __future__ import annotations

import os

from settings import *  # noqa: F403 - the same but for what follows

ROOT_URLCONF = "deadline_urls"
if "PROJECT_POSTGRESQL" in os.environ:
    DATABASES["default"] |= {  # noqa: F405 - as above
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["PROJECT_POSTGRESQL"],
        "NAME": "postgres",
        "USER": "tester",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {"options": os.environ.get("PROJECT_POSTGRESQL_OPTIONS", "")},
    }
