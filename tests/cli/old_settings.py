"""Settings files as they are found in projects: what ``migrate`` is to make of each."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """A file, the variables that it becomes, those that are only proposed, and what is to be said."""

    text: str
    variables: dict[str, str]
    proposed: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


SAMPLES = {
    "as django-admin makes it": Sample(
        '''
        """Django settings for the shop."""

        from pathlib import Path

        BASE_DIR = Path(__file__).resolve().parent.parent
        SECRET_KEY = "django-insecure-1"
        DEBUG = True
        INSTALLED_APPS = [
            "django.contrib.admin",
            "django.contrib.auth",
        ]
        MIDDLEWARE = [
            # First, as its documentation says
            "dogslow.WatchdogMiddleware",
            "django.middleware.security.SecurityMiddleware",
        ]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
        DOGSLOW_TIMER = 3
        DOGSLOW_OUTPUT = BASE_DIR / "slow"
        ''',
        {"WATCHDOG_THRESHOLD": "3000"},
        ("REPORTS_DIR",),
        ("settings.py:15: remove 'dogslow.WatchdogMiddleware' from MIDDLEWARE", "DOGSLOW_OUTPUT, settings.py:20"),
    ),
    "of ten years ago": Sample(
        """
        # -*- coding: utf-8 -*-
        import os
        here = lambda *x: os.path.join(os.path.abspath(os.path.dirname(__file__)), *x)
        ADMINS = (('Me', 'me@example.org'),)
        MIDDLEWARE_CLASSES = (
            'dogslow.WatchdogMiddleware',
            'django.contrib.sessions.middleware.SessionMiddleware',
            'geordi.VisorMiddleware',
        )
        INSTALLED_APPS = ('django.contrib.auth',)
        INSTALLED_APPS += ('geordi', 'django_timelimit')
        DOGSLOW = True
        DOGSLOW_OUTPUT = '/tmp'
        DOGSLOW_TIMER = 25
        DOGSLOW_EMAIL_TO = 'errors@example.org'
        DOGSLOW_EMAIL_FROM = 'no-reply@example.org'
        DOGSLOW_LOGGER = 'syslog_logger'
        DOGSLOW_IGNORE_URLS = ('some_view', 'other_view')
        GEORDI_CELERY = True
        GEORDI_OUTPUT_DIR = here('profiles')
        """,
        {
            "WATCHDOG_THRESHOLD": "25000",
            "EMAIL_TO": "errors@example.org",
            "EMAIL_FROM": "no-reply@example.org",
            "REPORTS_DIR": "/tmp/slow-requests",
            "OTEL_TRACES_EXPORTER": "otlp,introspect_email,introspect_logging,introspect_files",
        },
        ("PROFILER_STORE", "PROFILER_KEY", "PROFILER_ALLOW"),
        (
            "'some_view', 'other_view'",
            "remove 'geordi.VisorMiddleware' from MIDDLEWARE_CLASSES",
            "remove 'geordi' from INSTALLED_APPS",
            "write 'otel_introspect.instrumentation.django' for 'django_timelimit'",
        ),
    ),
    "from the environment": Sample(
        """
        import environ
        env = environ.Env(DEBUG=(bool, False))
        DEBUG = env("DEBUG")
        MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
        if env.bool("WATCH", default=True):
            MIDDLEWARE.insert(0, "dogslow.WatchdogMiddleware")
            DOGSLOW_TIMER = env.int("DOGSLOW_TIMER", default=10)
            DOGSLOW_LOG_TO_FILE = False
            DOGSLOW_LOGGER = "slow"
            DOGSLOW_STACK_VARS = not DEBUG
        """,
        {},
        ("WATCHDOG_THRESHOLD", "WATCHDOG_LOCALS"),
        (
            "settings.py:7: remove 'dogslow.WatchdogMiddleware' from MIDDLEWARE",
            "only in the if of line 6",
            "add introspect_logging to",
        ),
    ),
    "of classes": Sample(
        """
        from configurations import Configuration

        class Base(Configuration):
            MIDDLEWARE = ["dogslow.WatchdogMiddleware"]
            DOGSLOW_TIMER = 10

        class Production(Base):
            DOGSLOW_TIMER = 2.5

            @property
            def DOGSLOW_EMAIL_TO(self):
                return [address for _, address in self.ADMINS]
        """,
        {},
        ("WATCHDOG_THRESHOLD", "WATCHDOG_THRESHOLD"),
        ("only in the class Base", "only in the class Production"),
    ),
    "that prepares for both": Sample(
        """
        from .base import *  # noqa: F403

        try:
            import dogslow
        except ImportError:
            pass
        else:
            MIDDLEWARE = ["dogslow.WatchdogMiddleware", *MIDDLEWARE]  # noqa: F405
        MINUTE = 60
        DOGSLOW_TIMER: float = MINUTE / 4
        """,
        {"WATCHDOG_THRESHOLD": "15000"},
        (),
        ("settings.py:5: it imports dogslow",),
    ),
}
