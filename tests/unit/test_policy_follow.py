"""A policy file, followed: whatever happens to it, the whole change is taken, or refused with its reasons."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from guardfs.policy.follow import LOADER, Change, Follower, Refusal, one_line, understood
from guardfs.policy.model import Policy
from guardfs.policy.problem import PolicyError, Problem
from tests.support.waiting import wait_for


def policy(description: str) -> str:
    return f"""\
version = 1
description = "{description}"

[[rules]]
name = "everything passes"
verdict = "allow"
"""


BROKEN = policy("broken") + 'verdikt = "deny"\n'


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Watched:
    """What a follower has said, in order: ("loaded", description), ("refused", reasons), ("unchanged", asked)."""

    def __init__(self, path: Path, text: str, **options: Any) -> None:
        self.said: list[tuple[str, object]] = []
        self.digests: list[str | None] = []
        self.fails: Exception | None = None
        self.follower = Follower(
            str(path), digest(text), self._loaded, self._refused, self._unchanged, poll=0.02, **options
        )

    def _loaded(self, found: Policy, digest: str, warnings: Sequence[Problem]) -> None:
        if self.fails is not None:
            raise self.fails
        self.digests.append(digest)
        self.said.append(("loaded", found.description))

    def _refused(self, problems: Sequence[Problem], digest: str | None) -> None:
        self.digests.append(digest)
        self.said.append(("refused", "; ".join(problem.what for problem in problems)))

    def _unchanged(self, asked: bool) -> None:
        self.said.append(("unchanged", asked))

    def next(self) -> tuple[str, Any]:
        """The next thing said."""
        wait_for(lambda: self.said, "word from the follower")
        return self.said.pop(0)

    def ask(self) -> tuple[str, Any]:
        """What is said after `now`."""
        self.follower.now()
        return self.next()

    def stat(self, key: str) -> Any:
        return self.follower.stats()[key]


Follow = Callable[..., Watched]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(policy("first"))
    path.chmod(0o644)
    return path


@pytest.fixture
def follow(file: Path) -> Iterator[Follow]:
    started: list[Watched] = []

    def start(path: Path = file, text: str = policy("first"), **options: Any) -> Watched:
        watched = Watched(path, text, **options)
        started.append(watched)
        watched.follower.start()
        return watched

    yield start
    for watched in started:
        watched.follower.close()


def replace(path: Path, text: str) -> None:
    """As an editor does."""
    new = path.with_name(path.name + "~")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(path)


def test_the_policy_in_force_is_no_news(follow: Follow) -> None:
    watched = follow()
    assert watched.ask() == ("unchanged", True)
    stats = watched.follower.stats()
    assert (stats["reloads"], stats["refused"], stats["error"], stats["loaded_ns"]) == (0, 0, "", 0)
    assert stats["digest"] == digest(policy("first"))
    assert watched.stat("checked_ns") > 0


def test_a_change_between_its_first_reading_and_the_follower_is_seen(file: Path, follow: Follow) -> None:
    watched = follow(text=policy("older"))
    assert watched.next() == ("loaded", "first")


def test_a_file_edited_in_place_is_loaded(file: Path, follow: Follow) -> None:
    watched = follow()
    file.write_text(policy("second"))
    assert watched.next() == ("loaded", "second")
    assert watched.digests == [digest(policy("second"))]
    wait_for(lambda: watched.stat("reloads") == 1, "the reload to be counted")
    assert watched.stat("digest") == digest(policy("second"))
    assert watched.stat("loaded_ns") > 0


def test_a_file_replaced_by_rename_is_loaded(file: Path, follow: Follow) -> None:
    watched = follow()
    for text in ("second", "third"):
        replace(file, policy(text))
        assert watched.next() == ("loaded", text)


def test_a_swapped_symlink_is_followed(tmp_path: Path, file: Path, follow: Follow) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    watched = follow(link)
    assert watched.ask() == ("unchanged", True)
    replace(tmp_path / "second.toml", policy("second"))
    swap = tmp_path / "swap"
    swap.symlink_to("second.toml")
    swap.rename(link)
    assert watched.next() == ("loaded", "second")


def test_a_swapped_directory_above_is_followed(tmp_path: Path, follow: Follow) -> None:
    """Kubernetes: policy.toml -> ..data/policy.toml, ..data -> ..2026_05_23, and ..data is swapped."""
    for version, text in (("..1", "first"), ("..2", "second")):
        (tmp_path / "map" / version).mkdir(parents=True)
        replace(tmp_path / "map" / version / "policy.toml", policy(text))
    (tmp_path / "map" / "..data").symlink_to("..1")
    (tmp_path / "map" / "policy.toml").symlink_to("..data/policy.toml")
    watched = follow(tmp_path / "map" / "policy.toml")
    assert watched.ask() == ("unchanged", True)
    (tmp_path / "map" / "..data_tmp").symlink_to("..2")
    (tmp_path / "map" / "..data_tmp").rename(tmp_path / "map" / "..data")
    shutil.rmtree(tmp_path / "map" / "..1")
    assert watched.next() == ("loaded", "second")


def test_a_bad_change_is_refused_with_its_place_and_reported_once(file: Path, follow: Follow) -> None:
    watched = follow()
    replace(file, BROKEN)
    kind, reasons = watched.next()
    assert kind == "refused"
    assert "verdikt" in reasons
    assert watched.digests == [digest(BROKEN)]
    assert "policy.toml:7:1: " in watched.stat("error")
    assert (watched.stat("digest"), watched.stat("reloads")) == (digest(policy("first")), 0)
    replace(file, BROKEN)  # another file, the same content
    checked = watched.stat("checked_ns")
    wait_for(lambda: watched.stat("checked_ns") > checked + 10**9, "a second of looks")
    assert (watched.said, watched.stat("refused")) == ([], 1)
    assert watched.ask() == ("refused", reasons)  # who asks is told again


def test_going_back_to_what_is_in_force_clears_the_error(file: Path, follow: Follow) -> None:
    watched = follow()
    replace(file, BROKEN)
    assert watched.next()[0] == "refused"
    replace(file, policy("first"))
    assert watched.next() == ("unchanged", False)
    assert (watched.stat("error"), watched.stat("reloads")) == ("", 0)


def test_a_good_change_after_a_bad_one_is_loaded(file: Path, follow: Follow) -> None:
    watched = follow()
    replace(file, BROKEN)
    assert watched.next()[0] == "refused"
    replace(file, policy("second"))
    assert watched.next() == ("loaded", "second")
    wait_for(lambda: watched.stat("reloads") == 1, "the reload to be counted")
    assert (watched.stat("error"), watched.stat("refused")) == ("", 1)


def test_a_removed_file_is_refused_and_comes_back(file: Path, follow: Follow) -> None:
    watched = follow()
    assert watched.ask() == ("unchanged", True)
    file.unlink()
    assert watched.next() == ("refused", "is gone; the policy in force stays")
    assert watched.digests == [None]
    replace(file, policy("second"))
    assert watched.next() == ("loaded", "second")


def test_a_file_that_becomes_writable_by_others_is_refused(file: Path, follow: Follow) -> None:
    watched = follow()
    assert watched.ask() == ("unchanged", True)
    file.chmod(0o666)
    kind, reasons = watched.next()
    assert kind == "refused"
    assert "written by" in reasons
    file.chmod(0o644)
    assert watched.next() == ("unchanged", False)


def test_a_directory_in_the_place_of_the_file_is_refused(file: Path, follow: Follow) -> None:
    watched = follow()
    file.unlink()
    file.mkdir()
    assert watched.next() == ("refused", "is a directory")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no room"), "cannot be put into force: RuntimeError: no room"),
        (PolicyError("p.toml", [Problem(2, 1, "mode", "not for this guard")]), "not for this guard"),
    ],
)
def test_a_change_that_cannot_be_put_into_force_is_refused(
    file: Path, follow: Follow, error: Exception, reason: str
) -> None:
    watched = follow()
    watched.fails = error
    replace(file, policy("second"))
    assert watched.next() == ("refused", reason)
    assert watched.digests == [digest(policy("second"))]
    assert watched.stat("digest") == digest(policy("first"))
    assert watched.ask() == ("refused", reason)  # it is not in force, whoever asks
    watched.fails = None
    assert watched.ask() == ("loaded", "second")


def test_a_file_that_is_being_written_is_waited_for(
    file: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardfs.policy.follow.SETTLED", 0.5)
    monkeypatch.setattr("guardfs.policy.follow.PATIENCE", 60.0)
    watched = follow()
    assert watched.ask() == ("unchanged", True)
    text = policy("second")
    with open(file, "w") as out:
        for at in range(0, len(text), 10):
            checked = watched.stat("checked_ns")
            out.write(text[at : at + 10])
            out.flush()
            if at < 30:  # it is looked at half-written
                wait_for(lambda since=checked: watched.stat("checked_ns") > since, "a look")  # type: ignore[misc]
    assert watched.next() == ("loaded", "second")
    assert watched.said == []


def test_a_file_that_never_settles_is_loaded_all_the_same(
    file: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardfs.policy.follow.SETTLED", 60.0)
    monkeypatch.setattr("guardfs.policy.follow.PATIENCE", 0.2)
    monkeypatch.setattr("guardfs.policy.follow.STEP", 0.01)
    watched = follow()
    replace(file, policy("second"))
    assert watched.next() == ("loaded", "second")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "the process that loads policies was ended by SIGSEGV"),
        ("echo no memory >&2; exit 3", "the process that loads policies failed with status 3: no memory"),
        ("echo nonsense", "the process that loads policies failed with status 0: no word"),
        ("exec sleep 600", "loading it took more than 0.2 s"),
    ],
)
def test_a_loader_that_fails_is_a_refusal(follow: Follow, script: str, reason: str) -> None:
    watched = follow(loader=("/bin/sh", "-c", script), timeout=0.2 if "sleep" in script else 10.0)
    assert watched.next() == ("refused", reason)
    assert watched.digests == [None]


def test_a_loader_that_cannot_be_started_is_a_refusal(tmp_path: Path, follow: Follow) -> None:
    watched = follow(loader=(str(tmp_path / "nothing"),))
    assert watched.next()[1].startswith("the process that loads policies cannot be started: No such file")


def test_a_good_file_is_tried_again_after_its_loader_failed(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardfs.policy.follow.RETRY", 0.01)
    mark = tmp_path / "mark"
    script = f'test -e {mark} && exec "$@"; kill -KILL $$'
    watched = follow(loader=("/bin/sh", "-c", script, "sh", *LOADER), text=policy("older"))
    assert watched.next()[0] == "refused"
    mark.touch()
    assert watched.next() == ("loaded", "first")


def test_close_ends_a_loader_that_hangs(tmp_path: Path, follow: Follow) -> None:
    pid = tmp_path / "pid"
    watched = follow(loader=("/bin/sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"))
    wait_for(pid.exists, "the loader to run")
    watched.follower.close()
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert watched.said == []


# ---- the loader, and what its end means


def load(path: str, **options: Any) -> Change | Refusal:
    ended = subprocess.run([*LOADER, path], capture_output=True, cwd="/", timeout=60, **options)
    return understood(ended.returncode, ended.stdout, ended.stderr)


def test_the_loader_hands_over_the_whole_policy(tmp_path: Path) -> None:
    text = (
        policy("whole")
        + '\n[[lanes]]\nname = "cron"\nprocess = { exe = ["*/cron", "*/anacron"], user = [0, "root"] }\n'
    )
    path = tmp_path / os.fsdecode(b"p\xff.toml")  # not UTF-8
    path.write_text(text)
    path.chmod(0o644)
    found = load(str(path))
    assert isinstance(found, Change)
    assert found.digest == digest(text)
    assert found.policy.lanes[0].process is not None
    assert found.policy.lanes[0].process.user == [0, "root"]
    path.chmod(0o666)
    refused = load(str(path))
    assert isinstance(refused, Refusal)
    assert (refused.digest, refused.again) == (digest(text), False)


def test_the_loader_is_bound(tmp_path: Path) -> None:
    script = "import resource; from guardfs.policy import loader; loader.bound(); bytearray(2 << 30)"
    ended = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60)
    assert "MemoryError" in ended.stderr
    limits = "print(resource.getrlimit(resource.RLIMIT_CPU)[0])"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script.replace("bytearray(2 << 30)", limits)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    soft = resource.getrlimit(resource.RLIMIT_CPU)[0]
    assert int(ended.stdout) == (10 if soft == resource.RLIM_INFINITY else min(soft, 10))


def test_one_line_names_the_first_error_and_counts_the_others() -> None:
    problems = [
        Problem(1, 1, "a", "odd", severity="warning"),
        Problem(2, 3, "b", "bad", "mend it"),
        Problem(4, 1, "c", "bad, too"),
    ]
    assert one_line(problems, "p.toml") == "p.toml:2:3: b: bad; mend it (and 1 more)"
    assert one_line(problems[:1], "p.toml") == ""
