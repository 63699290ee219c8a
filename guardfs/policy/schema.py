"""The JSON Schema of policy files, for editors: made from `model.py`, described from its docstrings. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from guardfs.policy import model

ID = "urn:guardfs:policy:1"
"""Names the schema; nothing is fetched from there."""

_SAID = {
    "Policy.version": "Version of this format.",
    "Policy.mode": '"record": decide and log, change nothing. "enforce": do what the rules say.',
    "Policy.description": "One line for people; `guardfs policy list` shows it.",
    "Policy.transcripts": "Which files are guarded, and how they are written.",
    "Policy.fence": "How fences are recognised, and how long they last.",
    "Policy.claims": "Which lanes a writer may claim for itself.",
    "Policy.audit": "The audit log; options of the command line come first.",
    "Policy.lanes": "Names for lines of work. The first that matches counts; then the first within it; and so on.",
    "Policy.rules": "What is done. The first rule that matches decides; the last one has no conditions.",
    "Policy.examples": "Operations, and what the policy is to say of each: `guardfs policy test` tries them.",
    "Transcripts.include": "Files that are guarded: globs on file names, without directories.",
    "Transcripts.exclude": "Files that are not, though `include` names them.",
    "Transcripts.format": "How a record is written: where its id, parent, type and role are. "
    '"lines": a record is any line.',
    "Fence.protocol": '"lock-file": fences are seen by the lock files of their owner. "none": there are no fences.',
    "Fence.wait_timeout": "How long a `wait` holds an open.",
    "Fence.on_timeout": "What becomes of a `wait` that lasts longer.",
    "Claims.environment": "Lanes that the variable GUARDFS_LANE of a process may claim.",
    "Claims.attribute": "Lanes that may be claimed by setting user.guardfs.lane on a transcript.",
    "Audit.level": '"changes", "transcripts" (also opens of and looks at transcripts and locks) or "all".',
    "Audit.max_size": "Size at which the log is rotated; k, M and G are powers of 1024.",
    "Audit.keep": "How many rotated logs are kept.",
    "Conditions.process": "The calling process.",
    "Conditions.operation": "Class of the operation.",
    "Conditions.file": "What the path is, as [transcripts] says.",
    "Conditions.path": "The path below the sessions directory.",
    "Conditions.record": "The first record that the operation writes; an empty table asks for any.",
    "Process.user": "User of the request, by name or number.",
    "Process.group": "Group of the request, by name or number.",
    "Process.container": "Id of the container that the process runs in.",
    "Lane.name": "Name of the lane; letters, digits and _ . @ + -. Events show the whole name, gateway:mirror.",
    "Lane.description": "One line for people.",
    "Lane.within": "Whole name of the lane, higher up in the file, inside which this one is.",
    "Lane.unless": "Where all of these hold, the entry does not match.",
    "Rule.name": "Name of the rule; every event names the rule that decided.",
    "Rule.description": "One line for people.",
    "Rule.verdict": '"allow": as without a guard. "stage": on a branch until the fence closes. "wait": an open for '
    'writing is held until then. "deny": an error.',
    "Rule.when": "All of these must hold. Without it, the rule always matches.",
    "Rule.unless": "Where all of these hold, the rule does not match.",
    "Record.type": "Type of the record, as it is written.",
    "Record.role": "Role of the message.",
    "Record.provider": "Provider of the message.",
    "Record.model": "Model of the message.",
    "Example.name": "Name of the example.",
    "Example.event": "The operation.",
    "Example.lane": "The lane that it is to get, by its whole name.",
    "Example.rule": "The rule that is to decide.",
    "Example.verdict": "The verdict that it is to get.",
    "ExampleClaim.environment": "Value of GUARDFS_LANE in its environment.",
    "ExampleClaim.attribute": "Value that it set as user.guardfs.lane.",
    "ExampleEvent.operation": "Class of the operation.",
    "ExampleEvent.path": "Path below the sessions directory.",
    "ExampleEvent.to": "New name of a rename or link.",
    "ExampleEvent.process": "Who does it.",
    "ExampleEvent.record": "The record that it writes.",
    "ExampleEvent.fence": "Whether a fence is open on the transcript, and whose.",
    "ExampleEvent.lock": "Who holds the transcript's lock file.",
    "ExampleEvent.claim": "What the writer claims to be.",
    "ExampleProcess.exe": "Path of the executable.",
    "ExampleProcess.args": "Its arguments.",
    "ExampleProcess.thread": "Name of the calling thread.",
    "ExampleProcess.main": "Whether it is the process's first thread.",
    "ExampleProcess.user": "User of the request, by number or name.",
    "ExampleProcess.group": "Group of the request, by number or name.",
    "ExampleProcess.container": "Id of the container.",
    "ExampleProcess.ancestors": "Names of its parent, of the parent's parent, and so on.",
    "ExampleRecord.type": "Type of the record.",
    "ExampleRecord.role": "Role of the message.",
    "ExampleRecord.id": "Id of the record, itself.",
    "ExampleRecord.provider": "Provider of the message.",
    "ExampleRecord.model": "Model of the message.",
    "ExampleRecord.continues": "Whose last record is its parent.",
}
"""What the docstrings of `model.py` say of a table as a whole, or leave to its name."""


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a policy file. Fresh at each call."""
    made = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(model.Policy)))  # tuples become lists
    definitions = made.pop("$defs")
    for name, definition in definitions.items():
        definition["description"] = _summary(getattr(model, name))
        for key, about in definition["properties"].items():
            definition["properties"][key] = {**_without_null(about), "description": description(name, key)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "A policy of guardfs",
        **made,
        "$defs": definitions,
    }


def description(table: str, key: str) -> str:
    """What *key* of the struct *table* means, in a sentence or two; "" if nobody says."""
    for struct in getattr(model, table).__mro__:
        if issubclass(struct, msgspec.Struct) and key in getattr(struct, "__struct_fields__", ()):
            said = _SAID.get(f"{struct.__name__}.{key}")
            if said:
                return said
            found = _documented(struct).get(key)
            if found:
                return found
    return ""


def _documented(struct: type) -> dict[str, str]:
    """The keys that the docstring of *struct* explains: ``exe: path of the executable. user, group: ...``"""
    text = _sentences(struct)
    word = "(?:" + "|".join(struct.__struct_fields__) + ")"  # type: ignore[attr-defined]
    starts = list(re.finditer(rf"(?:^|(?<=[.!] ))({word}(?:, {word})*): ", text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    found = {}
    for match, end in zip(starts, ends, strict=False):
        said = text[match.end() : end].strip()
        for key in match[1].split(", "):
            found[key] = said[:1].upper() + said[1:]
    return found


def _summary(struct: type) -> str:
    return _sentences(struct).split(". ")[0].rstrip(".") + "."


def _sentences(struct: type) -> str:
    return " ".join((struct.__doc__ or "").split())


def _without_null(about: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is absent is left out."""
    about = {key: value for key, value in about.items() if not (key == "default" and value is None)}
    parts = about.get("anyOf")
    if parts is not None:
        parts = [part for part in parts if part != {"type": "null"}]
        if len(parts) == 1:
            return {**{key: value for key, value in about.items() if key != "anyOf"}, **parts[0]}
        about["anyOf"] = parts
    return about
