"""Settings; ``BENCHMARK_MIDDLEWARE`` adds what is to be measured."""

from __future__ import annotations

import os

SECRET_KEY = "nothing here is secret"
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
ROOT_URLCONF = "benchmarks.site.urls"
MIDDLEWARE = [name for name in os.environ.get("BENCHMARK_MIDDLEWARE", "").split(",") if name]
USE_TZ = True

# dogslow's own default, and no files: nothing here is ever due.
DOGSLOW_TIMER = 25
DOGSLOW_LOG_TO_FILE = False
