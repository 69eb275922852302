"""What a mail about slow requests says."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from otel_introspect.config import EmailConfig
from otel_introspect.exporters.carrier import Letter
from otel_introspect.exporters.outbox import Batch, Portion
from otel_introspect.exporters.report import headline, instant, key_of, text_of
from otel_introspect.exporters.styled import harmless, shortened

REQUESTS_HEADER: Final = "X-Otel-Introspect-Requests"
"""How many slow requests a mail stands for: over all mails of a process they add up to all that there were."""
TRACE_HEADER: Final = "X-Otel-Introspect-Trace-Id"

_MAX_SUBJECT: Final = 250


def letter_of(batch: Batch, config: EmailConfig) -> Letter:
    """The mail that tells *batch*."""
    slowest = max(batch.portions, key=lambda portion: portion.example.duration_ns)
    return Letter(
        recipients=tuple(config.to.split(",")),
        sender=config.sender,
        subject=shortened(harmless(f"{config.subject_prefix} {_subject(batch)}".strip()), _MAX_SUBJECT),
        body="\n".join([*_preface(batch, slowest, config), text_of(slowest.example, config.link)]),
        headers={
            REQUESTS_HEADER: str(batch.count),
            TRACE_HEADER: slowest.example.trace_id,
            # What is stuck at the same place is one conversation; and no holiday note is to answer.
            "References": f"<{_digest(batch)}@otel-introspect>",
            "Auto-Submitted": "auto-generated",
        },
    )


def letter_without_report(batch: Batch, config: EmailConfig, error: Exception) -> Letter:
    """What is sent where the report itself can't be made: the numbers, at least."""
    return Letter(
        recipients=tuple(config.to.split(",")),
        sender=config.sender,
        subject=f"{batch.count} slow requests",
        body=f"It stands for {batch.count} slow requests. Their report can't be made: {type(error).__name__}.\n",
        headers={REQUESTS_HEADER: str(batch.count)},
    )


def _subject(batch: Batch) -> str:
    if len(batch.portions) > 1:
        return f"{batch.count} slow requests in {len(batch.portions)} groups"
    (portion,) = batch.portions
    function = key_of(portion.example).function
    where = f" in {function}" if function else ""
    more = f" (and {portion.count - 1} more)" if portion.count > 1 else ""
    return f"{headline(portion.example)}{where}{more}"


def _preface(batch: Batch, slowest: Portion, config: EmailConfig) -> Iterator[str]:
    if len(batch.portions) > 1:
        yield f"This mail stands for {batch.count} slow requests in {len(batch.portions)} groups:"
        yield ""
        yield from (f"  {each.count:>7}  {each.key}, {_when(each)}" for each in batch.portions)
    elif batch.count > 1:
        yield f"This mail stands for {batch.count} slow requests, {_when(slowest)}:"
        yield f"  {slowest.key}"
    if batch.last and batch.count > 1:
        yield ""
        yield "They come together because the process is ending."
    elif batch.limited:
        yield ""
        yield f"They come together because this process sends no more than {config.max_per_hour} mails in any hour."
    if batch.failed:
        yield ""
        yield f"{batch.failed} attempts to send a mail have failed before this one. What they were to tell is in here."
    if batch.count > 1:
        yield ""
        yield "The slowest of them:"
    if batch.count > 1 or batch.failed:
        yield ""


def _when(portion: Portion) -> str:
    first, last = instant(portion.first_ns), instant(portion.last_ns)
    return f"started at {first}" if first == last else f"started from {first} to {last}"


def _digest(batch: Batch) -> str:
    keys = "\0".join("\0".join(each.key) for each in batch.portions)
    return blake2b(keys.encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()
