"""The metrics that are one number of the status each, as it stands there (`guardfs.mount.status`)."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Number(NamedTuple):
    """A metric that is one number of the status. path: where it stands there, with dots; scale: its unit in that of the
    metric; absent: what is meant where it is missing or null, None for no sample. of: the further label and its value,
    where several numbers make one metric."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    path: str
    scale: float = 1.0
    absent: float | None = None
    of: tuple[str, str] | None = None


_INCIDENTS = (
    "Fences that a change by another lane broke (lost: the turn died of it), or would have broken (saved)."
)

NUMBERS = (
    Number(
        "guardfs_daemon_restarts",
        "counter",
        "Daemons that another one has replaced.",
        "daemon.restarts",
        absent=0,
    ),
    Number(
        "guardfs_daemon_start_time_seconds",
        "gauge",
        "When the daemon was started, since the epoch.",
        "daemon.started_ns",
        1e-9,
    ),
    Number("guardfs_daemon_resident_memory_bytes", "gauge", "Memory of the daemon.", "daemon.resident"),
    Number("guardfs_daemon_open_fds", "gauge", "Descriptors that the daemon has open.", "daemon.descriptors"),
    Number("guardfs_known_files", "gauge", "Files that the kernel knows by a node of the guard's.", "nodes"),
    Number("guardfs_open_files", "gauge", "Files that are open through the mount.", "handles"),
    Number(
        "guardfs_requests_waiting",
        "gauge",
        "Requests that wait for a disk, or for a fence to close.",
        "detached",
    ),
    Number("guardfs_fences_open", "gauge", "Fences that are open.", "fences.open"),
    Number("guardfs_fences_opened", "counter", "Fences that were opened.", "fences.opened"),
    Number("guardfs_incidents", "counter", _INCIDENTS, "fences.saved", of=("outcome", "saved")),
    Number("guardfs_incidents", "counter", _INCIDENTS, "fences.incidents", of=("outcome", "lost")),
    Number(
        "guardfs_forgotten",
        "counter",
        "Times that records were put off the path from the leaf: the agent forgot them.",
        "fences.forgotten",
    ),
    Number("guardfs_branches_open", "gauge", "Branches that wait for a fence to close.", "branches.open"),
    Number("guardfs_staged_bytes", "gauge", "Bytes on branches.", "branches.bytes"),
    Number(
        "guardfs_branches_failing",
        "gauge",
        "Branches whose rebase failed, and is tried again.",
        "branches.failing",
    ),
    Number("guardfs_merges", "counter", "Branches that were rebased.", "branches.merged"),
    Number("guardfs_merge_failures", "counter", "Rebases that failed.", "branches.failed"),
    Number(
        "guardfs_merge_conflicts",
        "counter",
        "Branches that were kept as files of their own, because they could not be merged.",
        "branches.conflicts",
    ),
    Number(
        "guardfs_unstaged",
        "counter",
        "Changes that were to be staged and went through: over a bound, or after an error.",
        "branches.passed",
    ),
    Number(
        "guardfs_transcripts_given_up",
        "gauge",
        "Transcripts that are only recorded after internal errors, until the next mount.",
        "branches.given_up",
    ),
    Number("guardfs_callers_held", "gauge", "Callers that wait for a fence to close.", "branches.held"),
    Number(
        "guardfs_audit_lag_seconds",
        "gauge",
        "From an operation to its line in the log: the 99th percentile of the last 2,048 events.",
        "audit.lag_ms.p99",
        1e-3,
    ),
    Number("guardfs_audit_queued_events", "gauge", "Events that wait to be written.", "audit.queued"),
    Number("guardfs_audit_events", "counter", "Events that were written to the log.", "audit.written"),
    Number("guardfs_audit_bytes", "counter", "Bytes that were written to the log.", "audit.bytes"),
    Number("guardfs_audit_gaps", "counter", "Outages of the log.", "audit.gaps"),
    Number("guardfs_audit_events_lost", "counter", "Events that no line will tell of.", "audit.dropped"),
    Number("guardfs_audit_failing", "gauge", "1 while the log cannot be written.", "audit.failing"),
    Number("guardfs_audit_rotations", "counter", "Rotations of the log.", "audit.rotations"),
    Number(
        "guardfs_policy_reloads", "counter", "Policies that took effect after the first.", "policy.reloads"
    ),
    Number(
        "guardfs_policy_refused",
        "counter",
        "Changes of the policy's file that were refused.",
        "policy.refused",
    ),
    Number(
        "guardfs_unseen_changes",
        "counter",
        "Changes that did not come through the mount.",
        "unseen_changes",
    ),
    Number(
        "guardfs_internal_errors",
        "counter",
        "Errors of the guard's own; the operation was answered all the same.",
        "internal_errors.count",
        of=("where", "mount"),
    ),
    Number(
        "guardfs_internal_errors",
        "counter",
        "Errors of the guard's own; the operation was answered all the same.",
        "audit.internal_errors",
        of=("where", "audit"),
    ),
)
