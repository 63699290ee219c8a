"""Who is let in, asked of the real server over real sockets; and what is refused before it begins."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from guardfs.errors import GuardError
from guardfs.serve.addresses import Address, parse
from guardfs.serve.plan import plan_of
from guardfs.serve.server import open_all
from tests.support.commands import guardfs
from tests.support.serving import ANYWHERE, Server

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not guarded: nobody of these tests gets that far."""
    return tmp_path_factory.mktemp("sessions")


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory, directory: Path) -> Iterator[Server]:
    """Without a token, on loopback."""
    server = Server(tmp_path_factory.mktemp("open") / "out", directory, "--metrics", ANYWHERE)
    yield server
    server.destroy()


@pytest.fixture(scope="module")
def closed_server(
    tmp_path_factory: pytest.TempPathFactory, directory: Path, token_file: Path
) -> Iterator[Server]:
    """With a token, on every address."""
    words = (directory, "--metrics", "0.0.0.0:0", "--token-file", token_file)
    server = Server(tmp_path_factory.mktemp("closed") / "out", *words)
    yield server
    server.destroy()


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9000", "127.0.0.1", "127.9.9.9:1", "[::1]:80", "LOCALHOST"]
)
def test_a_request_to_this_machine_is_answered(open_server: Server, host: str) -> None:
    answer = httpx.get(f"{open_server.url('metrics')}/healthz", headers={"Host": host})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8470", "localhost.evil.example", "127.0.0.1.evil.example", "[fe80::1]", "10.0.0.1"],
)  # fmt: skip
def test_a_request_to_another_name_is_refused(open_server: Server, host: str) -> None:
    """What a page of the web sends that has its name resolved to 127.0.0.1."""
    answer = httpx.get(f"{open_server.url('metrics')}/healthz", headers={"Host": host})
    assert answer.status_code == 403
    assert "alive" not in answer.text


def test_a_request_without_the_token_is_refused_and_told_how(closed_server: Server) -> None:
    url = closed_server.url("metrics").replace("0.0.0.0", "127.0.0.1")
    for path in ("/healthz", "/metrics", "/", "/nowhere", "/healthz?token=", "/healthz?token=wrong"):
        answer = httpx.get(url + path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "set-cookie" not in answer.headers
    for wrong in (
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer",
        "Bearer \xfc",
    ):
        headers = [(b"authorization", wrong.encode("latin-1"))]
        assert httpx.get(f"{url}/healthz", headers=headers).status_code == 401, wrong


def test_the_token_lets_in_as_bearer_under_any_name(closed_server: Server) -> None:
    url = closed_server.url("metrics").replace("0.0.0.0", "127.0.0.1")
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "gateway.example:9464"}
    assert httpx.get(f"{url}/healthz", headers=headers).json() == {"alive": True}


def test_one_visit_with_the_token_sets_a_cookie_that_is_not_the_token(closed_server: Server) -> None:
    url = closed_server.url("metrics").replace("0.0.0.0", "127.0.0.1")
    with httpx.Client() as visitor:
        first = visitor.get(f"{url}/healthz", params={"a": "1 2", "token": TOKEN, "b": "3"})
        assert first.status_code == 303
        assert first.headers["location"] == "/healthz?a=1+2&b=3"
        cookie = first.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert TOKEN not in first.headers["set-cookie"] + first.headers["location"]
        assert visitor.get(f"{url}/healthz").json() == {"alive": True}
        (name,) = visitor.cookies
        value = visitor.cookies[name]
    for wrong in (value[:-1], value + "0", TOKEN, ""):
        assert httpx.get(f"{url}/healthz", headers={"Cookie": f"{name}={wrong}"}).status_code == 401
    assert httpx.get(f"{url}/healthz", headers={"Authorization": f"Bearer {value}"}).status_code == 401


def test_a_visit_leads_to_no_other_host(closed_server: Server) -> None:
    url = closed_server.url("metrics").replace("0.0.0.0", "127.0.0.1")
    answer = httpx.get(f"{url}//evil.example/", params={"token": TOKEN})
    assert answer.headers["location"] == "/evil.example/"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("127.0.0.1", "no address"),
        ("9464", "no address"),
        (":9464", "no IP address"),
        ("127.0.0.1:", "no address"),
        ("127.0.0.1:65536", "no address"),
        ("127.0.0.1:9464/x", "no address"),
        ("::1:9464", "no address"),
        ("example.org:80", "'example.org' is no IP address"),
        ("256.0.0.1:80", "no IP address"),
        ("[127.0.0.1:80", "no address"),
        ("", "no address"),
    ],
)
def test_an_address_that_is_none_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(GuardError) as refused:
        parse(text, "--web")
    assert str(refused.value).startswith("--web") and said in str(refused.value)
    assert "127.0.0.1:9464" in refused.value.mend


@pytest.mark.parametrize(
    ("text", "wanted", "loopback"),
    [
        ("localhost:80", Address("127.0.0.1", 80), True),
        ("127.3.2.1:0", Address("127.3.2.1", 0), True),
        ("[::1]:8470", Address("::1", 8470), True),
        ("0.0.0.0:9464", Address("0.0.0.0", 9464), False),
        ("[::]:9464", Address("::", 9464), False),
        ("[fe80::1]:1", Address("fe80::1", 1), False),
    ],
)
def test_an_address_is_read(text: str, wanted: Address, loopback: bool) -> None:
    found = parse(text, "--web")
    assert (found, found.loopback) == (wanted, loopback)
    assert parse(str(found), "--web") == found


def _token(place: Path, text: str) -> Path:
    path = place / "token"
    path.write_text(text)
    path.chmod(0o600)
    return path


Asked = tuple[str | None, str | None, Path | str | None]


def test_what_would_let_strangers_in_or_cannot_be_is_refused_with_the_mend(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        good = _token(tmp_path, TOKEN)
        cases: list[tuple[Asked, str]] = [
            ((None, "0.0.0.0:0", None), "other machines reach it"),
            (("[::]:0", None, None), "other machines reach it"),
            (("nonsense", None, None), "no address"),
            ((f"127.0.0.1:{taken.getsockname()[1]}", None, None), "is in use"),
            (("203.0.113.7:9464", None, good), "no address of this machine"),
            ((ANYWHERE, None, tmp_path / "missing"), "cannot be read"),
        ]
        for (metrics, web, token_file), said in cases:
            with pytest.raises(GuardError) as refused:
                open_all(plan_of(metrics, web, None if token_file is None else str(token_file)))
            assert said in refused.value.what and refused.value.mend
    for weak, said in (
        ("short", "can be guessed"),
        ("two words of some length", "holds no token"),
        ("", "guessed"),
    ):
        with pytest.raises(GuardError, match=said):
            plan_of(None, "0.0.0.0:0", str(_token(tmp_path, weak)))


def test_the_command_says_so_in_one_line(tmp_path: Path, directory: Path) -> None:
    cases: list[tuple[list[object], str]] = [
        ([directory], "nothing to serve"),
        ([directory, "--web", "0.0.0.0:0"], "other machines reach it"),
        ([tmp_path / "nowhere", "--metrics", ANYWHERE], "no such directory"),
    ]
    for words, said in cases:
        done = guardfs("serve", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


def test_it_ends_well_when_told_although_a_client_stays(tmp_path: Path, directory: Path) -> None:
    server = Server(tmp_path / "out", directory, "--metrics", ANYWHERE)
    try:
        with httpx.Client() as client:
            assert client.get(f"{server.url('metrics')}/healthz").status_code == 200
            assert server.stop() == 0
    finally:
        server.destroy()
