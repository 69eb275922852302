"""Takes log records by OTLP over HTTP, as protobuf."""

from __future__ import annotations

import time
from dataclasses import dataclass

from http_receiver import HttpReceiver
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from otlp_receiver import attributes_of


@dataclass
class Record:
    name: str
    trace_id: str
    span_id: str
    flags: int
    severity: str
    time: float
    body: str
    attributes: dict
    scope: str
    came: float


def records_in(message):
    for resource_logs in message.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                attributes, _ = attributes_of(record.attributes)
                yield Record(
                    # Until OpenTelemetry 1.35 there is no field for it.
                    name=getattr(record, "event_name", "") or attributes.pop("event.name", ""),
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    flags=record.flags,
                    severity=record.severity_text,
                    time=record.time_unix_nano / 1e9,
                    body=record.body.string_value,
                    attributes=attributes,
                    scope=scope_logs.scope.name,
                    came=time.time(),
                )


class LogReceiver(HttpReceiver):
    """Takes log records."""

    def __init__(self):
        self._records = []
        super().__init__()
        self.endpoint = f"{self.url}/v1/logs"

    def keep(self, path, body):
        self._records.extend(records_in(ExportLogsServiceRequest.FromString(body)))

    def wait_for(self, chosen, *, count=1, seconds=15.0):
        """The records that are *chosen*, as soon as there are *count*."""
        return self.wait_until(lambda: [each for each in self._records if chosen(each)], count, seconds)
