"""A logger provider that keeps what it is given, by whatever names this version of the SDK has for its parts."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk._logs import LoggerProvider, export
from opentelemetry.sdk.resources import Resource

Memory = getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter
Simple = export.SimpleLogRecordProcessor
Processor = sdk_logs.LogRecordProcessor


@dataclass(frozen=True)
class Record:
    """What every version of the SDK says of a record."""

    name: str
    trace_id: int
    span_id: int
    flags: int
    severity: str
    number: int
    timestamp: int
    observed: int
    body: str
    attributes: dict
    resource: dict
    scope: str


def plain(taken) -> Record:
    record = taken.log_record
    attributes = dict(record.attributes)
    resource = getattr(taken, "resource", None) or record.resource
    return Record(
        name=getattr(record, "event_name", None) or attributes.pop("event.name", None),
        trace_id=record.trace_id,
        span_id=record.span_id,
        flags=int(record.trace_flags),
        severity=record.severity_text,
        number=record.severity_number.value,
        timestamp=record.timestamp,
        observed=record.observed_timestamp,
        body=record.body,
        attributes=attributes,
        resource=dict(resource.attributes),
        scope=taken.instrumentation_scope.name,
    )


class Logs:
    """The provider, and the records that it has taken."""

    def __init__(self, *more) -> None:
        self.exporter = Memory()
        self.provider = LoggerProvider(resource=Resource({"service.name": "the living"}), shutdown_on_exit=False)
        for each in more:
            self.provider.add_log_record_processor(each)
        self.provider.add_log_record_processor(Simple(self.exporter))

    @property
    def records(self) -> list[Record]:
        return [plain(each) for each in self.exporter.get_finished_logs()]


class Blocking(Processor):
    """Takes a record and does not come back until it is told to."""

    def __init__(self, may_go_on) -> None:
        self.may_go_on = may_go_on
        self.flushes = 0

    def on_emit(self, _record) -> None:
        assert self.may_go_on.wait(30)

    emit = on_emit

    def shutdown(self) -> None:
        self.may_go_on.set()

    def force_flush(self, _timeout_millis=0) -> bool:
        self.flushes += 1
        return self.may_go_on.wait(30)
