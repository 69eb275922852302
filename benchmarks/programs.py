"""The programs of this very environment, and what they are started with."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent

WITHOUT_US: Final = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "introspect,introspect_django,introspect_gunicorn"}
"""Variables that keep ours from being run, the rest of OpenTelemetry unchanged."""


def program(name: str) -> str:
    """The path of an installed command.

    Raises:
        FileNotFoundError: If there is none.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        msg = f"{name} is not installed here"
        raise FileNotFoundError(msg)
    return found


def environment(**variables: str) -> dict[str, str]:
    """What a launched program gets: spans are made and recorded, and nothing is sent anywhere."""
    return {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "PYTHONHASHSEED": "0",  # so that dictionaries are the same in what is compared
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        **variables,
    }
