"""Secrets in arguments are masked, what is no secret stays readable, identities become keyed hashes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfs.audit.redact import MASK, MAX_ARG, MAX_ARGS, Identities, mask, mask_args

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SECRETS = {
    "sk": "sk-proj-a1B2c3D4e5F6g7H8",
    "github": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "slack": "xoxb-123456789012-abcdefGHIJ",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "jwt": JWT,
    "base64": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzKEY1a2b3c+x=",
    "hex": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_a_known_or_random_shape_is_masked_wherever_it_stands(secret: str) -> None:
    assert mask(secret) == MASK
    assert secret not in mask(f"curl -d {secret} https://example.org")


@pytest.mark.parametrize(
    ("args", "secret"),
    [
        (["x", "--token", "hunter2"], "hunter2"),
        (["x", "--api-key=hunter2"], "hunter2"),
        (["x", "--gateway-password", "hunter2"], "hunter2"),
        (["env", "FOO_SECRET=hunter2", "x"], "hunter2"),
        (["sh", "-c", "export DB_PASSWORD='hun ter2'; x --auth-token hunter2"], "ter2"),
        (["curl", "-H", "Authorization: Bearer hunter2"], "hunter2"),
        (["curl", "-H", "X-Api-Key: hunter2"], "hunter2"),
        (["git", "clone", "https://me:hunter2@example.org/x"], "hunter2"),
        (["x", '{"apiKey":"hunter2","port":1}'], "hunter2"),
    ],
)
def test_what_stands_behind_a_telling_name_is_masked(args: list[str], secret: str) -> None:
    shown = mask_args(args)
    assert secret not in " ".join(shown)
    assert MASK in " ".join(shown)


@pytest.mark.parametrize(
    "arg",
    [
        "/home/me/.openclaw/agents/main/sessions/fb87a1b2-0000-4000-8000-00000000000a.jsonl",
        "--max-old-space-size=4096",
        "--token-file=/run/secrets/gateway",
        "EmbeddedAttemptSessionTakeoverError",
        "/usr/lib/node_modules/openclaw/dist/index.js",
        "agent:main:feishu:direct:ou_7d8a6e6df7621556ce0d21922b676706",
        "--author=Jane",
    ],
)
def test_what_operators_need_stays(arg: str) -> None:
    assert mask(arg) == arg


def test_arguments_are_bounded() -> None:
    shown = mask_args(["word " * 1000] * 500)
    assert len(shown) == MAX_ARGS + 1
    assert max(map(len, shown)) <= MAX_ARG


@given(st.lists(st.text()))
def test_any_arguments_are_taken(args: list[str]) -> None:
    mask_args(args, Identities(b"k"))


def test_identities_are_equal_for_equal_ones_and_differ_by_key() -> None:
    one, other = Identities(b"one"), Identities(b"other")
    key = "agent:main:feishu:direct:ou_1"
    assert one.hash(key) == one.hash(key) != other.hash(key)
    assert one.hash(key).startswith("h:") and len(one.hash(key)) == 18
    assert one.number(1000) != one.number(1000, "gid")
    shown = mask(f"--session={key} --to x", one)
    assert "ou_1" not in shown and one.hash(key) in shown
    assert one.sessions_in(f"session:{key}") == f"session:{one.hash(key)}"
    assert "1000" not in one.cgroup("/user.slice/user-1000.slice/user@1000.service/app.slice")
