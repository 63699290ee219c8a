"""The metrics: what guards say of themselves, as Prometheus reads it. docs/metrics.md describes every one.

All numbers are the daemons' own, so that they go on when this process begins anew. A label is a guarded directory, a
kind of operation, a verdict, a mode, or a name that stands in a policy: nothing that a writer could make many of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from guardfs.serve.numbers import NUMBERS

MAX_RULES = 100
"""Rules that are counted by name; the rest of a longer policy as `OTHER`."""

OTHER = "other"
MODES = ("record", "enforce", "off")

Facts = dict[str, Any]


class Seen(NamedTuple):
    """One guard at the time of a scrape. status, counters: None where it does not answer."""

    sessions: str
    status: Facts | None
    counters: Facts | None


def _find(facts: Facts | None, path: str) -> Any:
    found: Any = facts
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _number(found: Any) -> float | None:
    return float(found) if isinstance(found, int | float) else None


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=("sessions", *labels))


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=("sessions", *labels))


class Metrics(Collector):
    """What was seen of some guards, once."""

    def __init__(self, seen: Iterable[Seen]) -> None:
        self._seen = list(seen)
        self._answering = [each for each in self._seen if each.status is not None]

    def collect(self) -> Iterator[Metric]:
        """Every metric; of guards that do not answer only that."""
        up = _gauge("guardfs_up", "1 if the guard answers.")
        for each in self._seen:
            up.add_metric([each.sessions], float(each.status is not None))
        yield up
        yield self._version()
        yield self._mode()
        yield from self._numbers()
        yield self._oldest_branch()
        yield from self._policy()
        yield self._rules()
        yield self._operations()
        yield self._durations()

    def _version(self) -> Metric:
        found = _gauge("guardfs_build_info", "The version of the daemon; always 1.", "version")
        for sessions, status, _ in self._answering:
            found.add_metric([sessions, str(_find(status, "version"))], 1)
        return found

    def _mode(self) -> Metric:
        found = _gauge("guardfs_mode", "1 for the mode in force.", "mode")
        for sessions, status, _ in self._answering:
            for mode in MODES:
                found.add_metric([sessions, mode], float(_find(status, "policy.mode") == mode))
        return found

    def _numbers(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for number in NUMBERS:
            extra = [number.of[0]] if number.of else []
            family = families.get(number.name)
            if family is None:
                make = _gauge if number.kind == "gauge" else _counter
                family = families[number.name] = make(number.name, number.text, *extra)
            for sessions, status, _ in self._answering:
                value = _number(_find(status, number.path))
                value = number.absent if value is None else value * number.scale
                if value is not None:
                    family.add_metric([sessions, *([number.of[1]] if number.of else [])], value)
        yield from families.values()

    def _oldest_branch(self) -> Metric:
        text = "Age of the oldest branch; 0 if there is none."
        found = _gauge("guardfs_oldest_branch_age_seconds", text)
        for sessions, status, _ in self._answering:
            if _find(status, "branches") is not None:
                found.add_metric([sessions], _age(status, "branches.oldest_ns") or 0.0)
        return found

    def _policy(self) -> Iterator[Metric]:
        age = _gauge("guardfs_policy_age_seconds", "How long the policy has been in force.")
        stale = _gauge(
            "guardfs_policy_stale",
            "1 while the policy's file is not what is in force: it was refused.",
        )
        for sessions, status, _ in self._answering:
            seconds = _age(status, "policy.since_ns")
            if seconds is not None:
                age.add_metric([sessions], seconds)
                stale.add_metric([sessions], float(bool(_find(status, "policy.error"))))
        yield age
        yield stale

    def _rules(self) -> Metric:
        text = "Operations that a rule has decided since the policy is in force."
        found = _counter("guardfs_rule_hits", text, "rule")
        for sessions, status, _ in self._answering:
            hits = list((_find(status, "policy.hits") or {}).items())
            for rule, count in hits[:MAX_RULES]:
                found.add_metric([sessions, rule], count)
            if len(hits) > MAX_RULES:
                found.add_metric([sessions, OTHER], sum(count for _, count in hits[MAX_RULES:]))
        return found

    def _operations(self) -> Metric:
        text = "Operations that change something or touch a transcript or lock, by what was done with them."
        found = _counter("guardfs_operations", text, "operation", "lane", "verdict")
        for sessions, _, counters in self._answering:
            for lane, operations in (_find(counters, "operations") or {}).items():
                for operation, verdicts in operations.items():
                    for verdict, count in verdicts.items():
                        found.add_metric([sessions, operation, lane, verdict], count)
        return found

    def _durations(self) -> Metric:
        text = "From the moment at which the daemon takes a request up to its answer."
        found = HistogramMetricFamily(
            "guardfs_request_duration_seconds", text, labels=("sessions", "request")
        )
        for sessions, _, counters in self._answering:
            bounds = _find(counters, "bounds_us") or []
            for request, timing in (_find(counters, "requests") or {}).items():
                buckets, total = [], 0
                for bound, count in zip(
                    [*(f"{us / 1e6:g}" for us in bounds), "+Inf"], timing["counts"], strict=True
                ):
                    total += count
                    buckets.append((bound, float(total)))
                found.add_metric([sessions, request], buckets, timing["sum_ns"] / 1e9)
        return found


def _age(status: Facts | None, path: str) -> float | None:
    """Seconds since the time that stands at *path*, by the daemon's own clock."""
    then, now = _number(_find(status, path)), _number(_find(status, "daemon.now_ns"))
    return None if then is None or now is None else max(0.0, (now - then) / 1e9)


def exposition(seen: Iterable[Seen], accept: str) -> tuple[bytes, str]:
    """The text of all metrics, and its content type: OpenMetrics where *accept* asks for it, else Prometheus's."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(seen))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
