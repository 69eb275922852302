"""A small site on SQLite, with sessions and a middleware of its own of each kind."""

from __future__ import annotations

import os
import tempfile

SECRET_KEY = "only-for-these-tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
USE_TZ = True
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "middleware.SlowSession",
    # Under ASGI it makes Django run all that is outside it on a thread.
    *(["middleware.sync_only"] if os.environ.get("PROJECT_MIDDLEWARE") == "mixed" else []),
    "middleware.async_capable",
    "middleware.Mixin",
    "django.middleware.common.CommonMiddleware",
]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.auth"]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get(
            "PROJECT_DATABASE", os.path.join(tempfile.gettempdir(), f"project-{os.getpid()}.sqlite3")
        ),
        "ATOMIC_REQUESTS": os.environ.get("PROJECT_ATOMIC") == "true",
    }
}
WSGI_APPLICATION = "wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
