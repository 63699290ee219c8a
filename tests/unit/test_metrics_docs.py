"""Every metric is described; what is described or alerted on exists; the rules are what Prometheus takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from guardfs.cli.main import COMMANDS
from guardfs.serve.metrics import Seen, exposition
from tests.support.scraped import Scraped

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "examples/prometheus/alerts.yaml"
PAGE = ROOT / "docs/metrics.md"
OF_A_HISTOGRAM = ("_bucket", "_count", "_sum")


def exposed() -> set[str]:
    """Every metric, by the name that a query uses; histograms by that of the whole."""
    text, _ = exposition([Seen("/s", {}, {})], "")
    families = Scraped(text.decode()).families.values()
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def named(text: str) -> set[str]:
    """The metrics that *text* names."""
    names = set(re.findall(r"\bguardfs_[a-z_]+[a-z]", text))
    whole = exposed()
    return {
        next((n[: -len(s)] for s in OF_A_HISTOGRAM if n.endswith(s) and n[: -len(s)] in whole), n)
        for n in names
    }


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_the_page_describes_every_metric_once_and_no_other() -> None:
    rows = re.findall(r"^\| `(guardfs_[a-z_]+)` \|", PAGE.read_text(), re.M)
    assert len(rows) == len(set(rows))
    assert set(rows) == exposed()
    assert named(PAGE.read_text()) == exposed()


def test_the_rules_ask_for_metrics_that_exist() -> None:
    for rule in rules():
        assert named(rule["expr"]) <= exposed(), rule["alert"]
    asked = set().union(*(named(rule["expr"]) for rule in rules()))
    watched = {"restarts", "incidents", "oldest_branch", "merge_failures", "audit_gaps", "policy_stale", "up"}
    assert all(any(word in name for name in asked) for word in watched)


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        for command in re.findall(r"`guardfs ([a-z]+)", rule["annotations"]["description"]):
            assert command in COMMANDS, rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's prometheus)")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


STORY = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'guardfs_up{sessions="/s"}', values: '1x10 0x60'}
      - {series: 'guardfs_incidents_total{outcome="lost", sessions="/s"}', values: '0x10 1x60'}
      - {series: 'guardfs_incidents_total{outcome="saved", sessions="/s"}', values: '0+5x70'}
      - {series: 'guardfs_audit_gaps_total{sessions="/s"}', values: '7x10 0x5 1x55'}
      - {series: 'guardfs_oldest_branch_age_seconds{sessions="/s"}', values: '0+60x70'}
      - {series: 'guardfs_policy_stale{sessions="/s"}', values: '0x70'}
    alert_rule_test:
      - {eval_time: 10m, alertname: GuardfsNotAnswering, exp_alerts: []}
      - {eval_time: 9m, alertname: GuardfsTurnsLost, exp_alerts: []}
      - {eval_time: 9m, alertname: GuardfsAuditGap, exp_alerts: []}
      - {eval_time: 40m, alertname: GuardfsTurnsLost, exp_alerts: []}
      - {eval_time: 60m, alertname: GuardfsPolicyRefused, exp_alerts: []}
"""
"""A guard that is lost after ten minutes. What is expected to fire is added by the test: texts are the rules' own."""

FIRES = [
    ("13m", "GuardfsNotAnswering", {}),
    ("12m", "GuardfsTurnsLost", {"outcome": "lost"}),
    ("20m", "GuardfsAuditGap", {}),
    ("40m", "GuardfsOldBranch", {}),
]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian's prometheus)")
def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    story = yaml.safe_load(STORY.replace("RULES", str(ALERTS)))
    by_name = {rule["alert"]: rule for rule in rules()}
    for when, name, more in FIRES:
        rule = by_name[name]
        notes = {
            key: text.replace("{{ $labels.sessions }}", "/s").replace(
                "{{ $value | humanizeDuration }}", "40m 0s"
            )
            for key, text in rule["annotations"].items()
        }
        fired = {"exp_labels": {"sessions": "/s", **rule["labels"], **more}, "exp_annotations": notes}
        story["tests"][0]["alert_rule_test"].append(
            {"eval_time": when, "alertname": name, "exp_alerts": [fired]}
        )
    file = tmp_path / "story.yaml"
    file.write_text(yaml.safe_dump(story))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
