"""The addresses of the live page: its files, and the stream of what happens, over a log that grows and turns.

Where a reader must be slow or away at a given moment, the application is called as its server calls it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import trio
from starlette.applications import Starlette

from guardfs.serve.addresses import bound, listen, parse
from guardfs.serve.guards import Guards
from guardfs.serve.plan import Known
from guardfs.serve.server import serve_one
from guardfs.web import feed
from guardfs.web.assets import assets
from guardfs.web.routes import MAX_READERS, Page
from tests.support.live_log import Log
from tests.unit.audit_tools import append, make_log

NAME = "agent:main:telegram:direct:{:04d}"
Message = dict[str, Any]
Following = Callable[[], Awaitable[tuple[str, Message]]]


class Written:
    """A log with events of *sessions*, that grows when asked to."""

    def __init__(self, path: Path, sessions: int = 3) -> None:
        self.path = path
        self.log = Log(sessions)
        self.us = 1_795_678_929_000_000
        self.more(20)

    def more(self, events: int) -> None:
        with self.path.open("ab") as file:
            for _ in range(events):
                self.us += 1000
                file.write(json.dumps(self.log.next(self.us)).encode() + b"\n")


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "audit.jsonl")


def guards_of(*paths: Path) -> Guards:
    """Guards of directories that nothing is mounted on, with these logs."""
    return Guards(lambda: [Known(str(path.parent / path.stem), audit=str(path)) for path in paths])


@asynccontextmanager
async def served(guards: Guards) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the page as it is really served."""
    listener, stop = listen(parse("127.0.0.1:0", "--web")), trio.Event()
    async with trio.open_nursery() as nursery:
        base = f"http://{bound(listener)}"
        nursery.start_soon(serve_one, guards, listener, ["web"], None, stop)
        async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
            yield client
        guards.closing.set()
        stop.set()


_MESSAGE = re.compile(rb"id: (.*)\ndata: (.*)\n\n")


@asynccontextmanager
async def reading(client: httpx.AsyncClient, *, last: str = "", **query: str) -> AsyncIterator[Following]:
    """A stream; what is handed out gives the next message, with its id."""
    host, port = client.base_url.host, client.base_url.port or 0
    head = f"GET /stream?{urlencode(query)} HTTP/1.1\r\nHost: {host}:{port}\r\n"
    head += f"Last-Event-ID: {last}\r\n\r\n" if last else "\r\n"
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(head.encode())
        held = b""

        async def following() -> tuple[str, Message]:
            nonlocal held
            with trio.fail_after(30):
                while (found := _MESSAGE.search(held)) is None:
                    data = await stream.receive_some()
                    assert data, held
                    held += data
            held = held[found.end() :]
            return found[1].decode(), json.loads(found[2])

        yield following


async def until(following: Following, key: str) -> Message:
    """The next message that has *key*."""
    while key not in (found := (await following())[1]):
        pass
    return found


# ---- files


async def test_the_page_lets_in_nothing_from_elsewhere_and_nothing_inline(written: Written) -> None:
    async with served(guards_of(written.path)) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'")
        assert "'unsafe-inline'" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        text = page.text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=|https?://", text)
        for address in re.findall(r'(?:src|href)="([^"#]+)"', text):
            found = await client.get(f"/{address}")
            assert found.status_code == 200, address
            again = await client.get(f"/{address}", headers={"If-None-Match": found.headers["etag"]})
            assert again.status_code == 304 and again.content == b""
        assert (await client.get("/static/../routes.py")).status_code == 404
        assert (await client.get("/static/no.js")).status_code == 404


def test_every_file_of_the_page_is_used() -> None:
    page = assets()["index.html"].body.decode()
    used = set(re.findall(r'(?:src|href)="static/([^"]+)"', page)) | {"index.html"}
    for name in list(used):
        if name.endswith(".js"):
            used |= set(re.findall(r'from "\./([^"]+)"', assets()[name].body.decode()))
    assert used == set(assets())


# ---- the stream


async def test_a_reader_is_told_everything_and_then_what_is_new(written: Written) -> None:
    async with (
        served(guards_of(written.path)) as client,
        reading(client, session=NAME.format(0)) as following,
    ):
        _, first = await following()
        assert first["all"] and len(first["sessions"]) == 3 and first["picture"]["fresh"]
        assert first["guards"][0][1].endswith("/audit") and first["totals"]["events"] == 20
        assert first["guard"]["silent"] == "no such directory" and len(first["tail"]["rows"]) == 20
        written.more(2)
        _, second = await following()
        assert "all" not in second and len(second["tail"]["rows"]) == 2 and "guards" not in second


async def test_who_was_away_is_told_what_came_since(written: Written) -> None:
    async with served(guards_of(written.path)) as client:
        async with reading(client) as following:
            last, _ = await following()
        written.more(3)
        async with reading(client, last=last) as following:
            found = await until(following, "tail")
            assert "all" not in found and len(found["tail"]["rows"]) == 3
        async with reading(
            client, **{"from": last}, fresh="tail,picture", session=NAME.format(1)
        ) as following:
            found = await until(following, "tail")
            assert "all" not in found and len(found["tail"]["rows"]) == 23 and found["picture"]["fresh"]
        for unknown in ("0123456789ab.4", "x", f"{last}9999"):
            async with reading(client, last=unknown) as following:
                assert (await following())[1]["all"]


async def test_the_tail_is_filtered(written: Written) -> None:
    async with served(guards_of(written.path)) as client:
        for query, right in (
            ({"lane": "gateway:*"}, lambda row: row["lane"] == "gateway:run"),
            ({"op": "fence"}, lambda row: row["op"] == "fence"),
            ({"within": NAME.format(2)}, lambda row: row["session"] == NAME.format(2)),
            ({"verdict": "allow"}, lambda row: row["verdict"] == "allow"),
        ):  # type: tuple[dict[str, str], Callable[[Message], bool]]
            async with reading(client, **query) as following:
                rows = (await following())[1]["tail"]["rows"]
                assert rows and len(rows) < 20 and all(map(right, rows)), query


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"guard": "nobody"}, 404, "no such guard"),
        ({"verdict": "maybe"}, 400, "verdict: one of allow"),
        ({"op": "dance"}, 400, "no such operation"),
        ({"lane": "x" * 301}, 400, "lane: longer than 300"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_in_words(
    written: Written, query: dict[str, str], status: int, said: str
) -> None:
    async with served(guards_of(written.path)) as client:
        answer = await client.get("/stream", params=query)
        assert answer.status_code == status and said in answer.text


async def test_strangers_get_neither_page_nor_stream(written: Written) -> None:
    async with served(guards_of(written.path)) as client:
        for address in ("/", "/stream", "/static/main.js"):
            answer = await client.get(address, headers={"Host": "elsewhere.example"})
            assert answer.status_code == 403, address


async def test_of_several_guards_each_has_its_own(tmp_path: Path) -> None:
    one, other = Written(tmp_path / "one.jsonl", 1), Written(tmp_path / "other.jsonl", 5)
    guards = guards_of(one.path, other.path)
    async with served(guards) as client:
        for name, sessions in zip([guard.name for guard in guards], (1, 5), strict=True):
            async with reading(client, guard=name) as following:
                _, found = await following()
                assert len(found["sessions"]) == sessions and len(found["guards"]) == 2


async def test_a_guard_whose_log_is_not_there_yet_is_followed_once_it_is(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with served(guards_of(path)) as client, reading(client) as following:
        _, found = await following()
        assert found["sessions"] == [] and "no such file" in found["guard"]["unread"]
        Written(path)
        while not found.get("sessions"):
            _, found = await following()
        assert len(found["tail"]["rows"]) == 20


async def test_the_log_is_followed_across_rotations_and_a_new_start(tmp_path: Path) -> None:
    log = make_log(tmp_path, max_bytes=5000, keep=1000)
    log.start()
    log.emit(append())
    seen: list[int] = []
    async with served(guards_of(Path(log.path))) as client, reading(client) as following:
        for turn in range(20):
            for _ in range(10):
                log.emit(append())
            if turn == 10:
                log.close()
                log = make_log(tmp_path, max_bytes=5000, keep=1000)
                log.start()
            _, found = await following()
            seen += [row["n"] for row in found.get("tail", {"rows": []})["rows"]]
        log.close()
        while seen[-1] < log.stats()["seq"]:
            _, found = await following()
            seen += [row["n"] for row in found.get("tail", {"rows": []})["rows"]]
    told = sorted(set(seen))
    assert seen == told, "each once, in order"
    processes = log.stats()["seq"] - len(told)
    assert 0 <= processes < 200 and log.stats()["rotations"] > 5


# ---- readers that are slow, many, or gone


class Called:
    """The application, called as a server does. taken: what was sent; `gate` holds the next send."""

    def __init__(self, page: Page, **query: str) -> None:
        self.app = Starlette(routes=page.routes())
        self.scope = {
            "type": "http", "method": "GET", "path": "/stream", "raw_path": b"/stream", "root_path": "",
            "query_string": urlencode(query).encode(), "headers": [], "http_version": "1.1", "scheme": "http",
            "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
        }  # fmt: skip
        self.taken: list[Message] = []
        self.status = 0
        self.gate = trio.Event()
        self.gate.set()
        self.more = trio.Event()
        self.gone = trio.Event()
        self.ended = trio.Event()

    async def run(self) -> None:
        await self.app(self.scope, self._receive, self._send)
        self.ended.set()

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.gate.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        found = re.search(rb"^data: (.*)$", message.get("body", b""), re.M)
        if found:
            self.taken.append(json.loads(found[1]))
            self.more.set()

    async def told(self, many: int) -> None:
        """Returns when so many messages were taken."""
        while len(self.taken) < many:
            self.more = trio.Event()
            await self.more.wait()


async def test_nothing_is_kept_for_a_reader_that_does_not_read(written: Written) -> None:
    page = Page(guards_of(written.path))
    slow, quick = Called(page), Called(page)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.run)
            nursery.start_soon(quick.run)
            await slow.told(1)
            await quick.told(1)
            slow.gate = trio.Event()
            many = 1
            for _ in range(4):
                written.more(500)
                many = len(quick.taken) + 1
                await quick.told(many)
            slow.gate.set()
            await slow.told(3)
            nursery.cancel_scope.cancel()
    assert len(slow.taken) == 3
    held, caught_up = slow.taken[1:]
    assert held["totals"]["events"] < 2020 and caught_up["totals"]["events"] == 2020
    assert len(caught_up["tail"]["rows"]) == 300 and caught_up["tail"]["more"]


async def test_streams_end_with_their_reader_and_with_the_server(written: Written) -> None:
    guards = guards_of(written.path)
    page = Page(guards)
    one, other = Called(page), Called(page)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run)
            nursery.start_soon(other.run)
            await one.told(1)
            await other.told(1)
            assert page.readers == 2
            one.gone.set()
            await one.ended.wait()
            assert page.readers == 1
            guards.closing.set()
    assert page.readers == 0


async def test_there_are_not_more_readers_than_are_let_in(written: Written) -> None:
    page = Page(guards_of(written.path))
    page.readers = MAX_READERS
    late = Called(page)
    await late.run()
    assert late.status == 503


async def test_a_log_that_nobody_watched_for_long_is_begun_anew(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    (guard,) = guards_of(written.path)
    found = feed.Feed(guard)
    await found.refresh()
    epoch = found.epoch
    monkeypatch.setattr(feed, "ALONE", -1.0)
    monkeypatch.setattr(feed, "EVERY", -1.0)
    written.more(5)
    await found.refresh()
    assert found.epoch != epoch and found.live.events == 25
    found.close()


async def test_who_goes_away_while_it_looks_loses_nothing_for_the_others(written: Written) -> None:
    (guard,) = guards_of(written.path)
    found = feed.Feed(guard)
    written.more(3000)
    with trio.CancelScope() as scope:
        scope.cancel()
        await found.refresh()
    await found.refresh()
    assert found.live.events == 3020
    found.close()
