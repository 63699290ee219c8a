"""What a decision is made from, and the decision. Pure data, shared by mount, `policy test`, `explain` and `replay`."""

from __future__ import annotations

import re

import msgspec

from guardfs.lanes.writer import Writer
from guardfs.policy.model import (
    Chain,
    FenceRelation,
    FileClass,
    IdForm,
    LockRelation,
    OperationClass,
    Verdict,
)
from guardfs.transcript.records import RecordMeta


class Facts(msgspec.Struct, frozen=True, gc=False):
    """One operation, as a policy sees it.

    path, to: raw bytes below the mount, no leading slash. record: the first record that the operation writes.
    continues: None where nobody knows. claim: what the writer said by `user.guardfs.lane`; what it says by GUARDFS_LANE
    stands in its process.
    """

    writer: Writer
    operation: OperationClass
    file: FileClass
    path: bytes
    to: bytes | None = None
    record: RecordMeta | None = None
    fence: FenceRelation = "none"
    continues: Chain | None = None
    lock: LockRelation = "free"
    claim: str | None = None


class Decision(msgspec.Struct, frozen=True, eq=False):
    """What a policy says of an operation. The same object for the same outcome, so that it can be a key.

    lane: whole name. evidence: the conditions that gave the lane ("process.exe", "record.id"); ``label``: none did,
    it is made from the executable's name; ``claim.environment``, ``claim.attribute``: the writer said so itself, and
    the policy believes it. rule: its name; index: its place in the policy. errno: of a ``deny``, a number, else 0.
    """

    lane: str
    evidence: tuple[str, ...]
    rule: str
    index: int
    verdict: Verdict
    errno: int = 0
    on_timeout: Verdict = "stage"


_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_HEX8 = re.compile(r"[0-9a-f]{8}")


def id_form(record_id: str | None) -> IdForm:
    """The form of a record's id: who makes ids makes them alike."""
    if record_id is None:
        return "other"
    if len(record_id) == 8:
        return "hex8" if _HEX8.fullmatch(record_id) else "other"
    return "uuid" if _UUID.fullmatch(record_id) else "other"


_CLASSES: dict[str, OperationClass] = {
    "create": "create", "mkdir": "create", "mknod": "create", "symlink": "create",
    "truncate": "truncate",
    "rename": "rename",
    "unlink": "unlink", "rmdir": "unlink",
    "attributes": "attributes", "xattr": "attributes", "link": "attributes",
    "open": "look", "look": "look", "read": "look", "list": "look", "close": "look", "sync": "look",
}  # fmt: skip


def operation_class(
    op: str,
    *,
    append: bool | None = None,
    offset: int | None = None,
    size_before: int | None = None,
    onto_transcript: bool = False,
) -> OperationClass:
    """The class of the audit log's operation *op*.

    A write is an append with O_APPEND, or where it begins at or behind the end that the file had (*size_before*, bytes,
    None if unknown); else it rewrites. A rename onto a transcript rewrites that.
    """
    if op == "write":
        if append or (offset is not None and size_before is not None and offset >= size_before):
            return "append"
        return "rewrite"
    if op == "rename" and onto_transcript:
        return "rewrite"
    return _CLASSES.get(op, "look")
