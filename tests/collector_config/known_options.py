"""The options of the components that our collectors use, with their types.

A table of our own, as far as we need it, read in the documents named beside each. Core and contrib are the repositories
open-telemetry/opentelemetry-collector and opentelemetry-collector-contrib. exporterhelper's README is that of 0.162,
the others are versions of 2026; when a component was renamed is in the pull request that is named.
"""

from __future__ import annotations

import re

VERSION = "0.162.0"
"""Of otelcol-contrib, that the files are written for."""

DURATION = "duration"
PORT = "port"


class OneOf(tuple):
    """A string that must be one of these."""

    __slots__ = ()


class ListOf(tuple):
    """A list of what is said."""

    __slots__ = ()


# Read in core, exporter/exporterhelper/README.md, exporter/exporterhelper/internal/queuebatch/config.schema.yaml
SIZER = OneOf(("requests", "items", "bytes"))
SENDING_QUEUE = {
    "enabled": bool,
    "num_consumers": int,
    "wait_for_result": bool,
    "block_on_overflow": bool,
    "sizer": SIZER,
    "queue_size": int,
    "storage": str,
    "batch": {"flush_timeout": DURATION, "min_size": int, "max_size": int, "sizer": SIZER},
}
RETRY = {
    "enabled": bool,
    "initial_interval": DURATION,
    "max_interval": DURATION,
    "max_elapsed_time": DURATION,
    "multiplier": float,
    "randomization_factor": float,
}
# Read in core, config/configtls/README.md
TLS_CLIENT = {"insecure": bool, "insecure_skip_verify": bool, "ca_file": str, "cert_file": str, "key_file": str}
# Read in core, config/configgrpc/README.md, exporter/otlpexporter/config.schema.yaml
OTLP_GRPC = {
    "endpoint": str,
    "compression": OneOf(("none", "gzip", "snappy", "zstd")),
    "tls": TLS_CLIENT,
    "timeout": DURATION,
    "retry_on_failure": RETRY,
    "sending_queue": SENDING_QUEUE,
}
# Read in core, exporter/otlphttpexporter/README.md
OTLP_HTTP = {
    "endpoint": str,
    "traces_endpoint": str,
    "metrics_endpoint": str,
    "logs_endpoint": str,
    "compression": OneOf(("none", "gzip", "snappy", "zstd")),
    "tls": TLS_CLIENT,
    "timeout": DURATION,
    "retry_on_failure": RETRY,
    "sending_queue": SENDING_QUEUE,
}
# Read in core, receiver/otlpreceiver/README.md, config/configgrpc/README.md, config/confighttp/README.md
OTLP_RECEIVER = {
    "protocols": {
        "grpc": {"endpoint": str, "max_recv_msg_size_mib": int},
        "http": {"endpoint": str, "max_request_body_size": int},
    },
}
# Read in core, processor/memorylimiterprocessor/README.md
MEMORY_LIMITER = {
    "check_interval": DURATION,
    "limit_mib": int,
    "spike_limit_mib": int,
    "limit_percentage": int,
    "spike_limit_percentage": int,
}
# Read in contrib, processor/tailsamplingprocessor/config.schema.yaml, README.md
TAIL_SAMPLING_POLICY = {
    "name": str,
    "type": OneOf(("boolean_attribute", "string_attribute", "ottl_condition", "status_code", "probabilistic")),
    "boolean_attribute": {"key": str, "value": bool, "invert_match": bool},
    "string_attribute": {
        "key": str,
        "values": ListOf((str,)),
        "enabled_regex_matching": bool,
        "cache_max_size": int,
        "invert_match": bool,
    },
    "ottl_condition": {
        "error_mode": OneOf(("ignore", "silent", "propagate")),
        "span": ListOf((str,)),
        "spanevent": ListOf((str,)),
    },
    "status_code": {"status_codes": ListOf((OneOf(("OK", "ERROR", "UNSET")),))},
    "probabilistic": {"sampling_percentage": float, "hash_salt": str},
}
TAIL_SAMPLING = {
    "decision_wait": DURATION,
    "num_traces": int,
    "expected_new_traces_per_sec": int,
    "decision_cache": {"sampled_cache_size": int, "non_sampled_cache_size": int},
    "sample_on_first_match": bool,
    "policies": ListOf((TAIL_SAMPLING_POLICY,)),
}
# Read in contrib, processor/transformprocessor/README.md, of 0.120 and later
_ERROR_MODE = OneOf(("ignore", "silent", "propagate"))


def _groups(*contexts):
    group = {
        "context": OneOf(contexts),
        "error_mode": _ERROR_MODE,
        "conditions": ListOf((str,)),
        "statements": ListOf((str,)),
    }
    return ListOf((group,))


TRANSFORM = {
    "error_mode": _ERROR_MODE,
    "trace_statements": _groups("resource", "scope", "span", "spanevent"),
    "metric_statements": _groups("resource", "scope", "metric", "datapoint"),
    "log_statements": _groups("resource", "scope", "log"),
}
# Read in contrib, exporter/loadbalancingexporter/config.schema.yaml; load_balancing since 0.153 (contrib#48533)
LOAD_BALANCING = {
    "routing_key": OneOf(("traceID", "service", "resource", "metric", "streamID", "attributes")),
    "protocol": {"otlp": {name: kind for name, kind in OTLP_GRPC.items() if name != "endpoint"}},
    "resolver": {
        "static": {"hostnames": ListOf((str,))},
        "dns": {"hostname": str, "port": PORT, "interval": DURATION, "timeout": DURATION},
        "k8s": {"service": str, "ports": ListOf((int,)), "timeout": DURATION, "return_hostnames": bool},
    },
    "timeout": DURATION,
    "retry_on_failure": RETRY,
    "sending_queue": SENDING_QUEUE,
}
# Read in contrib, exporter/kafkaexporter/README.md and config.schema.yaml, pkg/kafka/configkafka/config.schema.yaml
_KAFKA = {"brokers": ListOf((str,)), "protocol_version": str, "client_id": str, "tls": TLS_CLIENT}
KAFKA_EXPORTER = {
    **_KAFKA,
    "partition_traces_by_id": bool,
    "traces": {"topic": str, "encoding": OneOf(("otlp_proto", "otlp_json"))},
    "producer": {
        "max_message_bytes": int,
        "compression": OneOf(("none", "gzip", "snappy", "lz4", "zstd")),
        "required_acks": int,
    },
    "timeout": DURATION,
    "retry_on_failure": RETRY,
    "sending_queue": SENDING_QUEUE,
}
# Read in contrib, receiver/kafkareceiver/README.md
KAFKA_RECEIVER = {
    **_KAFKA,
    "group_id": str,
    "initial_offset": OneOf(("latest", "earliest")),
    "traces": {"topics": ListOf((str,)), "encoding": OneOf(("otlp_proto", "otlp_json"))},
    "message_marking": {"after": bool, "on_error": bool, "on_permanent_error": bool},
    "error_backoff": RETRY,
}

COMPONENTS = {
    ("receivers", "otlp"): OTLP_RECEIVER,
    ("receivers", "kafka"): KAFKA_RECEIVER,
    ("processors", "memory_limiter"): MEMORY_LIMITER,
    ("processors", "tail_sampling"): TAIL_SAMPLING,
    ("processors", "transform"): TRANSFORM,
    # otlp_grpc and otlp_http since 0.144 (core#14403, core#14397)
    ("exporters", "otlp_grpc"): OTLP_GRPC,
    ("exporters", "otlp_http"): OTLP_HTTP,
    ("exporters", "load_balancing"): LOAD_BALANCING,
    ("exporters", "kafka"): KAFKA_EXPORTER,
}

# grafana/tempo: docs/sources/tempo/configuration/_index.md and troubleshooting/out-of-memory-errors.md, version 3.0;
# example/docker-compose/single-binary/tempo.yaml
TEMPO = {
    "server": {"http_listen_address": str, "http_listen_port": int},
    "distributor": {"max_attribute_bytes": int, "receivers": {"otlp": OTLP_RECEIVER}},
    "storage": {
        "trace": {"backend": OneOf(("local", "s3", "gcs", "azure")), "local": {"path": str}, "wal": {"path": str}}
    },
    "overrides": {"defaults": {"global": {"max_bytes_per_trace": int}}},
    "usage_report": {"reporting_enabled": bool},
}

_DURATION = re.compile(r"(\d+(\.\d+)?(ms|s|m|h))+")


def problems(value, known, where):
    """What about *value* is not as *known* says, each with its place."""
    if isinstance(known, dict):
        if not isinstance(value, dict):
            return [f"{where}: {value!r} is no mapping"]
        unknown = [f"{where}.{name}: no such option" for name in value if name not in known]
        return unknown + [
            problem
            for name, each in value.items()
            if name in known
            for problem in problems(each, known[name], f"{where}.{name}")
        ]
    if isinstance(known, ListOf):
        if not isinstance(value, list) or not value:
            return [f"{where}: {value!r} is no list"]
        return [problem for at, each in enumerate(value) for problem in problems(each, known[0], f"{where}[{at}]")]
    return [] if _fits(value, known) else [f"{where}: {value!r} is not a {known}"]


def _fits(value, known):
    if isinstance(known, OneOf):
        return value in known
    if known == DURATION:
        return isinstance(value, str) and _DURATION.fullmatch(value) is not None
    if known == PORT:  # a string that collectors also take as a number, where it comes from the environment
        return str(value).isdigit()
    if known is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if known is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, known)
