"""The compose files: images are pinned, ports are this machine's own, and what is mounted is there."""

from __future__ import annotations

import json
import re

import pytest
from collector_files import COLLECTORS, COMPOSE, ROOT, collector, parse, placeholders, text
from known_options import VERSION

PORTS = re.compile(r"127\.0\.0\.1:\d+:\d+")
TAG = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.-]+)?")
# Of the Compose specification's elements those that we use.
SERVICE = {"image", "build", "command", "environment", "volumes", "ports", "depends_on", "profiles", "deploy", "init"}
MEASURED_WITH = {"jaegertracing/jaeger": "2.19.0", "grafana/tempo": "3.0.3"}
_SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_key)\w*\s*[:=]\s*[\"']?\w")

every_compose = pytest.mark.parametrize("name", COMPOSE)


def services(name):
    return parse(name)["services"]


@every_compose
def test_every_element_is_known(name):
    """
    Each service has only elements of the Compose specification that are meant, and each is made from an image or built.
    """
    for service, given in services(name).items():
        assert set(given) <= SERVICE, service
        assert "image" in given or "build" in given or service in services("compose.yaml"), service


@every_compose
def test_images_are_pinned(name):
    """
    Each image, also the one that is built on, has a full version; those that we measured with are the same versions.
    """
    images = [given["image"] for given in services(name).values() if "image" in given]
    images += re.findall(r"FROM (\S+)", text(name))

    assert [image for image in images if not TAG.fullmatch(image)] == []
    for image in images:
        repository, _, version = image.partition(":")
        assert MEASURED_WITH.get(repository, version) == version
        if repository == "otel/opentelemetry-collector-contrib":
            assert version == VERSION


@every_compose
def test_ports_are_published_on_this_machine_only(name):
    """
    No published port can be reached from another machine.
    """
    published = [port for given in services(name).values() for port in given.get("ports", [])]

    assert [port for port in published if not PORTS.fullmatch(port)] == []


@every_compose
def test_what_is_mounted_and_depended_on_exists(name):
    """
    Each file that is mounted is one of ours and read-only, each named volume is declared, each dependency is a service.
    """
    known = set(services("compose.yaml")) | set(services(name))
    for given in services(name).values():
        assert set(given.get("depends_on", [])) <= known
        for volume in given.get("volumes", []):
            source, _, target = volume.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists()
                assert target.endswith(":ro")
            else:
                assert source in parse(name)["volumes"]


@every_compose
def test_the_collectors_are_told_what_they_ask_for(name):
    """
    Each variable that a collector gets is one that its file reads, and no endpoint is left at this machine's default.
    """
    for given in services(name).values():
        config = re.search(r"--config=/etc/otelcol/(\S+)", " ".join(given.get("command", [])))
        if not config or "image" not in given:
            continue
        choices = _choices(config[1])
        read = {variable for file in choices for variable, _ in placeholders(file)}
        told = set(given["environment"]) - {"GOMEMLIMIT"}
        assert told <= read
        assert {each for each in read if each.endswith(("_ENDPOINT", "_HOST", "_BROKER"))} <= told


def _choices(file):
    stem = re.sub(r"\$\{\w+:-([\w-]+)\}", r"\1", file)
    if stem == file:
        return [file]
    folder, _, default = stem.rpartition("/")
    kafka = {
        "gateway-loadbalancer.yaml": "gateway-to-kafka.yaml",
        "gateway-sampling.yaml": "gateway-sampling-from-kafka.yaml",
    }
    return [stem, f"{folder}/{kafka[default]}"]


def test_the_memory_limit_of_go_is_below_the_collector_s():
    """
    GOMEMLIMIT is four fifths of the memory limiter's, as its document advises.
    """
    told = {"collector": "otelcol.yaml", "sampler": "otelcol-scale/gateway-sampling.yaml"}
    every = services("compose.yaml") | services("otelcol-scale/compose.yaml")
    every["collector"] = services("compose.yaml")["collector"]
    for service, file in told.items():
        limit = collector(file)["processors"]["memory_limiter"]["limit_mib"]
        given = int(every[service]["environment"]["GOMEMLIMIT"].removesuffix("MiB"))
        assert 0.7 * limit <= given <= 0.8 * limit


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.*")), ids=lambda path: path.name)
def test_no_secret_in_a_file(path):
    """
    No file holds a password, a token or a key; those that can be parsed can be.
    """
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        json.loads(content)
    if path.name != "otelcol-redaction.yaml" and path.suffix != ".md":  # which look for them, and speak of them
        assert _SECRET.findall(content) == []


def test_the_readme_names_every_file():
    """
    Nothing is there that the README does not explain.
    """
    readme = text("README.md")
    files = [*COLLECTORS, *COMPOSE, "tempo.yaml", "prometheus.yaml", "jaeger-ui.json", "grafana/traceql-examples.md"]

    assert [file for file in files if file.removeprefix("otelcol-scale/") not in readme] == []
