"""From a file, or a shipped policy's name, to a policy that can be trusted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from guardfs.policy.load import known, load, shipped
from guardfs.policy.problem import PolicyError, Problem
from tests.unit.policy_tools import GOOD


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    file.chmod(0o644)
    return file


def refused(name: str, trust: bool = True) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        load(name, trust=trust)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_good_file_is_a_policy_with_its_digest_and_places(file: Path) -> None:
    loaded = load(str(file))
    assert [lane.name for lane in loaded.policy.lanes] == ["gateway", "mirror"]
    assert (loaded.path, loaded.source, loaded.shipped, loaded.warnings) == (str(file), str(file), False, ())
    assert loaded.digest == hashlib.sha256(GOOD.encode()).hexdigest()
    assert loaded.places.key(("rules", 1, "verdict")) == (15, 1)


@pytest.mark.parametrize(
    ("mode", "who"), [(0o664, "group "), (0o646, "everybody"), (0o666, " and everybody")]
)
def test_a_file_that_others_can_write_is_refused(file: Path, mode: int, who: str) -> None:
    file.chmod(mode)
    error = refused(str(file))
    assert error.kind == "untrusted"
    assert who in str(error) and f"(mode {mode:04o}); chmod go-w {file}" in str(error)
    assert [problem.severity for problem in load(str(file), trust=False).warnings] == ["warning"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away, which only root can")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 12345, -1)
    error = refused(str(file))
    assert error.kind == "untrusted"
    assert (
        "belongs to user 12345, who could change what the guard does; only root may own it: chown root"
        in str(error)
    )


def test_a_file_that_is_not_there_is_said_with_the_one_that_may_be_meant(file: Path) -> None:
    error = refused(f"{file.parent}/mina.toml")
    assert error.kind == "unreadable" and error.digest is None
    assert str(error) == f"{file.parent}/mina.toml: no such file or directory; did you mean 'mine.toml'?"


def test_a_pipe_or_a_directory_is_no_policy(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert "is no regular file" in str(refused(f"{tmp_path}/pipe.toml"))
    assert "is a directory" in str(refused(f"{tmp_path}/"))


def test_nothing_is_expanded(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("POLICIES", str(file.parent))
    assert refused("$POLICIES/mine.toml").kind == "unreadable"
    assert refused("~/mine.toml").kind == "unreadable"


@pytest.mark.parametrize("name", ["a\0b.toml", "/\udcff.toml", "", "x" * 5000 + ".toml"])
def test_a_name_that_no_file_can_have_is_an_error_like_others(name: str) -> None:
    assert refused(name).kind == "unreadable"


def test_a_shipped_policy_is_taken_by_its_name() -> None:
    names = [name for name, _ in shipped()]
    assert "openclaw" in names and "record" in names and names == sorted(names)
    for name, about in shipped():
        loaded = load(name)
        assert loaded.shipped and loaded.source == name and about == loaded.policy.description != ""


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list() -> None:
    error = refused("openclw")
    assert str(error).startswith("openclw: no policy of this name is shipped (claude-code, ")
    assert str(error).endswith("; did you mean 'openclaw'?")


def test_all_problems_are_carried_and_the_message_is_the_first(file: Path) -> None:
    file.write_text(GOOD.replace('verdict = "stage"', 'verdict = "x"').replace("within", "whithin"))
    error = refused(str(file))
    assert len(error.problems) == 2
    assert str(error).startswith(f"{file}:7:1: lanes[1].whithin: there is no key")
    assert str(error).endswith(f"and 1 more; `guardfs policy check {file}` shows all")


def test_users_and_groups_are_those_of_this_machine() -> None:
    assert known("user", "root") and known("group", "root")
    assert not known("user", "no such user") and not known("group", "a\0b")


def test_what_a_file_holds_cannot_act_on_a_terminal() -> None:
    text = Problem(1, 1, "a", "\x1b[31mred\nline\u202e", "").text("x\x1b")
    assert text == "x\\x1b:1:1: a: \\x1b[31mred\\nline\\u202e"
