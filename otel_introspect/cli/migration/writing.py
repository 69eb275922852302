"""How variables are written for those who read them: a shell, Docker, systemd, Compose."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Final


def _shell(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _env(name: str, value: str) -> str:
    # docker --env-file and podman take all after the = as it is.
    return f"{name}={value}"


def _systemd(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'Environment="{name}={escaped}"'


def _compose(name: str, value: str) -> str:
    # What is JSON is YAML; a dollar sign would begin a variable of Compose's own.
    return f"{name}: {json.dumps(value.replace('$', '$$'), ensure_ascii=False)}"


FORMATS: Final[Mapping[str, Callable[[str, str], str]]] = {
    "shell": _shell,
    "env": _env,
    "systemd": _systemd,
    "compose": _compose,
}
"""Makes the line that sets a variable, by the format's name."""
