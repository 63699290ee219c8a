"""docs/policy.md names every key with type, values and default; its examples are right; the schema is up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guardfs.policy.examine import examine
from guardfs.policy.model import VERSION
from guardfs.policy.problem import Problem
from guardfs.policy.schema import schema

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "policy.md").read_text()
SCHEMA = schema()

TABLES = {
    "Policy": "The file",
    "Transcripts": "`[transcripts]`",
    "Fence": "`[fence]`",
    "Claims": "`[claims]`",
    "Audit": "`[audit]`",
    "Lane": "`[[lanes]]`",
    "Rule": "`[[rules]]`",
    "Conditions": "Conditions",
    "When": "Conditions of rules",
    "Process": "`process`",
    "Record": "`record`",
    "Example": "`[[examples]]`",
    "ExampleEvent": "`event`",
    "ExampleProcess": "`event.process`",
    "ExampleRecord": "`event.record`",
    "ExampleClaim": "`event.claim`",
}
"""The struct of the model, and the heading under which its keys stand."""


def kind(about: dict[str, Any]) -> str:
    """Type and values of a key, in the words of the page."""
    if "$ref" in about:
        return "table"
    if "enum" in about:
        return ", ".join(f"`{json.dumps(value)}`" for value in about["enum"])
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(kind(part) for part in about["anyOf"]))
    if about["type"] == "array":
        inner = about["items"]
        if "enum" in inner:
            return "a list of them"
        return "list of tables" if "$ref" in inner else "list" if "anyOf" in inner else "list of texts"
    words = {"string": "text", "integer": "number", "boolean": "`true`, `false`"}
    pattern = about.get("pattern", "")
    if "(ms|s|m|h|d)" in pattern:
        return "duration"
    return "size" if "[kKmMgG]" in pattern else words[about["type"]]


def default(about: dict[str, Any], required: bool) -> str:
    """The default of a key, as the page has it."""
    if required:
        return "required"
    if about.get("default") in (None, {}) or "$ref" in about:
        return ""
    return f"`{json.dumps(about['default'], ensure_ascii=False)}`"


def rows(struct: str) -> dict[str, tuple[str, str]]:
    """Key -> type and default, of one struct."""
    made = SCHEMA["$defs"][struct]
    inherited = SCHEMA["$defs"]["Conditions"]["properties"] if struct in ("Lane", "When") else {}
    return {
        key: (kind(about), default(about, key in made["required"]))
        for key, about in made["properties"].items()
        if key not in inherited
    }


def section(heading: str) -> str:
    """What stands under a heading, up to the next one."""
    match = re.search(rf"(?m)^#+ {re.escape(heading)}\n((?:(?!^#+ ).*\n?)*)", PAGE)
    assert match is not None, f"docs/policy.md has no heading {heading}"
    return match[1]


@pytest.mark.parametrize("struct", TABLES)
def test_every_key_stands_there_with_its_type_values_and_default(struct: str) -> None:
    written = {}
    for line in section(TABLES[struct]).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"`\w+`", cells[0]):
            written[cells[0].strip("`")] = (cells[1], cells[2])
            assert cells[3], f"{cells[0]} of {struct} is not explained"
    assert written == rows(struct)


def test_no_struct_of_the_schema_is_left_out() -> None:
    assert set(TABLES) == set(SCHEMA["$defs"])


def blocks() -> list[str]:
    return re.findall(r"(?ms)^```toml\n(.*?)^```", PAGE)


REST = '\n[[rules]]\nname = "everything else in this example"\nverdict = "allow"\n'


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.split("\n")[0][:40])
def test_every_example_of_the_page_is_a_good_policy(block: str) -> None:
    text = block if "version = " in block else f"version = {VERSION}\n{block}"
    if "version = " not in block and "everything else" not in block:
        text += REST
    found: tuple[Problem, ...] = examine(text.encode()).problems
    assert [problem.text("docs/policy.md") for problem in found] == []


def test_every_section_of_keys_that_operators_write_has_an_example() -> None:
    joined = "\n".join(blocks())
    for struct in (
        "Policy",
        "Transcripts",
        "Fence",
        "Claims",
        "Audit",
        "Lane",
        "Rule",
        "Conditions",
        "When",
        "Process",
        "Record",
    ):
        for key in rows(struct):
            assert re.search(rf"\b{key}\b", joined), f"no example shows {key} of {struct}"


def test_the_published_schema_is_that_of_the_model() -> None:
    assert json.loads((DOCS / "policy.schema.json").read_text()) == SCHEMA, (
        "run: guardfs policy schema > docs/policy.schema.json"
    )


def test_the_schema_is_a_schema_and_describes_every_key_on_one_line() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for struct, made in SCHEMA["$defs"].items():
        assert made["additionalProperties"] is False
        for key, about in made["properties"].items():
            assert about["description"] and "\n" not in about["description"], f"{struct}.{key}"
            assert '"null"' not in json.dumps(about)
