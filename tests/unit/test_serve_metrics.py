"""The text of the metrics: what Prometheus's own parser makes of it, and that nobody can make it grow."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open

from guardfs.mount.counters import BOUNDS_US, MAX_LANES, OTHER, Counters, took
from guardfs.serve.health import notes, reasons
from guardfs.serve.metrics import MAX_RULES, Seen, exposition
from tests.support.scraped import Scraped

NOW = 1_800_000_000_000_000_000
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def status(**more: Any) -> dict[str, Any]:
    """The parts of a status that are asked for; the real one is read by tests/mount/test_metrics.py."""
    return {
        "version": "1.2",
        "daemon": {"now_ns": NOW, "started_ns": NOW - 60_000_000_000, "resident": 5, "descriptors": 6},
        "audit": {
            "lag_ms": {"p99": 2.5},
            "queued": 1,
            "gaps": 2,
            "dropped": 3,
            "failing": False,
            "internal_errors": 4,
        },
        "fences": {"open": 1, "opened": 9, "incidents": 2, "saved": 3, "forgotten": 0},
        "branches": {
            "open": 2,
            "bytes": 100,
            "oldest_ns": NOW - 90_000_000_000,
            "merged": 7,
            "failed": 1,
            "failing": 1,
        },
        "policy": {
            "mode": "enforce",
            "since_ns": NOW - 5_000_000_000,
            "hits": {"a": 1, 'b "x"\n\\': 2},
            "error": "",
        },
        "internal_errors": {"count": 5},
        **more,
    }


def scrape(*seen: Seen) -> Scraped:
    text, content_type = exposition(seen, "")
    assert content_type.startswith("text/plain")
    return Scraped(text.decode())


def test_numbers_are_in_the_units_that_their_names_say() -> None:
    found = scrape(Seen("/s", status(), None))
    assert found.one("guardfs_audit_lag_seconds") == 0.0025
    assert found.one("guardfs_oldest_branch_age_seconds") == 90
    assert found.one("guardfs_policy_age_seconds") == 5
    assert found.one("guardfs_daemon_start_time_seconds") == pytest.approx(NOW / 1e9 - 60)
    assert found.one("guardfs_incidents_total", outcome="lost") == 2
    assert found.one("guardfs_incidents_total", outcome="saved") == 3
    assert found.one("guardfs_internal_errors_total", where="mount") == 5
    assert found.one("guardfs_daemon_restarts_total") == 0, "absent means none"
    assert found.one("guardfs_mode", mode="enforce") == 1
    assert found.total("guardfs_mode") == 1
    assert found.one("guardfs_rule_hits_total", rule='b "x"\n\\') == 2


def test_a_guard_that_does_not_answer_is_down_and_nothing_else() -> None:
    found = scrape(Seen("/gone", None, None), Seen("/here", status(), None))
    assert found.one("guardfs_up", sessions="/gone") == 0
    assert found.one("guardfs_up", sessions="/here") == 1
    assert {name for name, labels in found.samples if ("sessions", "/gone") in labels} == {"guardfs_up"}


def test_a_daemon_of_another_version_gives_what_it_has() -> None:
    always = {"guardfs_up", "guardfs_build_info", "guardfs_mode", "guardfs_daemon_restarts_total"}
    assert scrape(Seen("/s", {}, {})).names == always
    odd = {
        "audit": None,
        "fences": 7,
        "branches": {"oldest_ns": "soon"},
        "policy": {"hits": None, "since_ns": None},
    }
    assert scrape(Seen("/s", odd, {"operations": None})).one("guardfs_oldest_branch_age_seconds") == 0
    assert scrape().samples == {}


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    counters = Counters(["gateway"])
    counters.operation("write", "gateway", "stage")
    took(counters.timing("write"), 30_000)
    text, content_type = exposition([Seen("/s", status(), counters.facts())], OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert {family.name for family in parse_open(text.decode())} >= {"guardfs_up", "guardfs_operations"}  # type: ignore[no-untyped-call]


def test_names_and_kinds_keep_to_the_conventions() -> None:
    counters = Counters(["gateway"])
    counters.operation("write", "gateway", "stage")
    took(counters.timing("write"), 30_000)
    found = scrape(Seen("/s", status(), counters.facts()))
    for family in found.families.values():
        assert re.fullmatch(r"guardfs_[a-z_]+[a-z]", family.name) and family.documentation.endswith(".")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            assert "sessions" in sample.labels


def test_durations_are_cumulative_and_sorted_into_their_classes() -> None:
    counters = Counters()
    for ns in (1, 10_000, 10_001, 7_000_000, 60_000_000_000):
        took(counters.timing("lookup"), ns)
    counters.timing("never asked")
    found = scrape(Seen("/s", status(), counters.facts()))
    name = "guardfs_request_duration_seconds"
    buckets = {labels["le"]: value for labels, value in found.all(f"{name}_bucket")}
    assert [float(bound) for bound in buckets] == [us / 1e6 for us in BOUNDS_US] + [float("inf")]
    assert (buckets["1e-05"], buckets["2.5e-05"], buckets["0.005"], buckets["0.01"]) == (2, 3, 3, 4)
    assert (buckets["10"], buckets["+Inf"], found.one(f"{name}_count")) == (4, 5, 5)
    assert found.one(f"{name}_sum") == pytest.approx(60.007020002)
    assert list(buckets.values()) == sorted(buckets.values())


def test_lanes_that_no_policy_names_are_counted_together() -> None:
    counters = Counters(["gateway", "gateway:run"])
    for number in range(1000):
        counters.operation("write", f"stranger-{number}", "allow")
    counters.operation("write", "gateway:run", "allow")
    found = scrape(Seen("/s", status(), counters.facts()))
    assert found.one("guardfs_operations_total", lane=OTHER, operation="write", verdict="allow") == 1000
    assert found.one("guardfs_operations_total", lane="gateway:run") == 1
    assert len(found.all("guardfs_operations_total")) == 2


def test_policies_one_after_the_other_make_no_more_lanes_than_fit() -> None:
    counters = Counters()
    operations = (
        "create write truncate attributes rename link symlink unlink mkdir rmdir mknod xattr "
        "open look close read list sync"
    )
    for number in range(10 * MAX_LANES):
        lane = f"a-lane-with-a-long-name:and-one-within-{number}"
        counters.use([lane])
        for operation in operations.split():
            for verdict in ("allow", "stage", "wait", "deny"):
                counters.operation(operation, lane, verdict)
    for request in operations.split() * 2:
        took(counters.timing(request), 1)
    assert len(counters.facts()["operations"]) == MAX_LANES + 1
    assert len(counters.encode()) <= 65536, "an attribute holds no more"


def test_a_policy_of_many_rules_is_counted_by_its_first_ones() -> None:
    hits = {f"rule {number}": 1 for number in range(MAX_RULES + 30)}
    found = scrape(Seen("/s", status(policy={"mode": "record", "hits": hits}), None))
    assert len(found.all("guardfs_rule_hits_total")) == MAX_RULES + 1
    assert found.one("guardfs_rule_hits_total", rule=OTHER) == 30


def test_the_reasons_for_not_being_ready_are_what_is_wrong_now() -> None:
    assert reasons({"audit": None}, None) == notes({"policy": 7}) == []
    assert reasons(None, "does not answer within 2 s") == ["does not answer within 2 s"]
    ready = status(branches={"failing": 0, "given_up": 0})
    assert reasons(ready, None) == []
    assert len(notes(ready)) == 2, "events that were lost, and internal errors: past"
    assert reasons(status(), None) == ["branches that cannot be rebased: 1"]
    broken = status(audit={"failing": True, "error": "No space left on device"}, branches={"given_up": 2})
    assert [each.rpartition(": ")[2] for each in reasons(broken, None)] == ["No space left on device", "2"]
    assert notes(status(policy={"mode": "off", "error": "x.toml:3"}))[:2] == [
        "switched off",
        "the policy's file is not what is in force: x.toml:3",
    ]
