"""Which real traces otelcol-tail-sampling.yaml keeps, whenever their spans come."""

from __future__ import annotations

import copy

import pytest
from collector_files import collector
from every_evidence import messages, spans_of
from sampling_model import Sampler, matching

KEPT = {
    "slow": {"slow", "profiled", "evidence"},
    "profiled in code": {"profiled", "evidence"},
    "snapshot in code": {"evidence"},
    "not enforced": {"evidence"},
    "failed": {"failed"},
    "failed below": {"failed"},
    "fast": set(),
    "recovered": {"slow", "recovered", "failed", "evidence"},
}


@pytest.fixture(name="config")
def _config():
    return collector("otelcol-tail-sampling.yaml")["processors"]["tail_sampling"]


def part(message, is_meant):
    """The same message with only some of its spans."""
    kept = copy.deepcopy(message)
    for resource in kept.resource_spans:
        for scope in resource.scope_spans:
            spans = [span for span in scope.spans if is_meant(span)]
            del scope.spans[:]
            scope.spans.extend(spans)
    return kept


def is_checkpoint(span):
    return any(pair.key == "otel_introspect.checkpoint" for pair in span.attributes)


@pytest.mark.parametrize("label", sorted(KEPT))
def test_what_is_kept_and_by_what(config, label):
    """
    Every trace with evidence or an error is kept, by the policies that are for it; a fast one only by lot.
    """
    assert set(matching(config["policies"], messages()[label])) == KEPT[label]


def test_an_interrupted_request_is_kept(config):
    """
    It is, by its own policy too, whether or not it was slow by then.
    """
    assert {"interrupted", "failed", "evidence"} <= set(matching(config["policies"], messages()["interrupted"]))


def test_every_policy_keeps_something(config):
    """
    No policy is there that none of the evidence needs, and the last one keeps a share of the rest.
    """
    used = {name for message in messages().values() for name in matching(config["policies"], message)}
    names = [policy["name"] for policy in config["policies"]]

    assert used == set(names[:-1])
    assert config["policies"][-1]["type"] == "probabilistic"
    assert 0 < config["policies"][-1]["probabilistic"]["sampling_percentage"] < 100


@pytest.mark.parametrize("minutes", [0.01, 1, 60])
def test_a_request_that_is_stuck_for_long_is_kept_whole(config, minutes):
    """
    Its fast child and its checkpoint come first and have the trace kept, so that its own span is, however late.
    """
    sampler = Sampler(config)
    children, checkpoint = messages()["fast"], part(messages()["slow"], is_checkpoint)
    own = part(messages()["slow"], lambda span: not is_checkpoint(span))

    sampler.take(0, children)
    sampler.take(2, checkpoint)
    sampler.take(minutes * 60, own)
    sampler.let_pass(minutes * 60 + 31)

    assert sampler.kept == [children, checkpoint, own]


@pytest.mark.parametrize("traces_per_second", [1, 1000])
@pytest.mark.parametrize("seconds", [60, 3600])
def test_without_a_checkpoint_its_own_span_is_kept(config, seconds, traces_per_second):
    """
    Where checkpoints are off, the fast children of a request that takes long are lost, its own span is not.
    """
    sampler = Sampler(config, traces_per_second)
    own = part(messages()["slow"], lambda span: not is_checkpoint(span))

    sampler.take(0, messages()["fast"])
    sampler.take(seconds, own)

    assert sampler.kept == [own]


def test_a_slow_task_that_waited_in_a_queue_is_kept(config):
    """
    The request that queued it was fast and its spans are dropped long ago; the task's checkpoint and span are kept.
    """
    sampler = Sampler(config)

    sampler.take(0, messages()["fast"])
    sampler.take(600, part(messages()["slow"], is_checkpoint))
    sampler.take(640, part(messages()["slow"], lambda span: not is_checkpoint(span)))

    assert len(sampler.kept) == 2


def test_the_model_remembers_what_was_dropped(config):
    """
    Without a cache of dropped traces the late span inherits their end, until num_traces newer ones have come.
    """
    without = {**config, "decision_cache": {"sampled_cache_size": 500000}}
    quiet, busy = Sampler(without, traces_per_second=1), Sampler(without, traces_per_second=1000)

    for sampler in (quiet, busy):
        sampler.take(0, messages()["fast"])
        sampler.take(3600, messages()["slow"])

    assert (quiet.kept, busy.kept) == ([], [messages()["slow"]])


def test_a_recovered_request_comes_in_time(config):
    """
    It is sent within fifteen seconds of its process's end, and its fast spans from before that are still waiting.
    """
    sampler = Sampler(config)

    sampler.take(0, messages()["fast"])
    sampler.take(15, messages()["recovered"])
    sampler.let_pass(30)

    assert sampler.kept == [messages()["fast"], messages()["recovered"]]


def test_it_waits_and_remembers_long_enough(config):
    """
    decision_wait is longer than threshold, batches and recovery take, and the caches are as their document wants them.
    """
    assert Sampler(config).wait >= 1 + 5 + 15
    assert config["num_traces"] >= 1000 * Sampler(config).wait
    assert config["decision_cache"]["sampled_cache_size"] >= 10 * config["num_traces"]
    assert config["decision_cache"]["non_sampled_cache_size"] == 1


def test_what_is_kept_is_not_changed(config):
    """
    The spans that come out are the ones that went in, checkpoint and all.
    """
    sampler = Sampler(config)
    before = messages()["slow"].SerializeToString(deterministic=True)

    sampler.take(0, messages()["slow"])
    sampler.let_pass(30)

    assert [each.SerializeToString(deterministic=True) for each in sampler.kept] == [before]
    assert any(map(is_checkpoint, spans_of(sampler.kept[0])))
