"""All that the checks look at, gathered once, so that a check is a function of plain data."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

Telemetry = Literal["traces", "metrics", "logs"]

OUR_DISTRIBUTION: Final = "otel-introspect"
LAUNCHER: Final = "opentelemetry-instrument"
INSTRUMENTORS: Final = "opentelemetry_instrumentor"
CONFIGURATORS: Final = "opentelemetry_configurator"
DISTROS: Final = "opentelemetry_distro"
SAMPLERS: Final = "opentelemetry_traces_sampler"
TELEMETRY: Final[tuple[Telemetry, ...]] = ("traces", "metrics", "logs")
_SDK: Final = "opentelemetry-sdk"
_INSTRUMENTATION: Final = "opentelemetry-instrumentation"
_CONFIGURATION: Final = "opentelemetry-configuration"


def exporters_of(telemetry: Telemetry) -> str:
    """The group of the exporters of one kind of telemetry."""
    return f"opentelemetry_{telemetry}_exporter"


_GROUPS: Final = (INSTRUMENTORS, CONFIGURATORS, DISTROS, SAMPLERS, *(exporters_of(each) for each in TELEMETRY))


@dataclass(frozen=True)
class Plugin:
    """One entry point: read, never loaded.

    Args:
        name: Its name in the group.
        value: Where it points to.
        distribution: Who brings it, with version; empty if that is not known.
    """

    name: str
    value: str = ""
    distribution: str = ""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The Python that runs this, which is the one that an application started here gets.

    Args:
        name: Implementation and version.
        free_threaded: Whether it was built so that it can run without the GIL.
        gil: Whether the GIL is on.
    """

    name: str = "CPython"
    free_threaded: bool = False
    gil: bool = True


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What an application started here will meet.

    Args:
        environ: The environment.
        versions: Version of each installed distribution, by normalised name.
        plugins: Entry points, by group, in the order in which the launcher meets them.
        interpreter: The Python.
        directory: Where we were started; the launcher puts it on the application's path. None if it is gone.
        launcher: The ``opentelemetry-instrument`` that the shell would start, if any.
        scripts: Where this environment keeps its own ``opentelemetry-instrument``.
        sdk_variables: The text of the SDK's own list of environment variables; empty if it cannot be read.
        reads_files: Whether what reads configuration files is installed: in older SDKs a part, now a distribution.
    """

    environ: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, tuple[Plugin, ...]] = field(default_factory=dict)
    interpreter: Interpreter = Interpreter()
    directory: Path | None = None
    launcher: Path | None = None
    scripts: Path | None = None
    sdk_variables: str = ""
    reads_files: bool = False

    def value(self, variable: str) -> str:
        """The value of an environment variable; an empty one is an unset one."""
        return self.environ.get(variable, "").strip()

    def is_true(self, variable: str) -> bool:
        """Whether a boolean variable is true, in OpenTelemetry's reading."""
        return self.value(variable).lower() == "true"

    def found(self, group: str) -> tuple[Plugin, ...]:
        """The entry points of a group."""
        return self.plugins.get(group, ())

    def names(self, group: str) -> tuple[str, ...]:
        """The names in a group, each once."""
        return tuple(dict.fromkeys(each.name for each in self.found(group)))

    def has_module(self, dotted: str) -> bool:
        """Whether the application could import a module. Looks for its file and imports nothing, no parent either."""
        if not all(part.isidentifier() for part in dotted.split(".")):
            return False
        spec: ModuleSpec | None = None
        name = ""
        for part in dotted.split("."):
            if name and (spec is None or spec.submodule_search_locations is None):
                return False
            name = f"{name}.{part}" if name else part
            if spec is None:
                spec = PathFinder.find_spec(name, [str(self.directory)]) if self.directory else None
                # Only for a top-level name: for a dotted one this would import its parents.
                spec = spec or find_spec(name)
            else:
                spec = PathFinder.find_spec(name, list(spec.submodule_search_locations or ()))
            if spec is None:
                return False
        return True


def normalised(distribution: str) -> str:
    """The name of a distribution in the one spelling that all its spellings share.

    >>> normalised("OpenTelemetry_SDK")
    'opentelemetry-sdk'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


def nearest_directory(path: Path) -> tuple[Path, bool]:
    """The nearest of *path* and its parents that is there, and whether this user can make something in it."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    return nearest, nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def gather(environ: Mapping[str, str] | None = None) -> Surroundings:
    """Look around, without importing or starting anything."""
    environ = dict(os.environ if environ is None else environ)
    launcher = shutil.which(LAUNCHER, path=environ.get("PATH"))
    versions = dict(_versions())
    return Surroundings(
        environ=environ,
        versions=versions,
        plugins=_plugins(),
        interpreter=_interpreter(),
        directory=_directory(),
        launcher=Path(launcher) if launcher else None,
        scripts=_scripts(),
        sdk_variables=_sdk_variables(),
        reads_files=_CONFIGURATION in versions or _in_sdk("_configuration/file/__init__.py").is_file(),
    )


def _versions() -> Iterator[tuple[str, str]]:
    seen = set()
    for distribution in metadata.distributions():
        try:
            name, version = normalised(distribution.metadata["Name"]), distribution.version
        except Exception:  # noqa: BLE001, S112 - half-removed packages leave a directory without metadata, or with any
            continue
        if name not in seen:  # the first on the path is the one that gets imported
            seen.add(name)
            yield name, version


def _plugins() -> dict[str, tuple[Plugin, ...]]:
    return {group: tuple(_in_group(group)) for group in _GROUPS}


def _in_group(group: str) -> Iterator[Plugin]:
    for point in metadata.entry_points(group=group):
        try:
            distribution = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        except Exception:  # noqa: BLE001 - as above
            distribution = ""
        yield Plugin(point.name, point.value, distribution)


def _interpreter() -> Interpreter:
    is_gil_enabled = getattr(sys, "_is_gil_enabled", None)
    return Interpreter(
        name=f"{platform.python_implementation()} {platform.python_version()}",
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        gil=bool(is_gil_enabled()) if is_gil_enabled else True,
    )


def _scripts() -> Path | None:
    # What was installed for one user, or under a prefix, is not where sysconfig says.
    try:
        distribution = metadata.distribution(_INSTRUMENTATION)
        for each in distribution.files or ():
            if each.stem == LAUNCHER:
                return Path(str(distribution.locate_file(each))).resolve().parent
    except (metadata.PackageNotFoundError, OSError, UnicodeError):
        pass
    scripts = sysconfig.get_path("scripts")
    return Path(scripts) if scripts else None


def _directory() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None


def _sdk_variables() -> str:
    # Read as text: only processors and exporters may import the SDK, and nothing here needs it running.
    try:
        return _in_sdk("environment_variables/__init__.py").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return ""


def _in_sdk(path: str) -> Path:
    """Where a file of the SDK is, or would be."""
    try:
        return Path(str(metadata.distribution(_SDK).locate_file(f"opentelemetry/sdk/{path}")))
    except metadata.PackageNotFoundError:
        return Path(path)
