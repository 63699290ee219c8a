"""What the fence machine says of single stories, told call by call. All interleavings are `tests/simulator`'s."""

from __future__ import annotations

import pytest

from guardfs.fence.changes import KEPT_FIRST
from guardfs.fence.effects import (
    NONE,
    Effect,
    FenceChecked,
    FenceClosed,
    FenceOpened,
    FenceRefreshed,
    Incident,
    LockLeft,
    LockLost,
    LockReclaimed,
    Outcome,
    Stale,
)
from guardfs.fence.events import NOBODY, Actor, Event, Kind, process_exit, tick
from guardfs.fence.fingerprint import ABSENT, Fingerprint
from guardfs.fence.machine import Machine
from guardfs.fence.versions import STRICT, Rule
from guardfs.transcript.meta import RecordMeta

NAME = b"s.jsonl"
POOL = Actor(100, 1, 102, False, "gateway:run")
MAIN = Actor(100, 1, 100, True, "gateway")
LOCAL = Actor(200, 7, 203, False, "local")
SCRIPT = Actor(300, 9, 300, True, "script")
USER = RecordMeta("message", "user", "00000009", "00000001")
ASSISTANT = RecordMeta("message", "assistant", "0000000a", "00000001")
MIRROR = RecordMeta("message", "assistant", "0000000c", None, "openclaw", "gateway-injected")
MINUTE = 60 * 10**9


class Story:
    """A machine, one transcript, and a clock that moves by a millisecond an event."""

    def __init__(self, rule: Rule | None = None, absent: bool = False) -> None:
        self.machine = Machine() if rule is None else Machine(rule=rule)
        self.state = ABSENT if absent else Fingerprint(1, 50, 1000, 10, 10)
        self.mono = 0
        self.effects: list[Effect] = []

    def do(self, kind: Kind, actor: Actor, after: Fingerprint | None = None, *records: RecordMeta) -> Outcome:
        self.mono += 10**6
        before = None
        if after is not None:
            before, self.state = self.state, after
        elif kind is Kind.LOOK:
            after = self.state
        return self.send(Event(kind, NAME, actor, self.mono, 10**18 + self.mono, before, after, records))

    def send(self, event: Event) -> Outcome:
        outcome = self.machine.apply(event)
        self.effects += outcome.effects
        return outcome

    def cycle(self, actor: Actor, shape: str) -> None:
        """L: a look; R, W: an open to read, an append, each after its lookup; r, w: the same by the main thread."""
        self.do(Kind.LOCK_CREATED, actor)
        for letter in shape:
            who = actor if letter.isupper() else Actor(actor.tgid, actor.start, actor.tgid, True, actor.lane)
            self.do(Kind.LOOK, who)
            if letter in "Rr":
                self.do(Kind.OPEN_READ, who)
            elif letter in "Ww":
                self.append(who, RecordMeta("message", "user", "00000001", None))
        self.do(Kind.LOCK_REMOVED, actor)

    def append(self, actor: Actor, *records: RecordMeta) -> Outcome:
        self.do(Kind.OPEN_WRITE, actor)
        return self.do(Kind.APPEND, actor, self.grown(100), *records)

    def grown(self, by: int) -> Fingerprint:
        state = self.state
        return state._replace(size=state.size + by, mtime_ns=state.mtime_ns + 1, ctime_ns=state.ctime_ns + 1)

    def touched(self) -> Fingerprint:
        return self.state._replace(ctime_ns=self.state.ctime_ns + 1)

    def minutes(self, minutes: int) -> None:
        self.mono += minutes * MINUTE
        self.send(tick(self.mono, 10**18 + self.mono))

    def of(self, *kinds: type) -> list[Effect]:
        return [effect for effect in self.effects if isinstance(effect, kinds)]

    def reasons(self) -> list[str]:
        return [effect.reason for effect in self.effects if isinstance(effect, FenceClosed)]

    def incident(self) -> Incident:
        [incident] = [effect for effect in self.effects if isinstance(effect, Incident)]
        return incident


def opened(rule: Rule | None = None) -> Story:
    story = Story(rule)
    story.cycle(POOL, "RLrwL")
    assert len(story.of(FenceOpened)) == 1
    return story


def test_a_transcript_without_a_cycle_costs_nothing() -> None:
    story = Story()
    assert story.append(SCRIPT, USER) is NONE
    assert story.do(Kind.LOOK, POOL) is NONE
    assert story.machine.places == 0
    assert not story.machine.watches(NAME)


@pytest.mark.parametrize("shape", ["R", "LLRW", "LLR", "RRrLRwR", "W", "L", "", "LW"])
def test_a_cycle_that_is_not_an_owners_opens_nothing(shape: str) -> None:
    story = Story()
    story.cycle(POOL, shape)
    assert story.effects == []
    assert story.machine.places == 0


@pytest.mark.parametrize("shape", ["RLrwL", "RLrwLLR", "RLrL"])
def test_a_cycle_that_reads_works_and_looks_opens_a_fence(shape: str) -> None:
    story = Story()
    story.cycle(POOL, shape)
    [effect] = story.effects
    assert isinstance(effect, FenceOpened)
    assert (effect.fence.token, effect.fence.lane, effect.baseline) == (1, "gateway:run", story.state)


def test_a_fence_on_an_absent_transcript_expects_it_absent() -> None:
    story = Story(absent=True)
    story.cycle(POOL, "LLLL")
    story.do(Kind.CREATE, SCRIPT, Fingerprint(1, 60, 0, 20, 20))
    story.append(SCRIPT, USER)
    story.cycle(POOL, "L")
    incident = story.incident()
    assert incident.expected == ABSENT
    assert incident.culprit is not None and incident.culprit.kind is Kind.CREATE


@pytest.mark.parametrize("shape", ["LL", "LwL", "LRL", "LwwL", "LLLR", "LLwLR"])
def test_a_check_with_a_second_look_refreshes(shape: str) -> None:
    story = opened()
    story.cycle(POOL, shape)
    assert [type(effect).__name__ for effect in story.effects[1:]] == ["FenceChecked", "FenceRefreshed"]
    assert next(story.machine.fences(story.mono)).baseline == story.state


def test_a_check_without_a_second_look_closes() -> None:
    story = opened()
    story.cycle(POOL, "L")
    assert story.reasons() == ["closed"]
    assert story.machine.places == 0


def test_a_cycle_of_another_lane_of_the_process_leaves_the_fence_as_it_is() -> None:
    story = opened()
    baseline = next(story.machine.fences(0)).baseline
    story.cycle(POOL, "LLRW")
    assert len(story.effects) == 1
    assert next(story.machine.fences(0)).baseline == baseline


def test_a_look_by_the_main_thread_is_no_check() -> None:
    story = opened()
    story.do(Kind.LOCK_CREATED, POOL)
    for actor in (MAIN, POOL, MAIN):
        story.do(Kind.LOOK, actor)
    story.do(Kind.LOCK_REMOVED, POOL)
    assert story.reasons() == ["closed"]


def test_a_lookup_that_was_for_an_open_is_no_look_even_if_another_thread_looked_in_between() -> None:
    story = opened()
    other = POOL._replace(tid=103)
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOOK, POOL)
    story.do(Kind.LOOK, other)
    story.do(Kind.OPEN_READ, POOL)
    story.do(Kind.LOCK_REMOVED, POOL)
    assert story.reasons() == ["closed"]


def test_a_foreign_record_is_an_incident_with_its_writer_record_and_times() -> None:
    story = opened()
    story.append(SCRIPT, USER)
    story.cycle(POOL, "LR")
    incident = story.incident()
    assert story.reasons() == ["died"]
    assert incident.kind == "lane" and incident.lost
    assert incident.culprit is not None
    assert incident.culprit.actor == SCRIPT
    assert incident.culprit.records == (USER,)
    assert incident.seen.size == incident.expected.size + 100
    assert incident.after_ns > 0 and incident.before_ns > 0
    assert (incident.rule, incident.count) == ("2026.5.20", 1)


def test_an_assistants_record_is_accepted_by_whoever_has_read_it() -> None:
    story = opened()
    story.append(SCRIPT, ASSISTANT)
    story.cycle(POOL, "LRL")
    assert [effect.outcome for effect in story.effects if isinstance(effect, FenceChecked)] == ["accepted"]
    assert [type(effect).__name__ for effect in story.effects[2:]] == ["Forgotten", "FenceRefreshed"]


def test_the_strict_versions_die_of_an_assistants_record_too() -> None:
    story = opened(STRICT)
    story.append(SCRIPT, ASSISTANT)
    story.cycle(POOL, "L")
    assert story.incident().rule == STRICT.name


def test_a_mismatch_that_the_agent_survives_is_no_incident_whatever_the_rule_says() -> None:
    story = opened(STRICT)
    story.append(SCRIPT, USER)
    story.cycle(POOL, "LL")
    assert [effect.outcome for effect in story.effects if isinstance(effect, FenceChecked)] == ["survived"]
    assert story.of(Incident) == []


@pytest.mark.parametrize(
    ("kind", "actor", "culprit"),
    [
        (Kind.ATTRIBUTES, SCRIPT, "metadata"),
        (Kind.ATTRIBUTES, MAIN, "metadata"),
        (Kind.UNSEEN, NOBODY, "drift"),
        (Kind.TRUNCATE, MAIN, "own"),
        (Kind.REWRITE, LOCAL, "lane"),
    ],
)
def test_the_culprit_of_a_change_of_the_times(kind: Kind, actor: Actor, culprit: str) -> None:
    story = opened()
    story.do(kind, actor, story.touched())
    story.cycle(POOL, "L")
    assert story.incident().kind == culprit


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("grows", "kind"), [(0, "drift"), (100, "unseen")])
def test_a_change_below_the_mount_is_found_whether_somebody_told_of_it_or_not(
    told: bool, grows: int, kind: str
) -> None:
    story = opened()
    after = story.grown(grows)
    if told:
        story.do(Kind.UNSEEN, NOBODY, after)
    story.state = after
    story.cycle(POOL, "LR" if grows else "L")
    incident = story.incident()
    assert incident.kind == kind
    assert incident.culprit is not None and incident.culprit.actor is None
    assert incident.count == 1


def test_a_write_of_the_owner_outside_its_lock_is_its_own_and_kills_it() -> None:
    story = opened()
    metadata = RecordMeta("custom", None, "0000000b", "00000001")
    outcome = story.append(MAIN, metadata)
    assert (outcome.relation, outcome.continues) == ("own", True)
    story.cycle(POOL, "LR")
    assert story.incident().kind == "own"


def test_a_run_that_looks_at_its_own_message_relies_on_that() -> None:
    story = opened()
    story.append(MAIN, RecordMeta("message", "assistant", "0000000b", "00000001"))
    story.do(Kind.LOOK, MAIN)
    story.cycle(POOL, "L")
    assert story.reasons() == ["closed"]


def created(story: Story) -> Outcome:
    """A main thread makes the absent transcript, with a header."""
    outcome = story.do(Kind.CREATE, MAIN, Fingerprint(1, 60, 0, 20, 20))
    story.append(MAIN, RecordMeta("session", None, "0000000b", None))
    return outcome


def test_what_comes_before_the_owners_check_is_not_the_owners_even_under_its_lock() -> None:
    """The main thread made a header for an inject when the run had just taken its lock and not looked yet."""
    story = Story(absent=True)
    story.cycle(POOL, "LLLL")
    story.do(Kind.LOCK_CREATED, POOL)
    assert story.machine.lock(NAME, MAIN) == "other" and story.machine.lock(NAME, POOL) == "own"
    assert created(story).relation == "other"
    story.do(Kind.LOOK, POOL)
    assert story.machine.lock(NAME, MAIN) == "own"
    story.do(Kind.LOCK_REMOVED, POOL)
    incident = story.incident()
    assert incident.culprit is not None and incident.culprit.kind is Kind.CREATE
    assert (incident.kind, incident.culprit.locked) == ("own", False)


def test_what_comes_when_the_lock_is_being_released_is_not_the_owners() -> None:
    """Whoever looks at its lock file after its work is about to remove it. A header was made just then."""
    story = Story(absent=True)
    story.cycle(POOL, "LLLL")
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOOK, POOL)
    story.do(Kind.LOOK, POOL)
    assert story.machine.lock(NAME, MAIN) == "own"
    story.do(Kind.LOCK_LOOK, POOL)
    assert story.machine.lock(NAME, MAIN) == "other"
    assert created(story).relation == "other"
    story.do(Kind.LOCK_REMOVED, POOL)
    assert len(story.of(FenceRefreshed)) == 1
    story.cycle(POOL, "L")
    culprit = story.incident().culprit
    assert culprit is not None and (culprit.kind, culprit.locked) == (Kind.CREATE, False)


def truncating(story: Story, actor: Actor, kind: Kind) -> str:
    return story.machine.relate(NAME, actor, kind, (), truncates=True).relation


def test_a_run_that_keeps_its_lock_makes_and_rewrites_its_transcript_as_a_whole() -> None:
    """So does 2026.7.35; its lock file tells. Under another one it is `chat.inject`'s header, or a compaction."""
    for kept, relation in ((False, "other"), (True, "own")):
        story = Story(absent=True)
        story.cycle(POOL, "LLL")
        story.do(Kind.LOCK_CREATED, POOL)
        if kept:
            story.do(Kind.LOCK_KEPT, POOL)
        story.do(Kind.LOOK, POOL)
        story.do(Kind.LOOK, POOL)
        assert truncating(story, MAIN, Kind.CREATE) == relation
        assert truncating(story, MAIN, Kind.TRUNCATE) == relation
        assert truncating(story, SCRIPT, Kind.CREATE) == "other"


def test_what_takes_the_place_of_a_name_that_was_taken_away_is_not_the_runs() -> None:
    story = opened()
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOCK_KEPT, POOL)
    story.do(Kind.LOOK, POOL)
    assert story.machine.relate(NAME, MAIN, Kind.RENAME_AWAY).relation == "other"
    story.do(Kind.RENAME_AWAY, MAIN, ABSENT)
    assert truncating(story, MAIN, Kind.CREATE) == "other"


def test_a_turn_whose_lock_was_taken_from_it_writes_on_where_nobody_else_relies_on_the_transcript() -> None:
    for other in (False, True):
        story = Story()
        story.do(Kind.LOCK_CREATED, POOL)
        story.do(Kind.LOOK, POOL)
        story.do(Kind.OPEN_READ, POOL)
        story.do(Kind.LOOK, POOL)
        story.do(Kind.OPEN_READ, MAIN)
        story.do(Kind.LOCK_REMOVED, SCRIPT)
        assert len(story.of(LockLost)) == 1
        if other:
            story.do(Kind.LOCK_CREATED, LOCAL)
        relation = story.machine.relate(NAME, MAIN, Kind.APPEND, (USER,)).relation
        assert relation == ("other" if other else "own")


def test_a_kept_lock_says_so_only_of_the_cycle_that_it_is_of() -> None:
    story = Story(absent=True)
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOCK_KEPT, POOL)
    story.do(Kind.LOCK_REMOVED, POOL)
    story.cycle(POOL, "LLL")
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOOK, POOL)
    assert truncating(story, MAIN, Kind.CREATE) == "other"


def test_a_lock_that_is_kept_is_looked_at_by_others_of_its_process_that_wait_for_it() -> None:
    """`/new` waits for the run that it aborts, which writes its transcript whole once more."""
    story = opened()
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOCK_KEPT, POOL)
    story.do(Kind.LOOK, POOL)
    story.do(Kind.LOCK_LOOK, POOL)
    assert story.machine.lock(NAME, MAIN) == "own"
    assert truncating(story, MAIN, Kind.TRUNCATE) == "own"


def test_a_lock_file_that_is_looked_at_before_the_owner_looks_is_not_being_released() -> None:
    story = opened()
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOCK_LOOK, POOL)
    story.do(Kind.LOOK, POOL)
    assert story.append(MAIN, USER).relation == "own"


def test_a_check_is_found_in_a_cycle_that_a_mirror_has_joined() -> None:
    """The gateway's own deliveries join a lock that its process holds: two looks, a read, an append in the middle of
    the owner's cycle."""
    story = Story(absent=True)
    story.cycle(POOL, "LLLL")
    created(story)
    story.cycle(POOL, "LLLRW")
    assert story.incident().culprit is not None
    assert story.reasons() == ["died"]


@pytest.mark.parametrize("shape", ["LLLLRW", "LrwLLLRW", "LLLRWL", "LLLRLW"])
def test_an_owner_that_looks_again_goes_on_in_a_cycle_that_a_mirror_has_joined(shape: str) -> None:
    story = opened()
    story.cycle(POOL, shape)
    assert [type(effect) for effect in story.effects[1:]] == [FenceChecked, FenceRefreshed]


def test_a_fence_opens_in_a_cycle_that_a_mirror_has_joined() -> None:
    story = Story()
    story.cycle(POOL, "RLrwLLLRW")
    assert len(story.of(FenceOpened)) == 1


def test_a_mirror_that_joins_is_not_the_owner() -> None:
    story = opened()
    story.do(Kind.LOCK_CREATED, POOL)
    for _ in range(3):
        story.do(Kind.LOOK, POOL)
    assert story.append(POOL, MIRROR).relation == "other"
    assert story.append(MAIN, USER).relation == "own"


def test_changes_are_bounded_however_many_there_are() -> None:
    story = opened()
    for _ in range(1000):
        story.append(SCRIPT, USER)
    last = story.mono
    story.cycle(POOL, "LR")
    incident = story.incident()
    assert incident.count == 1000
    assert len(incident.changes) == KEPT_FIRST + 1
    assert incident.changes[-1].mono == last


def test_two_processes_each_have_a_fence_and_the_older_one_counts() -> None:
    story = opened()
    story.cycle(LOCAL, "RLrwL")
    assert [view.fence.token for view in story.machine.fences(0)] == [1, 2]
    assert story.machine.relate(NAME, LOCAL, Kind.APPEND).relation == "other"
    assert story.machine.relate(NAME, LOCAL, Kind.APPEND).own_token == 2
    story.cycle(POOL, "LR")
    assert story.incident().culprit is not None
    story.do(Kind.LOCK_CREATED, LOCAL)
    assert story.machine.relate(NAME, LOCAL, Kind.APPEND).relation == "own"


def test_relations() -> None:
    story = opened()
    machine = story.machine
    outcome = machine.relate(NAME, SCRIPT, Kind.APPEND, (USER,))
    assert (outcome.relation, outcome.token, outcome.owner, outcome.own_token) == (
        "other",
        1,
        "gateway:run",
        0,
    )
    assert machine.relate(NAME, POOL, Kind.LOOK).relation == "own"
    assert machine.relate(NAME, MAIN, Kind.RENAME_AWAY).relation == "other"
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOOK, POOL)
    assert machine.relate(NAME, MAIN, Kind.APPEND, (USER,)).relation == "own"
    story.do(Kind.LOOK, POOL)
    story.do(Kind.OPEN_READ, POOL._replace(tid=104))
    assert machine.relate(NAME, POOL, Kind.APPEND, (ASSISTANT,)).relation == "other"


def test_the_lock() -> None:
    story = Story()
    assert story.machine.lock(NAME, POOL) == "free"
    story.do(Kind.LOCK_CREATED, POOL)
    assert story.machine.lock(NAME, POOL) == "own"
    assert story.machine.lock(NAME, MAIN) == "other"
    story.do(Kind.LOOK, POOL)
    assert story.machine.lock(NAME, MAIN) == "own"
    assert story.machine.lock(NAME, SCRIPT) == "other"
    story.do(Kind.LOCK_REMOVED, POOL)
    assert story.machine.lock(NAME, POOL) == "free"


def test_the_end_of_the_owner_closes_its_fence_and_leaves_its_lock_behind() -> None:
    story = opened()
    story.do(Kind.LOCK_CREATED, POOL)
    assert story.machine.processes() == {(100, 1)}
    story.send(process_exit((100, 1), story.mono, 0))
    assert [type(effect) for effect in story.effects[1:]] == [LockLeft, FenceClosed]
    assert story.reasons() == ["exit"]
    assert story.machine.processes() == frozenset()
    story.do(Kind.LOCK_REMOVED, SCRIPT)
    assert isinstance(story.effects[-1], LockReclaimed)
    assert story.machine.places == 0


def test_a_lock_that_is_taken_away_ends_nothing_until_its_holder_looks_for_it() -> None:
    story = opened()
    story.do(Kind.LOCK_CREATED, POOL)
    story.do(Kind.LOOK, POOL)
    story.do(Kind.LOCK_REMOVED, SCRIPT)
    [lost] = story.of(LockLost)
    assert isinstance(lost, LockLost) and lost.by == SCRIPT
    story.do(Kind.LOOK, POOL)
    assert story.of(FenceChecked) == []
    story.do(Kind.LOCK_LOOK, POOL)
    assert len(story.of(FenceChecked)) == 1
    assert story.machine.open_fences == 1


def test_silence_closes_a_fence_but_not_while_its_owner_has_the_lock() -> None:
    story = opened()
    story.minutes(14)
    assert story.machine.open_fences == 1
    story.do(Kind.LOCK_CREATED, POOL)
    story.minutes(60)
    assert story.machine.open_fences == 1
    story.do(Kind.LOOK, POOL)
    story.do(Kind.LOOK, POOL)
    story.do(Kind.LOCK_REMOVED, POOL)
    story.minutes(16)
    assert story.reasons() == ["idle"]


def test_an_owner_that_comes_back_is_recognised_and_gets_a_new_token() -> None:
    story = opened()
    story.minutes(20)
    story.cycle(POOL, "LL")
    [stale] = story.of(Stale)
    assert isinstance(stale, Stale) and stale.fence.token == 1 and stale.away >= 20 * MINUTE
    assert [view.fence.token for view in story.machine.fences(0)] == [2]


def test_an_owner_that_comes_back_to_a_changed_transcript_dies_of_it() -> None:
    story = opened()
    story.minutes(20)
    story.append(SCRIPT, USER)
    story.cycle(POOL, "LR")
    assert story.incident().fence.token == 1
    assert story.reasons() == ["idle"]
    assert story.machine.places == 0


def test_tokens_go_on_after_a_restart() -> None:
    story = opened()
    again = Story()
    again.machine.restore(story.machine.tokens())
    again.cycle(POOL, "RLrL")
    assert [view.fence.token for view in again.machine.fences(0)] == [2]


def test_the_protocol_none_knows_no_fences() -> None:
    machine = Machine(protocol="none")
    event = Event(Kind.LOCK_CREATED, NAME, POOL, 1, 1)
    assert machine.apply(event) is NONE
    assert machine.places == 0
