"""A model of tail_sampling: its policies over whole traces, and what becomes of spans that come late.

Written from processor/tailsamplingprocessor/README.md and the policies' own files of opentelemetry-collector-contrib.
"""

from __future__ import annotations

import re2
from every_evidence import spans_of
from ottl_model import Context, UnknownError, is_true


def matching(policies, message):
    """The names of the policies that would keep the trace, but for those that draw lots."""
    return [policy["name"] for policy in policies if _POLICIES[policy["type"]](policy.get(policy["type"]), message)]


def _attributes(message):
    for resource in message.resource_spans:
        yield from resource.resource.attributes
    for span in spans_of(message):
        yield from span.attributes


def _boolean(given, message):
    return any(
        pair.key == given["key"]
        and pair.value.WhichOneof("value") == "bool_value"
        and pair.value.bool_value is given["value"]
        for pair in _attributes(message)
    )


def _string(given, message):
    if not given.get("enabled_regex_matching"):
        raise UnknownError(given)
    patterns = [re2.compile(pattern) for pattern in given["values"]]
    return any(
        pair.key == given["key"]
        and pair.value.string_value
        and any(each.search(pair.value.string_value) for each in patterns)
        for pair in _attributes(message)
    )


def _status(given, message):
    codes = {"UNSET": 0, "OK": 1, "ERROR": 2}
    return any(span.status.code in [codes[each] for each in given["status_codes"]] for span in spans_of(message))


def _condition(given, message):
    if set(given) - {"error_mode", "spanevent"}:
        raise UnknownError(given)
    return any(
        is_true(condition, Context("spanevent", spanevent=event, span=span))
        for span in spans_of(message)
        for event in span.events
        for condition in given["spanevent"]
    )


_POLICIES = {
    "boolean_attribute": _boolean,
    "string_attribute": _string,
    "status_code": _status,
    "ottl_condition": _condition,
    "probabilistic": lambda _given, _message: False,
}


class Sampler:
    """The spans of one trace, as they come; ``at`` is in seconds since the first.

    Args:
        config: What the processor is told.
        traces_per_second: How many others come, and are dropped.
    """

    def __init__(self, config, traces_per_second=1):
        self.config = config
        self.traces_per_second = traces_per_second
        self.wait = int(config["decision_wait"].removesuffix("s"))
        self.waiting = []
        self.kept = []
        self.decided = None

    def take(self, at, message):
        self.let_pass(at)
        if self.decided is None:
            self.waiting.append(message)
        elif self.decided or self._is_forgotten(at):
            self._decide_alone(message)

    def let_pass(self, at):
        if self.decided is None and self.waiting and at >= self.wait:
            self.decided = any(matching(self.config["policies"], each) for each in self.waiting)
            self.kept += self.waiting if self.decided else []
            self.waiting = []

    def _is_forgotten(self, at):
        # Late spans inherit the decision while it is remembered: in the cache of dropped traces, or, where there is
        # none, among the num_traces that are in memory, decided ones too.
        size = self.config["decision_cache"].get("non_sampled_cache_size") or self.config["num_traces"]
        return (at - self.wait) * self.traces_per_second > size

    def _decide_alone(self, message):
        remembered = self.decided and self.config["decision_cache"].get("sampled_cache_size")
        if remembered or matching(self.config["policies"], message):
            self.kept.append(message)
