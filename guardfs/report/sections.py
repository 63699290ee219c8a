"""The parts of the page, as HTML. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from guardfs.audit.show import short
from guardfs.report import story
from guardfs.report.collect import MAX_TOLD, Collector, Told
from guardfs.report.counts import Counts, Row, total
from guardfs.report.markup import Child, Markup, join, tag
from guardfs.report.values import text

if TYPE_CHECKING:
    from guardfs.report.page import Origin

MAX_OPEN = 6
"""Pictures that are drawn at once; the others when somebody opens them."""

MAX_FILES = 12
"""Files of one lane that are told apart in the table."""

MAX_LANES = 60


def title(found: Collector) -> str:
    """Of the document: what a list of tabs shows."""
    lost = found.outcomes["lost"]
    return f"guardfs report: {many(lost, 'turn')} lost" if lost else "guardfs report"


def many(count: int, thing: str) -> str:
    """``3 turns``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def header(found: Collector, origin: Origin) -> Markup:
    """What the page is about, and its sum in one sentence and a few numbers."""
    where = " · ".join(dict.fromkeys(mount for mount, _ in found.mounts.values() if mount))
    when = f"{moment(found.first)} to {moment(found.last)} UTC" if found.events else "no event"
    lost, saved = found.outcomes["lost"], found.outcomes["saved"]
    numbers: list[tuple[str, str, int, str]] = [
        ("turn", "lost", lost, "lost"),
        ("turn", "saved", saved, "saved"),
        ("time", "records were forgotten", found.forgotten, "noted"),
        ("session", "hit", len(found.hit), ""),
        ("fence", "", found.fences, ""),
        ("operation", "", found.counts.operations, ""),
    ]
    tiles = [
        tag(
            "div",
            tag("b", f"{value:,}"),
            tag("span", f"{thing}{'' if value == 1 else 's'} {rest}".strip()),
            class_=f"tile {kind if value else ''}".strip(),
        )
        for thing, rest, value, kind in numbers
        if value or kind == "lost" or not rest
    ]
    return tag(
        "header",
        tag("h1", "guardfs report"),
        tag("p", where or "the log does not say where the guard was", class_="where"),
        tag("p", join(when, f" · {origin.asked}" if origin.asked else None), class_="when"),
        tag("p", _verdict(found), class_=f"verdict {'lost' if lost else 'saved' if saved else 'fine'}"),
        tag("div", *tiles, class_="tiles"),
    )


def _verdict(found: Collector) -> str:
    lost, saved = found.outcomes["lost"], found.outcomes["saved"]
    if not lost and not saved:
        return "No turn died of a changed transcript."
    said = [f"{many(lost, 'turn')} died"] if lost else []
    said += [f"{many(saved, 'turn')} would have died without the guard"] if saved else []
    culprits = [
        f"{lane} {done}" + (f" ({count:,} times)" if count > 1 else "")
        for (lane, done), count in found.culprits.most_common(3)
    ]
    more = len(found.culprits) - len(culprits)
    tail = "; ".join(culprits) + (f"; and {many(more, 'other culprit')}" if more > 0 else "")
    return f"{' and '.join(said)}: {tail}."


def pictures(found: Collector, drawn: Mapping[str, Any]) -> Markup:
    """A place for each session's picture; the scripts draw it there."""
    sessions = drawn["sessions"]
    hit = sum(1 for each in sessions if each["incidents"])
    shown = [
        _session(found, session, number, opened=number < (min(hit, MAX_OPEN) or 1))
        for number, session in enumerate(sessions)
    ]
    left = f"{many(drawn['left'], 'session')} more without a picture." if drawn["left"] else None
    return tag(
        "section",
        tag("h2", "Who wrote when"),
        tag(
            "p",
            "Each lane is one line of work. A blue bar is a fence: the time in which its lane relies on the transcript "
            "not changing under it. A change by another lane within it kills the turn.",
            class_="lead",
        ),
        tag("div", id="legend", class_="legend"),
        tag("div", id="tools", class_="tools"),
        tag("noscript", tag("p", "The pictures need JavaScript. All that is below does not.")),
        *shown,
        tag("p", "The log tells of no transcript.", class_="none") if not sessions else None,
        tag("p", left, class_="left") if left else None,
        id="pictures",
        tabindex="-1",
    )


def _session(found: Collector, session: Mapping[str, Any], number: int, *, opened: bool) -> Markup:
    badges = [
        tag("span", f"{session[kind]:,} {kind}", class_=f"badge {kind}")
        for kind in ("lost", "saved")
        if session[kind]
    ]
    facts = [
        many(session["events"], "event"),
        many(len(session["fences"]), "fence"),
        many(len(session["lanes"]), "lane"),
    ]
    mount = found.mounts.get(session["log"], ("", ""))[0] if len(found.mounts) > 1 else ""
    return tag(
        "details",
        tag(
            "summary",
            tag("span", short(session["name"]), class_="name", title=session["name"]),
            *badges,
            tag("span", " · ".join(facts), class_="facts"),
        ),
        tag("p", ", ".join(session["files"][:8]), f" in {mount}" if mount else None, class_="files"),
        tag("div", class_="picture", data_session=number),
        class_="session",
        open=opened,
        data_session=number,
    )


def incidents(found: Collector, sessions: Iterable[Mapping[str, Any]]) -> Markup | None:
    """The story of each incident, with both fingerprints and the versions' answers."""
    if not found.incidents:
        return None
    drawn = {each["number"]: index for index, session in enumerate(sessions) for each in session["incidents"]}
    all_of_them = found.outcomes.total()
    left = all_of_them - len(found.incidents)
    return tag(
        "section",
        tag("h2", "What happened"),
        tag("p", f"The last {MAX_TOLD:,} of {all_of_them:,} incidents.", class_="left") if left else None,
        *[_incident(told, drawn.get(told.number)) for told in found.incidents],
        id="incidents",
    )


def _incident(told: Told, session: int | None) -> Markup:
    incident = told.incident
    lost = incident.outcome != "saved"
    kind = "lost" if lost else "saved"
    fields = story.compare(incident.expected, incident.seen)
    return tag(
        "article",
        tag(
            "h3",
            tag("span", f"{told.number}", class_="number"),
            tag("span", kind, class_=f"badge {kind}"),
            f" {short(incident.session or incident.path)}",
            tag("span", f" {incident.time[:23].replace('T', ' ')} UTC", class_="when"),
        ),
        tag("p", story.sentence(incident), class_="sentence"),
        tag(
            "p",
            tag(
                "button", "Show it in the picture", type="button", data_show=told.number, data_session=session
            ),
            class_="tools",
        )
        if session is not None
        else None,
        tag(
            "div",
            _facts(story.culprit_rows(incident, told.culprit, told.did, told.seq), "Culprit"),
            _facts(story.owner_rows(incident, told.owner), "Owner of the fence"),
            _fingerprints(fields) if fields else None,
            class_="columns",
        ),
        _versions(story.versions(incident)),
        class_=f"incident {kind}",
        id=f"incident-{told.number}",
    )


def _facts(rows: story.Rows, heading: str = "") -> Markup:
    found = tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in rows])
    return tag("div", tag("h4", heading), found) if heading else found


def _fingerprints(fields: list[story.Field]) -> Markup:
    rows = [
        tag(
            "tr",
            tag("th", field.name, scope="row"),
            tag("td", field.expected),
            tag("td", field.seen),
            tag("td", field.change or "same"),
            class_="differs" if field.change else None,
        )
        for field in fields
    ]
    return _table("Fingerprint (times: UTC)", ("", "expected", "found", "change"), rows)


def _versions(rows: list[tuple[str, Any, str]]) -> Markup:
    dying = [name for name, answer, _ in rows if answer == "dies"]
    said = f"OpenClaw versions that die of it: {', '.join(dying) or 'none known'}"
    shown = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", story.ANSWERS[answer]),
            tag("td", says),
            class_=answer,
        )
        for name, answer, says in rows
    ]
    return tag(
        "details",
        tag("summary", said),
        _table("", ("versions", "this change", "rule"), shown),
        class_="versions",
    )


COLUMNS = (
    ("writes", "writes"),
    ("bytes", "bytes"),
    ("changes", "other changes"),
    ("locks", "locks taken"),
    ("looks", "looks, opens"),
    ("held", "held, or would be"),
    ("failed", "failed"),
)


def counts(found: Counts) -> Markup | None:
    """A table of lanes and their files."""
    lanes = found.by_lane()
    if not lanes:
        return None
    bodies = [_lane(whole, rows) for whole, rows in lanes[:MAX_LANES]]
    if len(lanes) > MAX_LANES:
        rest = total([whole for whole, _ in lanes[MAX_LANES:]])
        bodies.append(tag("tbody", _count_row(f"{many(len(lanes) - MAX_LANES, 'lane')} more", rest, "lane")))
    names = ("lane and file", *(name for _, name in COLUMNS))
    return tag(
        "section",
        tag("h2", "Counts by lane and file"),
        _scroll(tag("table", _head(names), *bodies, class_="counts"), "Counts by lane and file"),
        id="counts",
    )


def _lane(whole: Row, rows: list[Row]) -> Markup:
    shown = rows if len(rows) <= MAX_FILES + 1 else rows[:MAX_FILES]
    lines = [
        _count_row(whole.lane, whole, "lane"),
        *[_count_row(short(row.file), row, "file", row.file) for row in shown],
    ]
    if len(shown) < len(rows):
        rest = rows[len(shown) :]
        lines.append(_count_row(f"{many(len(rest), 'file')} more", total(rest), "file"))
    return tag("tbody", *lines)


def _count_row(name: str, row: Row, kind: str, whole: str | None = None) -> Markup:
    cells: list[Child] = [
        tag("td", f"{getattr(row, key):,}" if getattr(row, key) else "") for key, _ in COLUMNS
    ]
    return tag("tr", tag("th", name, scope="row", title=whole), *cells, class_=kind)


def about(found: Collector, origin: Origin, drawn: Mapping[str, Any]) -> Markup:
    """What the page was made of, what is not in it, and what it does not show."""
    rows = [("log", name) for name in origin.files]
    rows += [("guard", f"guardfs {version} on {mount}") for mount, version in found.mounts.values()]
    rows += [
        (
            "policy",
            f"{each.source or '?'} ({each.mode or '?'}), digest {each.digest[:12]}, from {moment(each.time)} UTC",
        )
        for each in found.policies
    ]
    rows.append(("made", f"{origin.made} UTC by guardfs {origin.version}"))
    return tag(
        "section",
        tag("h2", "About this report"),
        _facts(rows),
        tag("ul", *[tag("li", line) for line in _remarks(found, origin, drawn)]),
        tag(
            "p",
            "No message text is in this page: the log has none. It does have session keys (which may hold user ids), "
            "names of files, programs and scripts, process ids and times.",
            class_="privacy",
        ),
        id="about",
    )


def _remarks(found: Collector, origin: Origin, drawn: Mapping[str, Any]) -> list[str]:
    """What a reader must know to trust the picture."""
    said = []
    if found.gaps:
        said.append(
            f"{many(found.gaps, 'event')} could not be written to the log: something may be missing here."
        )
    if found.errors:
        said.append(f"{many(found.errors, 'error')} within the guard.")
    if found.unseen:
        said.append(f"{many(found.unseen, 'change')} below the mount, by writers that the guard cannot see.")
    if found.stale:
        said.append(f"{many(found.stale, 'time')} an owner came back after its fence was closed for silence.")
    if skipped := origin.skipped + found.undated + found.strange:
        said.append(f"{many(skipped, 'line')} of the log could not be read.")
    if drawn["gap"]:
        said.append(f"In the pictures looks within {drawn['gap'] / 1e6:,.3f} s are one line.")
    if drawn["changes_gap"]:
        said.append(
            f"In the pictures changes of one kind within {drawn['changes_gap'] / 1e6:,.3f} s are one mark."
        )
    if drawn["dropped"]:
        said.append(f"{many(drawn['dropped'], 'mark')} not drawn, the oldest: there are too many lanes.")
    if drawn["beyond"]:
        said.append(f"{many(drawn['beyond'], 'fence, incident or note')} not drawn: there are too many.")
    return said


def moment(us: int) -> str:
    """us since the epoch, for people, in UTC to the second."""
    return f"{datetime.fromtimestamp(us // 1_000_000, UTC):%Y-%m-%d %H:%M:%S}"


def _table(caption: str, names: Iterable[str], rows: list[Markup]) -> Markup:
    table = tag("table", tag("caption", caption) if caption else None, _head(names), tag("tbody", *rows))
    return _scroll(table, caption or "Table")


def _head(names: Iterable[str]) -> Markup:
    return tag("thead", tag("tr", *[tag("th", name, scope="col") for name in names]))


def _scroll(table: Markup, name: str) -> Markup:
    """On a narrow screen the table scrolls, not the page; with keys, too."""
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=text(name))
