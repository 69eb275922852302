"""The same site with a view that calls another service."""

from __future__ import annotations

from settings import *  # noqa: F403 - the same but for what follows

ROOT_URLCONF = "profile_urls"
