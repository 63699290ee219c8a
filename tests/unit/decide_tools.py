"""What the tests of decisions share: facts, policies, strategies that make both, and a decider as plain as can be."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec
from hypothesis import strategies as st

from guardfs.lanes.label import lane_of
from guardfs.lanes.writer import Process, Writer
from guardfs.policy.facts import Facts, id_form
from guardfs.policy.model import Policy
from guardfs.transcript.records import INVALID, OVERSIZE, PART, RecordMeta

NODE = Process(
    4102,
    50798,
    "/usr/local/bin/node",
    ("openclaw", "gateway"),
    ((4000, "bash"), (1, "systemd")),
    "/",
    None,
    None,
    1,
)
PYTHON = Process(
    7001, 60001, "/usr/bin/python3.11", ("python3", "/srv/backup.py"), ((1, "cron"),), "/", None, None, 1
)
GATEWAY = Writer(4102, 4102, True, "openclaw", 1000, 1000, "ok", NODE)
POOL = Writer(4121, 4102, False, "libuv-worker", 1000, 1000, "ok", NODE)
SCRIPT = Writer(7001, 7001, True, "python3", 0, 0, "ok", PYTHON)
OUTSIDE = Writer(0, 0, False, "", 1000, 1000, "outside", None)
UUID = "bf09c3d4-0000-4000-8000-000000000001"

USERS = {"ann": 1000, "root": 0}


def ids(kind: Literal["user", "group"], name: str) -> int | None:
    return USERS.get(name)


def policy(text: dict[str, Any]) -> Policy:
    """A policy that ends with a rule ``last``, which allows."""
    last = {"name": "last", "verdict": "allow"}
    return msgspec.convert({"version": 1, **text, "rules": [*text.get("rules", []), last]}, Policy)


def facts(writer: Writer = GATEWAY, **more: Any) -> Facts:
    return Facts(
        **{"writer": writer, "operation": "append", "file": "transcript", "path": b"a.jsonl", **more}
    )


# ---- a decider as plain as can be


def plain_decide(policy: Policy, facts: Facts) -> tuple[str, tuple[str, ...], str, str]:
    """Lane, evidence, rule and verdict, by the docstrings of `model.py`, one condition after the other."""
    names: list[str] = []
    evidence: list[str] = []
    within: str | None = None
    going = True
    while going:
        going = False
        for lane in policy.lanes:
            if lane.within == within and _matches(policy, lane, facts, ""):
                names.append(lane.name)
                within = ":".join(names)
                evidence += [key for key in _evidence(policy, lane, facts) if key not in evidence]
                going = True
                break
    lane_name = ":".join(names)
    if not names:
        lane_name, by = _unmatched(policy, facts)
        evidence = [by]
    for rule in policy.rules:
        if rule.when is not None and not _all(policy, rule.when, facts, lane_name):
            continue
        if rule.unless is not None and _all(policy, rule.unless, facts, lane_name):
            continue
        return lane_name, tuple(evidence), rule.name, rule.verdict
    raise AssertionError("the last rule has no conditions")


def _matches(policy: Policy, lane: Any, facts: Facts, name: str) -> bool:
    escaped = lane.unless is not None and _all(policy, lane.unless, facts, name)
    return _all(policy, lane, facts, name) and not escaped


def _all(policy: Policy, table: Any, facts: Facts, lane: str) -> bool:
    return all(held for _, held in _each(policy, table, facts, lane))


def _each(policy: Policy, table: Any, facts: Facts, lane: str) -> list[tuple[str, bool]]:
    found = _of_process(table.process, facts.writer) if table.process is not None else []
    to = None if facts.to is None else facts.to.decode("utf-8", "surrogateescape")
    found += [
        ("operation", table.operation, facts.operation in _list(table.operation)),
        ("file", table.file, facts.file in _list(table.file)),
        ("path", table.path, _glob(table.path, facts.path.decode("utf-8", "surrogateescape"))),
        ("to", table.to, _glob(table.to, to)),
    ]
    if table.record is not None:
        found += _of_record(table.record, facts)
    found.append(("lock", table.lock, facts.lock in _list(table.lock)))
    found.append(("claim", table.claim, any(_glob(table.claim, text) for _, text in _claims(policy, facts))))
    if hasattr(table, "lane"):
        found.append(("lane", table.lane, _glob(table.lane, lane)))
        found.append(("fence", table.fence, facts.fence in _list(table.fence)))
    return [(key, bool(held)) for key, asked, held in found if asked is not None]


def _of_process(asked: Any, writer: Writer) -> list[tuple[str, Any, bool]]:
    process = writer.process
    exe = process.exe.removesuffix(" (deleted)") if process and process.exe is not None else None
    args = " ".join(process.args) if process else ""
    container = (process.container or "") if process else None
    parents = process.parents if process else ()
    return [
        ("process.exe", asked.exe, _glob(asked.exe, exe)),
        ("process.args", asked.args, _glob(asked.args, args if process and process.args else None)),
        ("process.thread", asked.thread, _glob(asked.thread, writer.comm or None)),
        ("process.main", asked.main, writer.tgid > 0 and writer.main == asked.main),
        ("process.user", asked.user, _user(asked.user, writer.uid)),
        ("process.group", asked.group, _user(asked.group, writer.gid)),
        ("process.container", asked.container, _glob(asked.container, container)),
        ("process.ancestor", asked.ancestor, any(_glob(asked.ancestor, name) for _, name in parents)),
    ]


def _of_record(asked: Any, facts: Facts) -> list[tuple[str, Any, bool]]:
    record = facts.record
    if record is not None and (record.invalid or record.part):
        record = None
    found: list[tuple[str, Any, bool]] = [("record", True, record is not None)]
    for key in asked.__struct_fields__:
        value = getattr(asked, key)
        if value is None:
            continue
        if found[0][0] == "record":  # that there is one is asked by each key
            found.clear()
        held = False
        if record is not None:
            if key == "id":
                held = not (record.oversize and record.id is None) and id_form(record.id) in _list(value)
            elif key == "continues":
                held = facts.continues in _list(value)
            else:
                held = _glob(value, getattr(record, key))
        found.append((f"record.{key}", value, held))
    return found


def _evidence(policy: Policy, lane: Any, facts: Facts) -> list[str]:
    keys = [key for key, _ in _each(policy, lane, facts, "")]
    for by, text in _claims(policy, facts):
        if _glob(lane.claim, text):
            return [f"claim.{by}" if key == "claim" else key for key in keys]
    return keys


def _claims(policy: Policy, facts: Facts) -> list[tuple[str, str]]:
    process = facts.writer.process
    made = [("attribute", facts.claim), ("environment", process.environ_lane if process else None)]
    return [
        (by, text)
        for by, text in made
        if text is not None and any(fnmatchcase(text, glob) for glob in getattr(policy.claims, by))
    ]


def _unmatched(policy: Policy, facts: Facts) -> tuple[str, str]:
    declared = {lane.name for lane in policy.lanes}
    for by, text in _claims(policy, facts):
        reserved = declared | {"outside", "kernel", "exited", "unseen"}
        if re.fullmatch(r"[A-Za-z0-9_.@+-]{1,64}", text) and text not in reserved:
            return text, f"claim.{by}"
    label = lane_of(facts.writer)
    outermost = {lane.name for lane in policy.lanes if lane.within is None}
    return (f"exe:{label}" if label.split(":")[0] in outermost else label), "label"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _glob(globs: Any, text: str | None) -> bool:
    return globs is not None and text is not None and any(fnmatchcase(text, glob) for glob in _list(globs))


def _user(asked: Any, number: int) -> bool:
    return asked is not None and number in [
        USERS.get(each) if isinstance(each, str) else each for each in _list(asked)
    ]


# ---- anything

_texts = st.sampled_from(
    [
        "",
        "a",
        "ab",
        "gw",
        "a.jsonl",
        "b/a.jsonl",
        "node",
        "/bin/node",
        "/bin/sh (deleted)",
        "x\ny",
        "A",
        "[",
        "ü",
    ]
)
_globs = st.sampled_from("* a a* *a *b* ? ?? [ab]* [!a]* *.jsonl b/* gw gw:* *node* *\n* [ ü".split(" "))
_some_globs = st.one_of(_globs, st.lists(_globs, min_size=1, max_size=3))


def _one_or_more(*values: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), min_size=1, max_size=3))


def _table(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    # most tables ask little, or nothing would ever match
    return st.sets(st.sampled_from(sorted(keys)), max_size=2).flatmap(
        lambda chosen: st.fixed_dictionaries({key: keys[key] for key in sorted(chosen)})
    )


_OPERATIONS = ("append", "create", "rewrite", "look")
_FILES = ("transcript", "lock", "registry", "other")
_FENCES = ("none", "own", "other")
_LOCKS = ("free", "own", "other")
_CHAINS = ("owner", "branch", "leaf", "none")
_users = _one_or_more(0, 1000, "ann", "nobody-here")
_asked: dict[str, st.SearchStrategy[Any]] = {
    "process": _table(
        exe=_some_globs, args=_some_globs, thread=_some_globs, main=st.booleans(), user=_users, group=_users,
        container=_some_globs, ancestor=_some_globs,
    ),
    "operation": _one_or_more(*_OPERATIONS),
    "file": _one_or_more(*_FILES),
    "path": _some_globs,
    "to": _some_globs,
    "record": _table(
        type=_some_globs, role=_some_globs, id=_one_or_more("uuid", "hex8", "other"), provider=_some_globs,
        model=_some_globs, continues=_one_or_more(*_CHAINS),
    ),
    "lock": _one_or_more(*_LOCKS),
    "claim": _some_globs,
}  # fmt: skip
_when: dict[str, st.SearchStrategy[Any]] = {**_asked, "lane": _some_globs, "fence": _one_or_more(*_FENCES)}


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies with lanes within lanes, negations, rules that may match everything, and claims believed."""
    lanes: list[dict[str, Any]] = []
    names: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        within = draw(st.sampled_from([None, *names]))
        inner = draw(st.sampled_from(["gw", "a", "b", "node", "sh"]))
        whole = f"{within}:{inner}" if within else inner
        if whole in names:
            continue
        lane = {"name": inner, **draw(_table(**_asked))}
        if within:
            lane["within"] = within
        if draw(st.booleans()):
            lane["unless"] = draw(_table(**_asked))
        names.append(whole)
        lanes.append(lane)
    rules = []
    for number in range(draw(st.integers(0, 8))):
        rule: dict[str, Any] = {
            "name": f"r{number}",
            "verdict": draw(st.sampled_from(["stage", "deny", "wait"])),
        }
        if number or draw(st.booleans()):
            rule["when"] = draw(_table(**_when))
        if draw(st.booleans()):
            rule["unless"] = draw(_table(**_when))
        rules.append(rule)
    believed = st.lists(_globs, max_size=2)
    claims = {"environment": draw(believed), "attribute": draw(believed)}
    return policy({"lanes": lanes, "rules": rules, "claims": claims})


_maybe = st.one_of(st.none(), _texts)
_processes = st.builds(
    Process,
    st.just(7), st.just(1), _maybe, st.lists(_texts, max_size=2).map(tuple),
    st.lists(st.tuples(st.just(1), _texts), max_size=2).map(tuple), st.none(), _maybe, st.none(), st.none(), _maybe,
)  # fmt: skip
writers = st.one_of(
    st.just(OUTSIDE),
    st.builds(
        Writer,
        st.just(8), st.sampled_from([0, 7]), st.booleans(), _texts, st.sampled_from([0, 5, 1000]),
        st.sampled_from([0, 1000]), st.sampled_from(["ok", "hidden"]), st.one_of(st.none(), _processes, _processes),
    ),
)  # fmt: skip
_records = st.one_of(
    st.none(),
    st.sampled_from([INVALID, PART, OVERSIZE]),
    st.builds(
        RecordMeta,
        type=_maybe, role=_maybe, id=st.sampled_from([None, UUID, "0123abcd", "0123ABCD", "z"]), provider=_maybe,
        model=_maybe, oversize=st.booleans(),
    ),
)  # fmt: skip
_paths = _texts.map(str.encode) | st.binary(max_size=4)
any_facts = st.builds(
    Facts,
    writer=writers,
    operation=st.sampled_from(_OPERATIONS),
    file=st.sampled_from(_FILES),
    path=_paths,
    to=st.one_of(st.none(), _paths),
    record=_records,
    fence=st.sampled_from(_FENCES),
    continues=st.sampled_from([None, *_CHAINS]),
    lock=st.sampled_from(_LOCKS),
    claim=_maybe,
)
