"""Each collector's file: what it defines it uses, and each option is one that the pinned version knows."""

from __future__ import annotations

import pytest
from collector_files import COLLECTORS, collector, components, parse, placeholders
from known_options import COMPONENTS, RETRY, TEMPO, problems

MIB = 1024 * 1024
OTLP_GRPC_LIMIT = 4 * MIB
ONE_SPAN = 16 * 1024

every_collector = pytest.mark.parametrize("name", COLLECTORS)


def test_these_are_the_collectors():
    """
    The files that the README names are all there, and each file with receivers is looked at here.
    """
    assert COLLECTORS == [
        "otelcol-redaction.yaml",
        "otelcol-scale/agent.yaml",
        "otelcol-scale/gateway-loadbalancer.yaml",
        "otelcol-scale/gateway-sampling-from-kafka.yaml",
        "otelcol-scale/gateway-sampling.yaml",
        "otelcol-scale/gateway-to-kafka.yaml",
        "otelcol-tail-sampling.yaml",
        "otelcol.yaml",
    ]


@every_collector
def test_what_is_defined_is_used_and_the_other_way_round(name):
    """
    Every component of a pipeline is defined, and every defined one is part of a pipeline.
    """
    config = collector(name)
    defined = {(kind, each) for kind, each, _ in components(config)}
    used = {
        (kind, each)
        for pipeline in config["service"]["pipelines"].values()
        for kind in ("receivers", "processors", "exporters")
        for each in pipeline[kind]
    }

    assert used == defined
    assert set(config) == {"receivers", "processors", "exporters", "service"}
    assert set(config["service"]) == {"pipelines"}


@every_collector
def test_every_option_is_known(name):
    """
    The name and the type of every option are those in the documents of the pinned version.
    """
    config = collector(name)

    found = [
        problem
        for kind, each, given in components(config)
        for problem in problems(given, COMPONENTS[kind, each.partition("/")[0]], f"{kind}.{each}")
    ]

    assert found == []


def test_a_misspelt_option_is_found():
    """
    The table refuses an unknown name, a wrong type and a bad duration, so that the test above means something.
    """
    known = COMPONENTS["processors", "memory_limiter"]

    assert problems({"limit_mb": 5}, known, "m") == ["m.limit_mb: no such option"]
    assert problems({"limit_mib": "5"}, known, "m") == [f"m.limit_mib: '5' is not a {int}"]
    assert problems({"check_interval": "1 second"}, known, "m") == ["m.check_interval: '1 second' is not a duration"]


@every_collector
def test_memory_is_limited_first(name):
    """
    The memory limiter is the first processor of every pipeline, and its soft limit is above zero.
    """
    config = collector(name)
    limiter = config["processors"]["memory_limiter"]

    assert {pipeline["processors"][0] for pipeline in config["service"]["pipelines"].values()} == {"memory_limiter"}
    assert 0 < limiter["spike_limit_mib"] < limiter["limit_mib"]


@every_collector
def test_batches_are_made_by_bytes(name):
    """
    What is sent by gRPC, and to Kafka, is cut well below the size at which it is refused whole, and a span still fits.
    """
    config = collector(name)
    queues = {}
    for kind, each, given in components(config):
        if kind == "exporters" and each.startswith(("otlp_grpc", "kafka")):
            queues[each] = given["sending_queue"]
        elif each == "load_balancing":
            queues[each] = given["protocol"]["otlp"]["sending_queue"]

    for each, queue in queues.items():
        batch = queue["batch"]
        limit = 1_000_000 if each == "kafka" else OTLP_GRPC_LIMIT / 2
        assert queue["sizer"] == batch["sizer"] == "bytes"
        assert ONE_SPAN * 4 <= batch["min_size"] <= batch["max_size"] <= limit
        assert batch["max_size"] <= queue["queue_size"]
    assert queues


@every_collector
def test_the_memory_limit_has_room_for_the_queues(name):
    """
    Twice what all queues may hold is below the limit from which data is refused: each pipeline's exporter has its own.
    """
    config = collector(name)
    limiter = config["processors"]["memory_limiter"]
    waiting = 0
    for pipeline in config["service"]["pipelines"].values():
        for each in pipeline["exporters"]:
            given = config["exporters"][each]
            given = given["protocol"]["otlp"] if each == "load_balancing" else given
            waiting += given.get("sending_queue", {}).get("queue_size", 0)

    assert waiting * 2 <= (limiter["limit_mib"] - limiter["spike_limit_mib"]) * MIB


def test_the_kafka_receiver_s_backoff_is_complete():
    """
    All of error_backoff is given, as its defaults are no pause at all, and a message that can't be read stops nothing.
    """
    receiver = collector("otelcol-scale/gateway-sampling-from-kafka.yaml")["receivers"]["kafka"]

    assert set(receiver["error_backoff"]) == set(RETRY)
    assert receiver["error_backoff"]["initial_interval"] != "0s"
    assert receiver["error_backoff"]["multiplier"] > 1
    assert receiver["message_marking"] == {"after": True, "on_permanent_error": True}


def test_kafka_holds_what_the_backends_can_t_take():
    """
    Behind Kafka nothing is given up: tail_sampling drops what an exporter refuses, so exporters have it wait instead.
    """
    for kind, each, given in components(collector("otelcol-scale/gateway-sampling-from-kafka.yaml")):
        if kind == "exporters":
            assert given["sending_queue"]["block_on_overflow"] is True, each
            assert given["retry_on_failure"]["max_elapsed_time"] == "0s", each


def test_a_batch_fits_into_a_message():
    """
    The exporter to Kafka never makes a message that the broker would refuse: it is made from one batch at most.
    """
    exporter = collector("otelcol-scale/gateway-to-kafka.yaml")["exporters"]["kafka"]

    assert exporter["sending_queue"]["batch"]["max_size"] <= exporter["producer"]["max_message_bytes"] / 1.5


@every_collector
def test_it_listens_on_this_machine_only(name):
    """
    Without a variable that says otherwise every receiver listens on the loopback interface.
    """
    for kind, each, given in components(collector(name)):
        if kind == "receivers" and each == "otlp":
            endpoints = [protocol["endpoint"] for protocol in given["protocols"].values()]
            assert [endpoint.partition(":")[0] for endpoint in endpoints] == ["localhost", "localhost"]


@every_collector
def test_every_variable_has_a_default(name):
    """
    A file works as it stands, with an empty environment.
    """
    assert [variable for variable, default in placeholders(name) if not default] == []


def test_the_tempo_file():
    """
    Its options are known, and no string that we attach is cut, however long MAX_ATTRIBUTE_BYTES allows it to be.
    """
    config = parse("tempo.yaml")

    assert problems(config, TEMPO, "tempo") == []
    assert config["distributor"]["max_attribute_bytes"] >= ONE_SPAN


def test_the_second_tier_samples_as_one_collector_does():
    """
    The sampling collectors of otelcol-scale have the processors of otelcol-tail-sampling.yaml, to the letter.
    """
    alone = collector("otelcol-tail-sampling.yaml")["processors"]

    for name in ("otelcol-scale/gateway-sampling.yaml", "otelcol-scale/gateway-sampling-from-kafka.yaml"):
        assert collector(name)["processors"] == alone
