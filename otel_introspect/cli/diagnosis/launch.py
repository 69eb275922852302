"""What the launcher does here: which Python, which OpenTelemetry, which instrumentations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from otel_introspect.cli.diagnosis.finding import Finding, note, ok, problem
from otel_introspect.cli.diagnosis.surroundings import (
    CONFIGURATORS,
    DISTROS,
    INSTRUMENTORS,
    LAUNCHER,
    OUR_DISTRIBUTION,
    Plugin,
    Surroundings,
)

SDK_DISABLED: Final = "OTEL_SDK_DISABLED"
DISABLED_INSTRUMENTATIONS: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
DJANGO_SETTINGS_MODULE: Final = "DJANGO_SETTINGS_MODULE"
_DISTRO: Final = "OTEL_PYTHON_DISTRO"
_CONFIGURATOR: Final = "OTEL_PYTHON_CONFIGURATOR"
_DJANGO_INSTRUMENT: Final = "OTEL_PYTHON_DJANGO_INSTRUMENT"
_OTEL_DISTRO: Final = "opentelemetry.distro:"
_ALL: Final = "*"
# What is lost without each of ours, and what it is for, without which it may be missing.
_LOSSES: Final = (
    ("introspect", "no request is watched", None),
    ("introspect_django", "async views and streamed bodies are not seen", "django"),
    ("introspect_gunicorn", "a worker that gunicorn gives up on takes its evidence along", "gunicorn"),
)


def python(here: Surroundings) -> Iterator[Finding]:
    """Which Python, and which of us."""
    interpreter = here.interpreter
    if interpreter.free_threaded:
        build = f", free-threaded build with the GIL {'on' if interpreter.gil else 'off'}"
    else:
        build = ""
    yield ok("python", f"{interpreter.name}{build}")
    version = here.versions.get(OUR_DISTRIBUTION)
    if version:
        yield ok("package", f"{OUR_DISTRIBUTION} {version}")
    else:
        yield problem(
            "package",
            f"{OUR_DISTRIBUTION} is imported but not installed: the launcher finds only what has entry points.",
            f"pip install {OUR_DISTRIBUTION}",
        )


def sdk(here: Surroundings) -> Iterator[Finding]:
    """API and SDK, and whether they fit each other."""
    api, sdk = here.versions.get("opentelemetry-api"), here.versions.get("opentelemetry-sdk")
    if not sdk or not api:
        absent = " and ".join(
            name for name, found in (("opentelemetry-api", api), ("opentelemetry-sdk", sdk)) if not found
        )
        yield problem("sdk", f"{absent} not found: there are no spans to watch.", "pip install opentelemetry-sdk")
    elif api != sdk:
        yield note(
            "sdk",
            f"opentelemetry-sdk {sdk} with opentelemetry-api {api}: each SDK is made for the API of its own version.",
            f"pip install opentelemetry-sdk=={sdk} opentelemetry-api=={sdk}",
        )
    else:
        yield ok("sdk", f"opentelemetry-sdk {sdk}, opentelemetry-api {api}")
    if here.is_true(SDK_DISABLED):
        yield problem(
            "sdk", f"{SDK_DISABLED}=true: the SDK makes no spans, so none is watched.", f"Unset {SDK_DISABLED}."
        )


def launcher(here: Surroundings) -> Iterator[Finding]:
    """``opentelemetry-instrument``, and who sets up the provider when it runs."""
    version = here.versions.get("opentelemetry-instrumentation")
    if not version:
        yield problem(
            "launcher",
            f"opentelemetry-instrumentation, which brings {LAUNCHER}, is not installed.",
            "pip install opentelemetry-distro",
        )
    else:
        yield from _launcher_on_path(here, version)
    if chosen_configurator(here):
        configurator = chosen_configurator(here)
        yield ok("provider", f"set up by {configurator.distribution or configurator.value}" if configurator else "")
    elif here.found(CONFIGURATORS):
        yield problem(
            "provider",
            f"{_CONFIGURATOR}={here.value(_CONFIGURATOR)} names none that is installed "
            f"({', '.join(here.names(CONFIGURATORS))}): nothing sets up a tracer provider.",
            f"Unset {_CONFIGURATOR}.",
        )
    else:
        yield problem(
            "provider",
            "opentelemetry-distro is not installed, nor any other distribution that sets up a tracer provider: "
            "without one there are no spans, unless the application makes its own in code.",
            "pip install opentelemetry-distro",
        )


def _launcher_on_path(here: Surroundings, version: str) -> Iterator[Finding]:
    ours = here.scripts
    if here.launcher is None:
        where = ours / LAUNCHER if ours else LAUNCHER
        yield note("launcher", f"{LAUNCHER} {version} is installed but not on PATH.", f"Start it as {where}.")
    elif ours and here.launcher.resolve().parent != ours.resolve():
        yield note(
            "launcher",
            f"the {LAUNCHER} on PATH, {here.launcher}, is that of another environment than this one: "
            "what is said here holds only for this one.",
            f"Start {ours / LAUNCHER}, or run the doctor of the other environment.",
        )
    else:
        yield ok("launcher", f"{LAUNCHER} {version}")


def chosen_configurator(here: Surroundings) -> Plugin | None:
    """The configurator that the launcher will run: the first, or the first of the name that was asked for."""
    return _chosen(here, CONFIGURATORS, _CONFIGURATOR)


def has_otel_distro(here: Surroundings) -> bool:
    """Whether OpenTelemetry's own distro is the one that is loaded: its defaults (otlp over gRPC) hold then."""
    distro = _chosen(here, DISTROS, _DISTRO)
    return distro is not None and distro.value.startswith(_OTEL_DISTRO)


def _chosen(here: Surroundings, group: str, variable: str) -> Plugin | None:
    # The launcher does not strip, and takes an empty name for a name.
    wanted = here.environ.get(variable)
    return next((each for each in here.found(group) if wanted is None or each.name == wanted), None)


def instrumentors(here: Surroundings) -> Iterator[Finding]:
    """Which instrumentations the launcher runs, and whether ours are among them."""
    installed = here.names(INSTRUMENTORS)
    active = active_instrumentors(here)
    yield note("instrumentors", "none is active") if not active else ok("instrumentors", ", ".join(active))
    disabled = [each for each in installed if each not in active]
    named = _disabled(here)
    if disabled:
        yield note("instrumentors", f"disabled by {DISABLED_INSTRUMENTATIONS}: {', '.join(disabled)}")
    unknown = [each for each in named if each not in (*installed, _ALL)]
    if unknown:
        yield note("instrumentors", f"{DISABLED_INSTRUMENTATIONS} names what is not installed: {', '.join(unknown)}")
    for name, loss, without in _LOSSES:
        if name in active:
            continue
        if name not in installed:
            yield problem(
                "instrumentors",
                f"ours, {name}, is not found among the entry points: {loss}.",
                f"pip install --force-reinstall {OUR_DISTRIBUTION}",
            )
        elif without is None or without in here.versions:
            by = _ALL if _ALL in named else name
            yield problem(
                "instrumentors",
                f"ours, {name}, is disabled by {DISABLED_INSTRUMENTATIONS} ({by}): {loss}.",
                f"Take {by} out of {DISABLED_INSTRUMENTATIONS}.",
            )


def active_instrumentors(here: Surroundings) -> tuple[str, ...]:
    """The names of those that the launcher will run."""
    disabled = _disabled(here)
    if _ALL in disabled:
        return ()
    return tuple(sorted(each for each in here.names(INSTRUMENTORS) if each not in disabled))


def _disabled(here: Surroundings) -> list[str]:
    return [name for name in (each.strip() for each in here.value(DISABLED_INSTRUMENTATIONS).split(",")) if name]


def django(here: Surroundings) -> Iterator[Finding]:
    """Whether Django's requests have spans, and whether the launcher finds its settings."""
    version = here.versions.get("django")
    if not version:
        yield note("django", "not installed; entry spans of other instrumentations are watched all the same")
        return
    module = here.value(DJANGO_SETTINGS_MODULE)
    if "django" not in active_instrumentors(here) or here.environ.get(_DJANGO_INSTRUMENT) == "False":
        yield _without_spans(here, version, in_use=bool(module))
        return
    if not module:
        yield problem(
            "django",
            f"Django {version}, but {DJANGO_SETTINGS_MODULE} is not set: OpenTelemetry's instrumentation reads the "
            "settings before manage.py or wsgi.py can name them, and configures empty ones.",
            f"export {DJANGO_SETTINGS_MODULE}=... before the launcher; if no Django application is started here, "
            f"{DISABLED_INSTRUMENTATIONS}=django",
        )
    elif not here.has_module(module):
        yield problem(
            "django",
            f"{DJANGO_SETTINGS_MODULE}={module}, but no such module is found from this directory ({here.directory}): "
            "OpenTelemetry's instrumentation then configures empty settings.",
            "Run this, and the launcher, where the application's package is, or put it on PYTHONPATH.",
        )
    else:
        yield ok("django", f"Django {version}, settings {module}")
    if "opentelemetry-instrumentation-asgi" not in here.versions:
        yield note(
            "django",
            "opentelemetry-instrumentation-asgi is not installed: under WSGI it is not needed; under ASGI (uvicorn, "
            "daphne, hypercorn) requests get no span at all without it.",
            "pip install 'opentelemetry-instrumentation-django[asgi]'",
        )


def _without_spans(here: Surroundings, version: str, *, in_use: bool) -> Finding:
    if here.environ.get(_DJANGO_INSTRUMENT) == "False":
        why, remedy = (
            f"{_DJANGO_INSTRUMENT}=False turns OpenTelemetry's instrumentation off",
            f"Unset {_DJANGO_INSTRUMENT}.",
        )
    elif "django" in here.names(INSTRUMENTORS):
        why = f"{DISABLED_INSTRUMENTATIONS} turns OpenTelemetry's instrumentation off"
        remedy = f"Take django out of {DISABLED_INSTRUMENTATIONS}."
    else:
        why = "opentelemetry-instrumentation-django is not installed"
        remedy = "pip install opentelemetry-instrumentation-django"
    message = f"Django {version}, but {why}: its requests get no spans, so there is nothing to watch."
    # Without settings this may well be a service that only happens to have Django installed.
    return problem("django", message, remedy) if in_use else note("django", message, remedy)
