"""The project with Django's own mail settings."""

from __future__ import annotations

import os

from settings import *  # noqa: F403

EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["PROJECT_SMTP_PORT"])
DEFAULT_FROM_EMAIL = "shop@shop.example"
