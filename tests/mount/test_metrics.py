"""Metrics of a real guard, read from the real server: they say what the log says."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartGuard, watched
from tests.support.agent import NAME, Agent, elsewhere, record
from tests.support.guard import Guard
from tests.support.scraped import Scraped
from tests.support.serving import ANYWHERE, Server
from tests.support.waiting import wait_for

pytestmark = pytest.mark.mount

POLICY = Path(__file__).parents[2] / "policy/openclaw.toml"
APPEND = "open(sys.argv[1], 'ab', buffering=0).write(sys.stdin.buffer.read())"


@pytest.fixture(scope="module")
def guard(module_place: Path) -> Iterator[Guard]:
    """Enforcing, telling its log everything; this process is its gateway."""
    text = POLICY.read_text().replace('linger = "5s"', 'linger = "0s"')
    text = text.replace('exe = ["*/node*", "*/bun*"], args = [', 'exe = "*/python*", args = ["*pytest*",')
    assert "pytest" in text
    policy = module_place / "policy.toml"
    policy.write_text(text)
    directory = module_place / "sessions"
    directory.mkdir()
    options = ("--policy", str(policy), "--mode", "enforce", "--audit-level", "all")
    guard = Guard(directory, module_place / "beside", *options)
    with watched([guard]):
        try:
            yield guard.start()
            guard.stop()
        finally:
            guard.destroy()


@pytest.fixture(scope="module")
def server(guard: Guard, module_place: Path) -> Iterator[Server]:
    server = Server(module_place / "serve.out", guard.directory, "--metrics", ANYWHERE)
    yield server
    server.destroy()


def scrape(server: Server) -> Scraped:
    answer = httpx.get(f"{server.url('metrics')}/metrics", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scraped(answer.text)


def scrape_once(server: Server, ready: Callable[[Scraped], object], what: str) -> Scraped:
    """The first scrape that *ready* is true of."""

    def look() -> Scraped | None:
        found = scrape(server)
        return found if ready(found) else None

    found = wait_for(look, what)
    assert found is not None
    return found


def ready(server: Server) -> tuple[int, list[str]]:
    answer = httpx.get(f"{server.url('metrics')}/readyz", timeout=30)
    (guard,) = answer.json()["guards"]
    assert answer.json()["ready"] is guard["ready"] is (answer.status_code == 200)
    return answer.status_code, guard["reasons"]


def test_a_turn_with_a_foreign_writer_is_counted_as_it_is_logged(guard: Guard, server: Server) -> None:
    path = guard.directory / NAME
    path.write_bytes(b'{"type":"session","id":"s"}\n')
    agent = Agent(guard.directory)
    agent.begin()
    elsewhere(APPEND, path, data=record("foreign1", "00000001"))
    during = scrape_once(server, lambda found: found.one("guardfs_branches_open"), "the branch")
    assert during.one("guardfs_fences_open") == 1
    assert during.one("guardfs_staged_bytes") == len(record("foreign1", "00000001"))
    assert 0 < during.one("guardfs_oldest_branch_age_seconds") < 3600
    agent.delta()
    agent.end()
    wait_for(lambda: not guard.status()["branches"]["open"], "the rebase")
    events = guard.settle()
    logged: Counter[tuple[str, str, str]] = Counter()
    lanes = {"gateway"}
    for event in events:
        if "verdict" in event:
            lane = event["lane"] if event["lane"].split(":")[0] in lanes else "other"
            logged[event["op"], lane, event["verdict"]] += event.get("count", 1)
    after = scrape_once(server, lambda found: found.one("guardfs_merges_total"), "the merge to be counted")
    assert {
        (labels["operation"], labels["lane"], labels["verdict"]): value
        for labels, value in after.all("guardfs_operations_total")
    } == logged
    assert after.one("guardfs_operations_total", operation="write", lane="other", verdict="stage") == 1
    assert after.total("guardfs_operations_total", lane="gateway:run", operation="write") >= 1
    assert after.one("guardfs_incidents_total", outcome="saved") == 1
    assert after.one("guardfs_incidents_total", outcome="lost") == 0
    assert (after.one("guardfs_branches_open"), after.one("guardfs_oldest_branch_age_seconds")) == (0, 0)
    assert after.one("guardfs_merges_total") == 1
    assert after.one("guardfs_up", sessions=str(guard.directory)) == 1
    assert after.one("guardfs_mode", mode="enforce") == 1
    status = guard.status()
    for request in ("lookup", "create", "write", "unlink"):
        count = after.one("guardfs_request_duration_seconds_count", request=request)
        assert count == status["operations"][request]
    assert after.total("guardfs_rule_hits_total") == sum(status["policy"]["hits"].values())


def test_counters_go_on_when_the_server_begins_anew(guard: Guard, server: Server, tmp_path: Path) -> None:
    for number in range(20):
        (guard.directory / f"{number}.jsonl").write_bytes(b"{}\n")
    before = scrape_once(
        server, lambda found: found.total("guardfs_operations_total", operation="create") >= 20, "the files"
    )
    again = Server(tmp_path / "again.out", guard.directory, "--metrics", ANYWHERE)
    try:
        after = scrape(again)
    finally:
        again.destroy()
    for (name, labels), value in before.samples.items():
        if name.endswith("_total"):
            assert after.samples[name, labels] >= value, (name, labels)


def test_a_daemon_that_hangs_holds_up_no_answer(guard: Guard, tmp_path: Path) -> None:
    server = Server(tmp_path / "serve.out", guard.directory, "--metrics", ANYWHERE)
    assert ready(server) == (200, [])
    os.kill(guard.daemon, signal.SIGSTOP)
    try:
        wait_for(lambda: scrape(server).one("guardfs_up") == 0, "the hang to be seen")
        assert scrape(server).names == {"guardfs_up"}
        code, reasons = ready(server)
        assert code == 503 and "does not answer" in reasons[0]
        assert httpx.get(f"{server.url('metrics')}/healthz").json() == {"alive": True}
        assert server.stop() == 0, "a thread that waits for the daemon keeps nothing"
    finally:
        os.kill(guard.daemon, signal.SIGCONT)
        server.destroy()


def test_a_policy_names_lanes_is_told_when_refused_and_ends_with_its_guard(
    start_guard: StartGuard, place: Path, tmp_path: Path
) -> None:
    policy = place / "own.toml"
    text = (POLICY.parent / "record.toml").read_text()
    policy.write_text(text)
    guard = start_guard("--policy", str(policy), "--audit-level", "all")
    server = Server(tmp_path / "out", guard.directory, "--metrics", ANYWHERE)
    try:
        (guard.directory / "a.jsonl").write_bytes(b"{}\n")
        assert {labels["lane"] for labels, _ in scrape(server).all("guardfs_operations_total")} == {"other"}
        policy.write_text(text + '\n[[lanes]]\nname = "mine"\nprocess = { exe = "*/python*" }\n')
        wait_for(lambda: guard.status()["policy"]["reloads"] == 1, "the policy to be followed")
        (guard.directory / "b.jsonl").write_bytes(b"{}\n")
        found = scrape_once(
            server,
            lambda found: found.total("guardfs_operations_total", lane="mine", operation="create"),
            "the new lane",
        )
        assert found.one("guardfs_policy_reloads_total") == 1
        assert found.one("guardfs_policy_stale") == 0
        guard.expected.append(r"own\.toml")
        policy.write_text("[[")
        wait_for(lambda: scrape(server).one("guardfs_policy_stale"), "the refusal")
        assert scrape(server).one("guardfs_policy_refused_total") == 1
        assert ready(server) == (200, []), "the old policy is in force, and does"
        assert guard.unmount() == 0
        wait_for(lambda: ready(server) == (503, ["not guarded"]), "the end to be seen")
        assert scrape(server).one("guardfs_up") == 0
    finally:
        server.destroy()


def test_nobody_writes_the_guards_own_attributes(guard: Guard) -> None:
    for name in ("user.guardfs.status", "user.guardfs.counters"):
        with pytest.raises(PermissionError):
            os.setxattr(guard.directory, name, b"{}")
        with pytest.raises(PermissionError):
            os.removexattr(guard.directory, name)
        assert name not in os.listxattr(guard.directory)
