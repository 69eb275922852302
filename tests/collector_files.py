"""The files of collector_config, read as the programs that they are for read them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1] / "collector_config"
COLLECTORS = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.yaml") if "receivers:" in path.read_text()
)
COLLECTORS.remove("tempo.yaml")
COMPOSE = ["compose.yaml", "otelcol-scale/compose.yaml"]
_PLACEHOLDER = re.compile(r"\$\{env:([A-Z0-9_]+)(?::-([^}]*))?\}")


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def parse(name):
    return yaml.safe_load(text(name))


def collector(name, environ=None):
    """A collector's configuration with the environment put in, and $$ read as $."""
    return _expanded(parse(name), environ or {})


def _expanded(value, environ):
    if isinstance(value, dict):
        return {key: _expanded(each, environ) for key, each in value.items()}
    if isinstance(value, list):
        return [_expanded(each, environ) for each in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    replaced = _PLACEHOLDER.sub(lambda found: environ.get(found[1], found[2] or ""), value)
    # A placeholder alone has the type that YAML sees in its value.
    return yaml.safe_load(replaced) if whole else replaced.replace("$$", "$")


def placeholders(name):
    """Each variable and its default, or None."""
    return [(found[1], found[2]) for found in _PLACEHOLDER.finditer(text(name))]


def components(config):
    """(kind, id, configuration) of each that is defined."""
    for kind in ("receivers", "processors", "exporters", "connectors", "extensions"):
        for name, given in (config.get(kind) or {}).items():
            yield kind, name, given or {}
