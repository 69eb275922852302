"""Who sends to whom in the compose files: each address leads to somebody who listens, each mount to who reads it."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from urllib.parse import urlsplit

import pytest
from collector_files import ROOT, collector, parse, text

from otel_introspect.cli import main

# The ports that these programs listen on by themselves, on all interfaces of their container.
DEFAULTS = {"prometheus": {9090}, "loki": {3100}, "grafana": {3000}, "pyroscope": {4040}}
JAEGER = {4317, 4318, 16686}  # once JAEGER_LISTEN_HOST says so
SCALE = {
    "tiers": {},
    "kafka": {"GATEWAY": "gateway-to-kafka", "SAMPLING": "gateway-sampling-from-kafka"},
}
SETUPS = ["one collector", *SCALE]

every_setup = pytest.mark.parametrize("setup", SETUPS)


def services(setup):
    """The services as compose lays the files over each other, the variables put in."""
    merged = parse("compose.yaml")["services"]
    if setup == "one collector":
        return merged
    for name, given in parse("otelcol-scale/compose.yaml")["services"].items():
        below = merged.setdefault(name, {})
        environment = {**below.get("environment", {}), **given.get("environment", {})}
        merged[name] = {**below, **given, "environment": environment}
        merged[name]["command"] = [_filled(word, SCALE[setup]) for word in merged[name].get("command", [])]
    return merged


def _filled(value, environ):
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environ.get(found[1], found[2]), value)


def configuration(given):
    """The collector's file with the service's environment put in, or None."""
    found = re.search(r"--config=/etc/otelcol/(\S+)", " ".join(given.get("command", [])))
    return collector(found[1], given["environment"]) if found else None


def tempo(given):
    assert "-config.expand-env=true" in given["command"]
    return {
        "http": _filled(parse("tempo.yaml")["server"]["http_listen_address"], given["environment"]),
        "http port": parse("tempo.yaml")["server"]["http_listen_port"],
        "grpc": _filled(
            parse("tempo.yaml")["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"],
            given["environment"],
        ),
    }


def _listens(name, given):
    if name in DEFAULTS:
        return DEFAULTS[name]
    if name == "jaeger":
        return JAEGER if given["environment"]["JAEGER_LISTEN_HOST"] == "0.0.0.0" else set()
    if name == "tempo":
        config = tempo(given)
        endpoints = [f"{config['http']}:{config['http port']}", config["grpc"]]
    elif name == "kafka":
        endpoints = [part.replace("PLAINTEXT://:", "0.0.0.0:") for part in _kafka(given, "LISTENERS")]
    else:
        receivers = (configuration(given) or {}).get("receivers", {})
        endpoints = [each["endpoint"] for each in receivers.get("otlp", {}).get("protocols", {}).values()]
    return {int(port) for host, _, port in (each.rpartition(":") for each in endpoints) if host == "0.0.0.0"}


def _kafka(given, name):
    return given["environment"][f"KAFKA_{name}"].split(",")


def listening(setup):
    """(service, port) of everything that another container can reach."""
    return {(name, port) for name, given in services(setup).items() for port in _listens(name, given)}


def _address(endpoint):
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    return parts.hostname, parts.port


def addresses(config):
    """What a collector sends to and reads from."""
    for name, given in config["exporters"].items():
        if name == "load_balancing":
            yield given["resolver"]["dns"]["hostname"], int(given["resolver"]["dns"]["port"])
        elif name == "kafka":
            yield from map(_address, given["brokers"])
        else:
            yield _address(given["endpoint"])
    for name, given in config["receivers"].items():
        if name == "kafka":
            yield from map(_address, given["brokers"])


@every_setup
def test_each_collector_reaches_whom_it_sends_to(setup):
    """
    Host and port of every exporter, resolver and broker are a service that listens there on all its interfaces.
    """
    there = listening(setup)

    sent = {
        (name, *address)
        for name, given in services(setup).items()
        for address in addresses(configuration(given) or {"exporters": {}, "receivers": {}})
    }

    assert {each for each in sent if each[1:] not in there} == set()
    assert {"jaeger", "tempo", "prometheus", "loki"} <= {each[1] for each in sent}


@every_setup
def test_each_published_port_is_listened_on(setup):
    """
    Behind each port that this machine publishes there is something.
    """
    there = listening(setup)
    published = {
        (name, int(port.rpartition(":")[2]))
        for name, given in services(setup).items()
        for port in given.get("ports", [])
    }

    assert published - there == set()


def test_the_demo_and_grafana_reach_whom_they_ask():
    """
    The demo's endpoints are the collector's, and each data source's URL is a service that listens there.
    """
    there = listening("one collector")
    demo = [value for name, value in services("tiers")["demo"]["environment"].items() if name.endswith("_ENDPOINT")]
    sources = parse("grafana/provisioning/datasources/datasources.yaml")["datasources"]

    assert [url for url in (*demo, *(each["url"] for each in sources)) if _address(url) not in there] == []
    assert {_address(url) for url in demo} == {("collector", 4318)}
    assert [_address(each["url"])[0] for each in sources] == [each["uid"] for each in sources]


def test_prometheus_and_loki_take_otlp():
    """
    Prometheus is told to, and both are asked at the path at which they do.
    """
    exporters = configuration(services("one collector")["collector"])["exporters"]

    assert "--web.enable-otlp-receiver" in services("one collector")["prometheus"]["command"]
    assert urlsplit(exporters["otlp_http/prometheus"]["endpoint"]).path == "/api/v1/otlp"
    assert urlsplit(exporters["otlp_http/logs"]["endpoint"]).path == "/otlp"
    assert {"service.name", "service.instance.id"} <= set(
        parse("prometheus.yaml")["otlp"]["promote_resource_attributes"]
    )


def test_what_is_mounted_is_read():
    """
    The place of each mount is where the program that runs there looks.
    """
    every = services("one collector")
    mounts = {
        name: {volume.split(":")[0]: volume.split(":")[1] for volume in given.get("volumes", [])}
        for name, given in every.items()
    }
    (provider,) = parse("grafana/provisioning/dashboards/dashboards.yaml")["providers"]
    storage = parse("tempo.yaml")["storage"]["trace"]

    assert f"--config.file={mounts['prometheus']['./prometheus.yaml']}" in every["prometheus"]["command"]
    assert f"-config.file={mounts['tempo']['./tempo.yaml']}" in every["tempo"]["command"]
    assert every["jaeger"]["command"][0].endswith(f"ui.config_file={mounts['jaeger']['./jaeger-ui.json']}")
    assert mounts["grafana"]["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["grafana"]["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["prometheus"]["prometheus"] == "/prometheus"
    for path in (storage["local"]["path"], storage["wal"]["path"]):
        assert path.startswith(f"{mounts['tempo']['tempo']}/")


def test_the_demo_s_image_can_be_built():
    """
    What its recipe copies is there and is what the package is built from, the extra exists, and so does the command.
    """
    demo = parse("compose.yaml")["services"]["demo"]
    recipe = demo["build"]["dockerfile_inline"]
    project = (ROOT.parent / "pyproject.toml").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"COPY (.*)", recipe) for name in line.split()[:-1]}
    (extra,) = re.findall(r"pip install .*'\.\[(\w+)\]'", recipe)
    (command, option) = re.search(r"otel-introspect (\w+) (--\w+)", demo["command"][-1]).groups()

    assert [name for name in copied if not (ROOT.parent / name).exists()] == []
    needed = re.findall(r'^(?:readme|license-files) = .*"(.+?)"', project, re.MULTILINE)
    assert len(needed) == 2
    assert {"pyproject.toml", "otel_introspect", *needed} <= copied
    assert extra in metadata("otel-introspect").get_all("Provides-Extra")
    assert option in {name for each in main.get_command(None, command).params for name in each.opts}


def test_a_trace_stays_together():
    """
    Between the tiers each trace has one way: by its id, whatever is in between, and Kafka's two ends agree.
    """
    gateway = collector("otelcol-scale/gateway-loadbalancer.yaml")["exporters"]["load_balancing"]
    sent = collector("otelcol-scale/gateway-to-kafka.yaml")["exporters"]["kafka"]
    read = collector("otelcol-scale/gateway-sampling-from-kafka.yaml")["receivers"]["kafka"]
    kafka, sampler = (services("kafka")[name] for name in ("kafka", "sampler"))

    assert gateway["routing_key"] == "traceID"
    assert sent["partition_traces_by_id"] is True
    assert (read["traces"]["topics"], read["traces"]["encoding"]) == (
        [sent["traces"]["topic"]],
        sent["traces"]["encoding"],
    )
    assert read["protocol_version"] == sent["protocol_version"]
    assert int(kafka["environment"]["KAFKA_NUM_PARTITIONS"]) >= sampler["deploy"]["replicas"]
    assert _kafka(kafka, "ADVERTISED_LISTENERS") == ["PLAINTEXT://kafka:9092"]


def test_grafana_s_dollars_are_doubled():
    """
    Grafana puts environment variables in where it sees one dollar: each of ours is written twice.
    """
    lines = [
        line for line in text("grafana/provisioning/datasources/datasources.yaml").splitlines() if "# " not in line
    ]

    assert "$" not in "\n".join(lines).replace("$$", "")
