"""Who sees which view of a transcript, where a staged change goes, and when its time has come."""

from __future__ import annotations

from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.relation import NO_FENCE, Standing
from guardfs.fence.staging import Branch, Key, Staging, View
from guardfs.fence.waits import MAX_HELD, Waiter, Waits

GATEWAY, LOCAL, CRON, SYNC = (1, 10), (2, 20), (3, 30), (4, 40)
NOBODY = (0, 0)
BASE = Fingerprint(8, 42, 1000, 5, 6)
OWNER = Standing(fenced=True, own=True, owners=True)
BESIDE = Standing(fenced=True, own=True, owners=False)
OTHER = Standing(fenced=True)
LOCKED = Standing(fenced=True, cycle=True)
SILENT = Standing(own=True, silent=True)


def staged(*branches: Branch) -> Staging:
    staging = Staging(b"t.jsonl")
    staging.branches += branches
    return staging


def branch(number: int, key: Key, order: int = 0, base: Fingerprint = BASE) -> Branch:
    return Branch(number, key, "lane", base, order=order or number, wall=100)


def lane(name: str) -> Key:
    return Key("lane", NOBODY, name)


def process(key: tuple[int, int]) -> Key:
    return Key("process", key, "")


def test_the_owner_sees_the_file_and_who_has_no_branch_the_committed_state() -> None:
    staging = staged(branch(1, lane("cron")))
    assert staging.view(OWNER, GATEWAY, "gateway") is View.OWNER
    assert staging.view(OTHER, SYNC, "sync") is View.COMMITTED


def test_beside_a_silent_owner_that_relies_on_there_being_no_file_the_committed_one_is_seen() -> None:
    staging = staged(branch(1, process(GATEWAY), base=ABSENT))
    staging.branches[0].made = False
    assert staging.view(SILENT, GATEWAY, "gateway") is View.COMMITTED
    assert staging.view(OWNER, GATEWAY, "gateway") is staging.branches[0]
    staging.branches[0].made = True
    assert staging.view(SILENT, GATEWAY, "gateway") is staging.branches[0]


def test_whoever_locks_a_transcript_sees_the_file_that_has_the_name_where_a_lost_one_is_left_over() -> None:
    staging, locked = staged(), Standing(cycle=True)
    assert staging.view(locked, CRON, "cron") is View.OWNER
    staging.ghost = True
    assert staging.view(locked, CRON, "cron") is View.COMMITTED


def test_what_a_process_has_made_is_not_its_owners_who_relies_on_there_being_no_file() -> None:
    staging = staged(branch(1, process(GATEWAY), base=ABSENT))
    staging.disown(GATEWAY, BASE)
    assert staging.own(GATEWAY) is staging.branches[0]
    staging.disown(GATEWAY, ABSENT)
    assert staging.own(GATEWAY) is None
    assert staging.side(GATEWAY) is staging.branches[0]


def test_what_a_process_has_not_made_yet_stays_its_owners() -> None:
    staging = staged(branch(1, process(GATEWAY), base=ABSENT))
    staging.branches[0].made = False
    staging.disown(GATEWAY, ABSENT)
    assert staging.own(GATEWAY) is staging.branches[0]


def test_a_lane_sees_its_branch_whatever_its_processes() -> None:
    staging = staged(branch(1, lane("cron")))
    assert staging.view(OTHER, CRON, "cron") is staging.branches[0]
    assert staging.view(OTHER, SYNC, "cron:append") is staging.branches[0]


def test_whoever_comes_when_the_file_has_lost_its_name_is_not_led_to_its_lanes_branch() -> None:
    staging = staged(branch(1, lane("cron")))
    staging.branches[0].used_by(CRON)
    staging.ghost = True
    assert staging.view(OTHER, SYNC, "cron") is View.COMMITTED
    assert staging.view(OTHER, CRON, "cron") is staging.branches[0]


def test_a_process_under_the_lock_shares_no_branch_with_its_lane() -> None:
    staging = staged(branch(1, lane("gateway")))
    assert staging.view(LOCKED, GATEWAY, "gateway") is View.COMMITTED
    assert staging.target(LOCKED, GATEWAY, "gateway:run") == process(GATEWAY)


def test_the_other_lanes_of_the_owners_process_have_one_branch_that_the_owner_does_not_see() -> None:
    staging = staged()
    assert staging.target(BESIDE, GATEWAY, "gateway:mirror") == Key("side", GATEWAY, "")
    staging.branches.append(branch(1, Key("side", GATEWAY, "")))
    assert staging.target(BESIDE, GATEWAY, "gateway:header") is staging.branches[0]
    assert staging.view(BESIDE, GATEWAY, "gateway") is View.OWNER
    assert staging.view(NO_FENCE, GATEWAY, "gateway") is View.COMMITTED, "its fence has closed"


def test_a_second_owner_has_a_branch_of_its_own() -> None:
    staging = staged(branch(1, process(LOCAL)))
    assert staging.view(OWNER, LOCAL, "cli") is staging.branches[0]
    assert staging.target(OWNER, LOCAL, "cli:run") is staging.branches[0]
    assert staging.view(OWNER, GATEWAY, "gateway") is View.OWNER


def test_only_one_owner_writes_through() -> None:
    staging = staged()
    assert staging.write_through((GATEWAY, LOCAL)) == GATEWAY
    assert staging.pins((GATEWAY, LOCAL), LOCAL)
    assert not staging.pins((GATEWAY,), GATEWAY)
    staging.branches.append(branch(1, process(LOCAL)))
    assert not staging.pins((GATEWAY, LOCAL), LOCAL), "it has its branch"
    assert staging.write_through((LOCAL,)) is None


def test_branches_wait_for_who_relies_on_the_file() -> None:
    staging = staged(branch(1, lane("cron")))
    assert staging.ready((GATEWAY,), (), held=False) is None
    assert staging.ready((), (), held=True) is None, "somebody has the lock"
    assert staging.ready((), (), held=False) == staging.branches


def test_branches_are_rebased_in_order_and_those_of_an_open_fence_stay() -> None:
    staging = staged(branch(1, lane("cron"), 3), branch(2, process(LOCAL), 1), branch(3, lane("sync"), 2))
    ready = staging.ready((LOCAL,), (), held=False)
    assert ready is not None and [each.number for each in ready] == [3, 1]
    ready = staging.ready((), (), held=False)
    assert ready is not None and [each.number for each in ready] == [2, 3, 1]


def test_an_owner_that_was_silent_keeps_its_branch_until_it_comes_back() -> None:
    staging = staged(branch(1, process(GATEWAY)))
    assert staging.ready((), (GATEWAY,), held=False) == []
    assert staging.ready((), (), held=False) == staging.branches


def test_the_owner_is_shown_what_it_relies_on_until_somebody_writes() -> None:
    staging = staged()
    touched = BASE._replace(ctime_ns=99)
    staging.keep(BASE, touched)
    assert staging.held(touched) == BASE and staging.diverges
    written = touched._replace(size=1100, mtime_ns=100, ctime_ns=100)
    assert staging.held(written) == written and not staging.diverges


def test_a_branch_shows_its_own_size_and_times() -> None:
    one = branch(1, lane("cron"))
    assert (one.length, one.shown) == (1000, BASE)
    one.wrote(50, 200)
    assert (one.length, one.shown) == (1050, BASE._replace(size=1050, mtime_ns=200, ctime_ns=200))
    one.replaced(30, 300, inode=43)
    assert (one.base, one.whole, one.shown) == (0, True, Fingerprint(8, 43, 30, 300, 300))
    one.touched(7, 400)
    assert (one.shown.mtime_ns, one.shown.ctime_ns, one.written) == (7, 400, 7)


def test_a_branch_on_nothing_holds_the_whole_file() -> None:
    one = branch(1, lane("cron"), base=ABSENT)
    assert (one.exists, one.whole, one.base, one.shown.size) == (False, True, 0, 0)


def test_who_may_be_held() -> None:
    waits = Waits()
    free = Waiter(CRON, fenced=True, own=False, locks=False, share=1)
    assert waits.admits(free)
    for change in ({"fenced": False}, {"own": True}, {"locks": True}, {"share": 0}):
        assert not waits.admits(free._replace(**change)), change
    waits.entered(CRON)
    assert not waits.admits(free) and waits.admits(free._replace(process=SYNC))
    waits.left(CRON)
    assert waits.admits(free) and waits.held == 0


def test_no_more_are_held_than_the_guard_can_carry() -> None:
    waits = Waits()
    for number in range(MAX_HELD):
        waits.entered((number + 100, 1))
    assert not waits.admits(Waiter(CRON, fenced=True, own=False, locks=False, share=9))
