"""Where an OTLP exporter sends to, by the exporter's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out

from otel_introspect.cli.diagnosis.finding import Finding, note, problem
from otel_introspect.cli.diagnosis.probe import Target
from otel_introspect.cli.diagnosis.settings import without_password
from otel_introspect.cli.diagnosis.surroundings import Surroundings

Protocol = Literal["grpc", "http"]

GENERAL: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
SECONDS: Final = 2.0
"""How long one endpoint may take to answer."""
TOPIC: Final = "endpoint"
_PATH: Final = "/v1/traces"
_DEFAULTS: Final[Mapping[Protocol, str]] = {"grpc": "http://localhost:4317", "http": "http://localhost:4318"}
_GRPC_DEFAULT_PORT: Final = 443  # also without TLS
_HTTP_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
# Names of gRPC's own that have no host and port to knock at.
_GRPC_SCHEMES: Final = ("unix", "unix-abstract", "dns", "ipv4", "ipv6", "xds", "vsock")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One place where spans go.

    Args:
        url: Where, fit to be shown.
        source: The variable that says so; empty for the default.
        target: What to knock at.
        proxy: The proxy in between, fit to be shown; empty for none.
    """

    url: str
    source: str
    target: Target
    proxy: str = ""

    @property
    def variable(self) -> str:
        """The variable that says where, or would."""
        return self.source or GENERAL


def resolve(here: Surroundings, protocol: Protocol) -> Endpoint | Finding:
    """Where the OTLP exporter with this protocol sends to; a finding if that is no place to knock at."""
    source = next((name for name in (TRACES, GENERAL) if here.value(name)), "")
    url = here.value(source) if source else _DEFAULTS[protocol]
    try:
        found = (_grpc if protocol == "grpc" else _http)(here, source, url)
        if isinstance(found, Finding):
            return found
        return _through_proxy(here, found, protocol, urlsplit(url).scheme)
    except ValueError as error:
        example = _DEFAULTS[protocol].replace("localhost", "collector")
        return problem(
            TOPIC,
            f"{source}={without_password(url)} is not a URL of the form {example} ({error}): no span arrives.",
            f"For example {source}={example}{_PATH if protocol == 'http' and source == TRACES else ''}",
        )


def _http(here: Surroundings, source: str, url: str) -> Endpoint:
    parts = urlsplit(url)
    host = _host(parts)
    # The general endpoint is a base, the traces' own one is the whole address.
    whole = parts if source == TRACES else parts._replace(path=parts.path.removesuffix("/") + _PATH)
    target = replace(
        _target(here, host, _port(parts, _HTTP_DEFAULT_PORTS[parts.scheme])),
        kind="http",
        tls=parts.scheme == "https",
        path=(whole.path or "/") + (f"?{whole.query}" if whole.query else ""),
        headers=_headers(here),
    )
    return Endpoint(url=without_password(whole.geturl()), source=source, target=target)


def _grpc(here: Surroundings, source: str, url: str) -> Endpoint | Finding:
    parts = urlsplit(url)
    if parts.scheme in _GRPC_SCHEMES:
        return note(TOPIC, f"{source}={url} is not checked: a gRPC name without host and port.")
    insecure = (here.value("OTEL_EXPORTER_OTLP_TRACES_INSECURE") or here.value("OTEL_EXPORTER_OTLP_INSECURE")).lower()
    if parts.netloc or parts.scheme in ("http", "https"):
        tls = parts.scheme == "https" or insecure == "false"
    else:
        # gRPC takes host:port as well, but then means TLS unless it is told otherwise.
        parts, tls = urlsplit(f"http://{url}"), insecure != "true"
    target = replace(_target(here, _host(parts), _port(parts, _GRPC_DEFAULT_PORT)), kind="grpc", tls=tls)
    return Endpoint(url=without_password(url), source=source, target=target)


def _host(parts: SplitResult) -> str:
    if parts.scheme not in ("http", "https"):
        msg = "neither http:// nor https://"
        raise ValueError(msg)
    if not parts.hostname or any(each.isspace() for each in parts.netloc):
        msg = "no host"
        raise ValueError(msg)
    return parts.hostname


def _port(parts: SplitResult, default: int) -> int:
    return default if parts.port is None else parts.port


def _target(here: Surroundings, host: str, port: int) -> Target:
    def file(what: str) -> str:
        return here.value(f"OTEL_EXPORTER_OTLP_TRACES_{what}") or here.value(f"OTEL_EXPORTER_OTLP_{what}")

    return Target(
        kind="tcp",
        host=host,
        port=port,
        authorities=file("CERTIFICATE") or here.value("REQUESTS_CA_BUNDLE"),
        certificate=file("CLIENT_CERTIFICATE"),
        key=file("CLIENT_KEY"),
        seconds=SECONDS,
    )


def _headers(here: Surroundings) -> dict[str, str]:
    """The headers that the exporter sends, which may hold a token: they are sent on and never shown."""
    text = here.value("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or here.value("OTEL_EXPORTER_OTLP_HEADERS")
    pairs = (each.partition("=") for each in text.split(","))
    return {
        unquote(name).strip().lower(): unquote(value).strip()
        for name, equals, value in pairs
        if equals and name.strip()
    }


def _through_proxy(here: Surroundings, endpoint: Endpoint, protocol: Protocol, scheme: str) -> Endpoint | Finding:
    """The same endpoint, to be knocked at through the proxy that the exporter would use."""
    proxies = {
        name.lower().removesuffix("_proxy"): value
        for name, value in here.environ.items()
        if name.lower().endswith("_proxy") and value.strip()
    }
    if protocol == "grpc":
        kinds: tuple[str, ...] = ("grpc", "https", "http")  # in this order, whatever the endpoint's own scheme
        proxies["no"] = proxies.get("no_grpc", proxies.get("no", ""))
    else:
        kinds = (scheme, "all")
    proxy = next((proxies[kind] for kind in kinds if kind in proxies), "")
    if not proxy or proxy_bypass_environment(f"{endpoint.target.host}:{endpoint.target.port}", proxies):
        return endpoint
    shown = without_password(proxy)
    try:
        at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        target = Target(kind="tcp", host=at.hostname or "", port=_port(at, 80), seconds=SECONDS)
    except ValueError:
        target = Target(kind="tcp", host="", port=80)
    if not target.host:
        return problem(
            TOPIC, f"{endpoint.url} is reached through the proxy {shown}, which is not a URL.", "Correct or unset it."
        )
    return replace(endpoint, target=target, proxy=shown)
