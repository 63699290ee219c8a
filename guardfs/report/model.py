"""From the pictures to the model that `guardfs/drawing` draws, as JSON-able data. Pure.

    sessions  see below
    facts     [op, path, writer, rule, verdict, would, fence, errno, to, quiet] of marks; shared by all sessions
    writers   [comm, exe, tgid, tid, main, known]
    strings   texts; what is text in the two above is an index in these

Of a session:

    name, log  the registry's key, or the transcript's id; the number of the log it stands in
    files      names of its transcripts
    lanes      [{"name", "role"}]; role: "owner" (has had a fence), "own" (the same program), "other", "unseen"
    begin      us since the epoch; all further times are us since then
    events     in the log; lost, saved: incidents, those included that are not drawn
    marks      flat list, six numbers a mark: time, lane, index in `facts`, bytes (-1: none), record + 1 (or 0), count
    until      {mark: time} of marks that stand for several events
    records    [[type, role, id, parent, note]]
    fences     [{"lane", "token", "open", "close", "reason", "tgid", "late"}]; close: null while open
    incidents  [{"number", "time", "lane", "lost", "label", "culprit": {"time", "lane", "op", "mark"} or null}]
    notes      [[time, text]]: further things that the guard noticed
"""

from __future__ import annotations

import bisect
from typing import Any

from guardfs.report.marks import Facts, Mark, Writer
from guardfs.report.pictures import OTHERS, UNSEEN, Blame, Fence, Picture, Pictures

MAX_DRAWN = 60
"""Sessions on one page: those with incidents first, then the last ones."""

_NEAR = 2_000
"""us between a change as the incident tells it and the operation in the log."""


def model(pictures: Pictures) -> dict[str, Any]:
    """All pictures. left: sessions that are not drawn; beyond: fences, incidents and notes that are not; dropped: marks
    that are not; gap, changes_gap: us within which looks, and changes, were joined (0: none were)."""
    groups = _by_session(pictures)
    groups.sort(key=lambda group: (-_incidents_of(group), -max(each.last for each in group)))
    shared = _Shared()
    sessions = [_session(group, shared) for group in groups[:MAX_DRAWN]]
    return {
        **shared.tables(),
        "sessions": sessions,
        "left": len(groups) - len(sessions) + pictures.given_up,
        "beyond": pictures.beyond,
        "dropped": pictures.bound.dropped,
        "gap": pictures.bound.gap,
        "changes_gap": pictures.bound.gap_of_changes,
    }


def newer(group: list[Picture], since: int) -> dict[str, Any]:
    """One session, as a model of its own: of marks, fences, incidents and notes those with a stamp above *since*."""
    shared = _Shared()
    session = _session(group, shared, since)
    return {**shared.tables(), "session": session}


class _Shared:
    """The tables that all sessions share: what is drawn, each value once."""

    def __init__(self) -> None:
        self._facts: dict[Facts, int] = {}
        self._writers: dict[Writer, int] = {}
        self._strings: dict[str, int] = {"": 0}

    def facts(self, facts: Facts) -> int:
        return self._facts.setdefault(facts, len(self._facts))

    def tables(self) -> dict[str, Any]:
        of, facts = self._string, []
        for each in self._facts:
            who = self._writers.setdefault(each.writer, len(self._writers))
            named = [of(text) for text in (each.rule, each.verdict, each.would, each.fence)]
            facts.append(
                [of(each.op), of(each.path), who, *named, each.errno, of(each.to), int(each.quiet)],
            )
        writers = [
            [of(comm), of(exe), tgid, tid, main, of(known)]
            for comm, exe, tgid, tid, main, known in self._writers
        ]
        return {"facts": facts, "writers": writers, "strings": list(self._strings)}

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))


def _by_session(pictures: Pictures) -> list[list[Picture]]:
    groups: dict[tuple[int, str], list[Picture]] = {}
    for picture in pictures.pictures.values():
        groups.setdefault((picture.log, picture.session or picture.path), []).append(picture)
    return list(groups.values())


def _incidents_of(group: list[Picture]) -> int:
    return sum(each.lost + each.saved for each in group)


def _session(group: list[Picture], shared: _Shared, since: int = -1) -> dict[str, Any]:
    lanes = _lanes(group)
    index = {lane["name"]: number for number, lane in enumerate(lanes)}
    begin = _begin(group)
    marks: list[tuple[Mark, int]] = []
    for picture in group:
        names = list(picture.lanes)
        marks += [(mark, index[names[mark.lane]]) for mark in picture.marks if mark.stamp > since]
    marks.sort(key=lambda each: each[0].time)
    flat: list[int] = []
    until: dict[int, int] = {}
    records: list[list[str]] = []
    for number, (mark, lane) in enumerate(marks):
        if mark.count > 1 and mark.until > mark.time:
            until[number] = mark.until - begin
        if mark.record is not None:
            records.append(list(mark.record))
        where = 0 if mark.record is None else len(records)
        flat += (mark.time - begin, lane, shared.facts(mark.facts), mark.size, where, mark.count)
    fences = [
        _fence(each, index, begin)
        for picture in group
        for each in picture.fences.values()
        if each.stamp > since
    ]
    blames = [each for picture in group for each in picture.blames if each.stamp > since]
    blames.sort(key=lambda each: each.time)
    times = [mark.time for mark, _ in marks]
    return {
        "name": group[0].session or group[0].path,
        "log": group[0].log,
        "files": [each.path for each in group],
        "lanes": lanes,
        "begin": begin,
        "events": sum(each.events for each in group),
        "lost": sum(each.lost for each in group),
        "saved": sum(each.saved for each in group),
        "marks": flat,
        "until": until,
        "records": records,
        "fences": sorted(fences, key=lambda fence: fence["open"]),
        "incidents": [_incident(each, index, begin, times, marks) for each in blames],
        "notes": sorted(
            [note.time - begin, note.said]
            for picture in group
            for note in picture.notes
            if note.stamp > since
        ),
    }


def _begin(group: list[Picture]) -> int:
    times = [mark.time for picture in group for mark in picture.marks]
    times += [fence.opened for picture in group for fence in picture.fences.values()]
    for picture in group:
        for blame in picture.blames:
            times += [blame.time] if blame.culprit is None else [blame.time, blame.culprit[0]]
    times += [note.time for picture in group for note in picture.notes]
    return min(times, default=max(picture.last for picture in group))


def _lanes(group: list[Picture]) -> list[dict[str, str]]:
    """The owners' first, then those of the same program, then the others, the unseen writer last; of each kind those
    first that change something."""
    changing = set()
    for picture in group:
        names = list(picture.lanes)
        changing |= {names[index] for index in {mark.lane for mark in picture.marks if not mark.facts.quiet}}
    owners = {name for picture in group for name in picture.owners}
    programs = {name.partition(":")[0] for name in owners}
    order = ("owner", "own", "other", "unseen")
    found: dict[str, str] = {}
    for picture in group:
        for name in picture.lanes:
            own = "own" if name.partition(":")[0] in programs else "other"
            found[name] = "unseen" if name == UNSEEN else "owner" if name in owners else own
    ranked = sorted(found.items(), key=lambda each: (order.index(each[1]), each[0] not in changing))
    return [{"name": name, "role": role} for name, role in ranked]


def _fence(fence: Fence, lanes: dict[str, int], begin: int) -> dict[str, Any]:
    return {
        "lane": _lane(lanes, fence.owner),
        "token": fence.token,
        "open": fence.opened - begin,
        "close": None if fence.closed is None else fence.closed - begin,
        "reason": fence.reason,
        "tgid": fence.tgid,
        "late": fence.late,
    }


def _incident(
    blame: Blame, lanes: dict[str, int], begin: int, times: list[int], marks: list[tuple[Mark, int]]
) -> dict[str, Any]:
    culprit = None
    if blame.culprit is not None:
        when, name, op = blame.culprit
        lane = _lane(lanes, name)
        culprit = {"time": when - begin, "lane": lane, "op": op, "mark": _mark(times, marks, when, lane)}
    return {
        "number": blame.number,
        "time": blame.time - begin,
        "lane": _lane(lanes, blame.owner),
        "lost": blame.lost,
        "label": blame.label,
        "culprit": culprit,
    }


def _lane(lanes: dict[str, int], name: str) -> int:
    return lanes[name] if name in lanes else lanes.get(OTHERS, 0)


def _mark(times: list[int], marks: list[tuple[Mark, int]], when: int, lane: int) -> int | None:
    """The mark that is the culprit's change, if it stands alone."""
    near = range(bisect.bisect_left(times, when - _NEAR), bisect.bisect_right(times, when + _NEAR))
    alone = (
        number
        for number in near
        if marks[number][1] == lane and marks[number][0].count == 1 and not marks[number][0].facts.quiet
    )
    return min(alone, key=lambda number: abs(times[number] - when), default=None)
