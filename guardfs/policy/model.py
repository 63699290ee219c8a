"""What a policy file says: plain data, and the one source of its schema, its defaults and its reference. Pure.

A *lane* is a label for a line of work, a *rule* gives a *verdict* on an operation (design, section 2). Globs are
those of the shell (``*``, ``?``, ``[...]``), case-sensitive, and ``*`` matches ``/``, too. Wherever one glob
may stand, a list of them may, and one that matches is enough. All conditions of one table must hold.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

VERSION = 1
"""Of the schema. A file of another version is refused."""

Mode = Literal["record", "enforce"]
Verdict = Literal["allow", "stage", "wait", "deny"]
OperationClass = Literal["append", "create", "rewrite", "truncate", "rename", "unlink", "attributes", "look"]
FileClass = Literal["transcript", "lock", "registry", "other"]
FenceRelation = Literal["none", "own", "other"]
LockRelation = Literal["free", "own", "other"]
Chain = Literal["owner", "branch", "leaf", "none"]
IdForm = Literal["uuid", "hex8", "other"]
Format = Literal["pi", "claude-code", "codex", "gemini-cli", "lines"]
Level = Literal["changes", "transcripts", "all"]

Glob = Annotated[str, Meta(min_length=1, max_length=1024)]
Globs = Glob | Annotated[list[Glob], Meta(min_length=1, max_length=256)]
Ids = Annotated[str, Meta(min_length=1)] | Annotated[int, Meta(ge=0)] | list[str | int]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
LaneName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.@+-]{1,64}$")]
Duration = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$", examples=["500ms", "30s", "15m"])]
Size = Annotated[str, Meta(pattern=r"^[0-9]+[kKmMgG]?(i?[bB])?$", examples=["500000", "64M", "1G"])]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def seconds(duration: str) -> float:
    """The seconds of a `Duration`."""
    match = re.fullmatch(r"([0-9.]+)(ms|s|m|h|d)", duration)
    if match is None:
        raise ValueError(f"{duration!r} is no duration")
    return float(match[1]) * _SECONDS[match[2]]


def bytes_of(size: str) -> int:
    """The bytes of a `Size`; k, M and G are powers of 1024."""
    match = re.fullmatch(r"([0-9]+)([kmg]?)(i?b)?", size.lower())
    if match is None:
        raise ValueError(f"{size!r} is no size")
    return int(match[1]) * _UNITS[match[2]]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the file. Keys that are absent hold their default."""


class Process(_Table, frozen=True):
    """Conditions on the calling process, from /proc and the kernel: the strongest evidence.

    exe: path of the executable. args: the arguments, joined by single spaces (a program that sets its title shows as
    that). thread: name of the calling thread (at most 15 bytes). main: whether it is the process's first thread. user,
    group: of the request, by name or number. container: id of the container ("?*": any; "*" is
    met outside of containers, too). ancestor: name of the parent
    process, or of its parent, and so on.
    """

    exe: Globs | None = None
    args: Globs | None = None
    thread: Globs | None = None
    main: bool | None = None
    user: Ids | None = None
    group: Ids | None = None
    container: Globs | None = None
    ancestor: Globs | None = None


class Record(_Table, frozen=True):
    """Conditions on the first record that the operation writes. An operation that writes none never meets them.

    id: its form: "uuid", "hex8" (eight hex digits, as pi's session manager makes them), or "other" (also: none).
    continues: whose last record is its parent: the fence owner's, the writer's own branch's, the file's leaf, or none
    of these.
    """

    type: Globs | None = None
    role: Globs | None = None
    id: IdForm | list[IdForm] | None = None
    provider: Globs | None = None
    model: Globs | None = None
    continues: Chain | list[Chain] | None = None


class Conditions(_Table, frozen=True):
    """What can be asked about any operation. Absent keys ask nothing.

    process: see `Process`. operation: classes of operation. file: what the path is. path: below the sessions
    directory. to: the new name of a rename or link. record: see `Record`. lock: who holds the transcript's lock file:
    nobody, the writer's own line of work, or another one, of another process or the same. claim: a lane that the writer
    claims for itself; never met unless `[claims]` believes it.
    """

    process: Process | None = None
    operation: OperationClass | list[OperationClass] | None = None
    file: FileClass | list[FileClass] | None = None
    path: Globs | None = None
    to: Globs | None = None
    record: Record | None = None
    lock: LockRelation | list[LockRelation] | None = None
    claim: Globs | None = None


class When(Conditions, frozen=True):
    """What a rule can ask besides. lane: the lane's whole name, "gateway:mirror". fence: whether a fence is open on the
    transcript, and whose."""

    lane: Globs | None = None
    fence: FenceRelation | list[FenceRelation] | None = None


class Lane(Conditions, frozen=True, kw_only=True):
    """One entry of `[[lanes]]`: a name for the operations that meet all its conditions, and not those of `unless`.

    The lane of an operation is the first entry without `within` that matches; then, of the entries within that one, the
    first that matches; and so on down. Its whole name joins the names with colons: "gateway:mirror".
    """

    name: LaneName
    description: str = ""
    within: Annotated[str, Meta(min_length=1)] | None = None
    unless: Conditions | None = None


class Rule(_Table, frozen=True, kw_only=True):
    """One entry of `[[rules]]`. The first rule that matches decides; the last one has no conditions.

    errno: the error of a `deny`, by its name. on_timeout: what a `wait` that was not answered in time becomes; default:
    that of `[fence]`.
    """

    name: Name
    verdict: Verdict
    description: str = ""
    when: When | None = None
    unless: When | None = None
    errno: Annotated[str, Meta(pattern=r"^E[A-Z0-9]+$")] | None = None
    on_timeout: Literal["allow", "stage", "deny"] | None = None


class Transcripts(_Table, frozen=True):
    """Which files are guarded, and how they are written.

    include, exclude: globs on file names, without directories. format: where a record's id, parent, type and role are.
    lock: name of a transcript's lock file; "" where the agent has none. registry: the file that maps session keys to
    transcripts; "" where there is none.
    """

    include: tuple[Glob, ...] = ("*.jsonl",)
    exclude: tuple[Glob, ...] = ()
    format: Format = "pi"
    lock: Annotated[str, Meta(pattern=r"^$|^.*\{transcript\}.*$", max_length=200)] = "{transcript}.lock"
    registry: Annotated[str, Meta(max_length=200)] = "sessions.json"


class Fence(_Table, frozen=True):
    """How fences are recognised, and how long they last.

    protocol: "lock-file": by the lock cycles of the owner (design, section 5); "none": there are no fences.
    idle_timeout: silence of an owner after which its fence closes. linger: how long branches wait after the fence has
    closed, so that the agent finds its own reply last when it looks once more; whoever begins a turn does not wait.
    wait_timeout, on_timeout: how long a `wait` holds an open, and what becomes of it then. max_waiting: threads of one
    process that may be held at a time. max_branch, max_staged: bytes of one branch and of all that are kept in the
    state directory; what would go beyond is not staged, and goes through.
    """

    protocol: Literal["lock-file", "none"] = "lock-file"
    idle_timeout: Duration = "15m"
    linger: Duration = "0s"
    wait_timeout: Duration = "30s"
    on_timeout: Literal["allow", "stage", "deny"] = "stage"
    max_waiting: Annotated[int, Meta(ge=0, le=1000)] = 1
    max_branch: Size = "64M"
    max_staged: Size = "1G"


class Claims(_Table, frozen=True):
    """Which lanes a writer may claim for itself: globs. Any process of the same user can make a claim, so none is
    believed by default.

    environment: by the variable GUARDFS_LANE. attribute: by setting `user.guardfs.lane` on a transcript.
    """

    environment: tuple[Glob, ...] = ()
    attribute: tuple[Glob, ...] = ()


class Audit(_Table, frozen=True):
    """The audit log; options of the command line come first.

    level: "changes", "transcripts" (also opens of and looks at transcripts and locks) or "all". required: changes fail
    with EIO while the log cannot be written. hash_ids: session keys and user ids become keyed hashes. max_size, keep:
    size at which the log is rotated, and how many rotated logs are kept.
    """

    level: Level = "transcripts"
    required: bool = False
    hash_ids: bool = False
    max_size: Size = "64M"
    keep: Annotated[int, Meta(ge=0, le=1000)] = 10


class ExampleProcess(_Table, frozen=True):
    """The process of an example; what is absent is unknown, and matches no condition."""

    exe: str | None = None
    args: tuple[str, ...] = ()
    thread: str = ""
    main: bool = True
    user: Annotated[int, Meta(ge=0)] | str = 0
    group: Annotated[int, Meta(ge=0)] | str = 0
    container: str | None = None
    ancestors: tuple[str, ...] = ()


class ExampleRecord(_Table, frozen=True):
    """The record of an example, by its own values."""

    type: str | None = None
    role: str | None = None
    id: str | None = None
    provider: str | None = None
    model: str | None = None
    continues: Chain | None = None


class ExampleClaim(_Table, frozen=True):
    """What the writer of an example claims to be."""

    environment: str | None = None
    attribute: str | None = None


class ExampleEvent(_Table, frozen=True):
    """One operation, described. file: by default what `[transcripts]` says of the path."""

    operation: OperationClass = "append"
    path: str = "example.jsonl"
    to: str | None = None
    file: FileClass | None = None
    process: ExampleProcess = ExampleProcess()
    record: ExampleRecord | None = None
    fence: FenceRelation = "none"
    lock: LockRelation = "free"
    claim: ExampleClaim | None = None


class Example(_Table, frozen=True, kw_only=True):
    """One entry of `[[examples]]`: an operation, and what the policy is to say of it. At least one of lane, rule and
    verdict is named."""

    name: Name
    event: ExampleEvent
    lane: str | None = None
    rule: str | None = None
    verdict: Verdict | None = None


class Policy(_Table, frozen=True, kw_only=True):
    """A whole policy file."""

    version: Literal[1]
    mode: Mode = "record"
    description: str = ""
    transcripts: Transcripts = Transcripts()
    fence: Fence = Fence()
    claims: Claims = Claims()
    audit: Audit = Audit()
    lanes: tuple[Lane, ...] = ()
    rules: Annotated[tuple[Rule, ...], Meta(min_length=1)]
    examples: tuple[Example, ...] = ()
